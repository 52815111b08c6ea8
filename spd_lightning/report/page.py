"""The report itself: one list of sections, rendered as a self-contained HTML page and as Markdown beside its plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spd_lightning.artifacts.files import write_atomic, write_json
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError
from spd_lightning.report.render import render_html, render_markdown
from spd_lightning.report.runs import read_run
from spd_lightning.report.several import combined_results, several_runs
from spd_lightning.report.single import one_run


def write_report(run_dirs: Sequence[str | Path], out: str | Path) -> Path:
    """Write ``results.json``, ``report.md``, ``report.html`` and ``plots/`` for one run or several.

    Args:
        run_dirs: Run folders; runs that differ only in the seed are averaged.
        out: Folder to write; for a single run it may be the run folder, whose ``results.json`` is then left as it is.

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
    if not inside:
        write_json(RunFolder(out).results, runs[0].results if len(runs) == 1 else combined_results(runs))
    title, blocks = one_run(runs[0], out) if len(runs) == 1 else several_runs(runs, out)
    write_atomic(out / "report.md", render_markdown(title, blocks, out))
    return write_atomic(out / "report.html", render_html(title, blocks))
