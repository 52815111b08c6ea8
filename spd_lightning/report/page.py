"""The report itself: an answer and the sections behind it, as one page, as Markdown beside its plots, as tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.files import write_atomic, write_json
from spd_lightning.artifacts.run_folder import REPORT, RunFolder
from spd_lightning.errors import UserError
from spd_lightning.report.across import across_rows
from spd_lightning.report.answer import Answer, answer_of_run, answer_of_runs
from spd_lightning.report.chart import PLOTS
from spd_lightning.report.exports import csv_tables, latex_tables, one_line
from spd_lightning.report.html import render_page
from spd_lightning.report.notices import MOST_LINES, THE_REST
from spd_lightning.report.render import Block, Bullets, Code, Figure, Section, flat, render_markdown
from spd_lightning.report.several import combined_results, several_runs
from spd_lightning.report.single import one_run
from spd_lightning.report.unfinished import read_runs

FORMATS = ("md", "html", "json", "csv", "latex")


def write_report(
    run_dirs: Sequence[str | Path],
    out: str | Path,
    formats: Collection[str] = ("md", "html", "json"),
    plots: Collection[str] = ("png",),
) -> Path:
    """Write ``results.json``, ``report.md``, ``report.html`` and ``plots/`` for one run or several.

    Args:
        run_dirs: Run folders; runs that differ only in the seed are averaged. Of several, those that were not scored
            are left out and named.
        out: Folder to write; for a single run it may be the run folder, whose ``results.json`` is then left as it is.
        formats: Of `FORMATS`: ``csv`` and ``latex`` write ``tables/``, ``json`` is ``results.json``.
        plots: Of `PLOTS`: formats of the files under ``plots/``; the page has its figures inside.

    Returns:
        Path of ``report.html``, or the folder where no page was asked for.

    Raises:
        UserError: If a folder is no run, none of several was scored, no folder is given, a format is not known, or
            ``out`` is one of several runs.

    Ranks:
        Call it on rank zero only.
    """
    out, folder = Path(out), RunFolder(out)
    for option, given, known in (("format", formats, FORMATS), ("plots", plots, PLOTS)):
        if unknown := [name for name in given if name not in known]:
            raise UserError(f"{option}={','.join(unknown)} (--{option}) is not known. Choose from {','.join(known)}.")
    if not formats and not plots:
        raise UserError("format (--format) and plots (--plots) are both empty: nothing would be written. Name some.")
    folders = list(dict.fromkeys(Path(d).resolve() for d in run_dirs))
    if not folders:
        raise UserError("No run folder given. Type: python -m spd_lightning report RUN_DIR [RUN_DIR ...] [--out DIR]")
    inside = out.resolve() in folders
    if inside and len(folders) > 1:
        raise UserError(
            f"out={out} (--out) is one of the {len(folders)} runs; its results would be overwritten. Choose another."
        )
    runs, missing = read_runs(folders)
    if not runs:
        raise UserError(f"None of the {len(folders)} runs was scored: {'; '.join(map(': '.join, missing.items()))}")
    across: list[dict[str, Any]] = []
    results: Mapping[str, Any] = runs[0].results
    if len(runs) == 1:
        answer, sections = answer_of_run(runs[0], missing), one_run(runs[0])
    else:
        across = across_rows(runs)
        answer, sections = answer_of_runs(runs, across, missing), several_runs(runs, across)
        results = combined_results(runs, across)
    if len(answer.notices) > MOST_LINES:
        sections.append(Section(THE_REST, f"All {len(answer.notices)}", [Bullets(answer.notices)]))
    if line := one_line(runs, across):
        sections[0] = Section(sections[0].title, sections[0].headline, [*sections[0].blocks, Code(line, "To paste")])
    if "json" in formats and not inside and not runs[0].half_done:
        write_json(folder.results, results)
    if "csv" in formats:
        for name, text in csv_tables(results).items():
            write_atomic(folder.tables / f"{name}.csv", text)
    if "latex" in formats:
        write_atomic(folder.tables / "report.tex", latex_tables(sections))
    _write_plots([*answer.figures, *flat(sections)], folder.plots, plots)
    page = _write_pages(answer, sections, folder, formats, plots)
    if inside:
        folder.manifest.wrote(REPORT)
    return page


def _write_plots(blocks: Sequence[Block], folder: Path, plots: Collection[str]) -> None:
    """The figures as files; matplotlib is loaded for these alone."""
    for block in blocks if plots else ():
        if isinstance(block, Figure):
            from spd_lightning.report.plots import write_chart

            write_chart(block.chart, folder, block.name, plots)


def _write_pages(
    answer: Answer, sections: Sequence[Section], folder: RunFolder, formats: Collection[str], plots: Collection[str]
) -> Path:
    """Markdown and page."""
    if "md" in formats:
        kind = next((kind for kind in ("png", "svg") if kind in plots), None)
        blocks = [*answer.blocks(), *flat(sections)]
        write_atomic(folder.report, render_markdown(answer.question, blocks, kind))
    if "html" in formats:
        return write_atomic(folder.page, render_page(answer, sections))
    return folder.path
