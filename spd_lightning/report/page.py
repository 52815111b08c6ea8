"""The report itself: an answer and the sections behind it, as one page and as Markdown beside its plots."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from spd_lightning.artifacts.files import write_atomic, write_json
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError
from spd_lightning.report.across import across_rows
from spd_lightning.report.answer import answer_of_run, answer_of_runs
from spd_lightning.report.html import render_page
from spd_lightning.report.render import Block, Figure, flat, render_markdown
from spd_lightning.report.runs import read_run
from spd_lightning.report.several import combined_results, several_runs
from spd_lightning.report.single import one_run


def write_report(
    run_dirs: Sequence[str | Path],
    out: str | Path,
    plots: Collection[str] = ("png",),
    unfinished: Mapping[str, str] | None = None,
) -> Path:
    """Write ``results.json``, ``report.md``, ``report.html`` and ``plots/`` for one run or several.

    Args:
        run_dirs: Run folders; runs that differ only in the seed are averaged.
        out: Folder to write; for a single run it may be the run folder, whose ``results.json`` is then left as it is.
        plots: Formats of the files under ``plots/``, of ``png``, ``svg`` and ``pdf``; the page has its figures inside.
        unfinished: Runs that belong to these and are not there, e.g. failed points of a sweep: name to reason.

    Returns:
        Path of ``report.html``.

    Raises:
        UserError: If a folder is no finished run, no folder is given, or ``out`` is one of several runs.

    Ranks:
        Call it on rank zero only.
    """
    out = Path(out)
    folders = list(dict.fromkeys(Path(d).resolve() for d in run_dirs))
    if not folders:
        raise UserError("No run folder given. Type: python -m spd_lightning report RUN_DIR [RUN_DIR ...] [--out DIR]")
    runs = [read_run(folder) for folder in folders]
    inside = out.resolve() in folders
    if inside and len(runs) > 1:
        raise UserError(
            f"--out {out} is one of the {len(runs)} runs; its results would be overwritten. Choose another."
        )
    if len(runs) == 1:
        answer, sections, results = answer_of_run(runs[0]), one_run(runs[0]), runs[0].results
    else:
        across = across_rows(runs)
        answer, sections = answer_of_runs(runs, across, unfinished or {}), several_runs(runs, across)
        results = combined_results(runs, across)
    if not inside:
        write_json(RunFolder(out).results, results)
    blocks: list[Block] = [*answer.blocks(), *flat(sections)]
    kind = "png" if "png" in plots else "svg" if "svg" in plots else None
    for block in blocks if plots else ():
        if isinstance(block, Figure):
            from spd_lightning.report.plots import write_chart

            write_chart(block.chart, out / "plots", block.name, plots)
    write_atomic(out / "report.md", render_markdown(answer.question, blocks, kind))
    return write_atomic(out / "report.html", render_page(answer, sections))
