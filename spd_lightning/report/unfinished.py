"""Runs that are not done: a report over several leaves them out and says why; one alone has its page."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.reading import or_nothing, read_object
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.report.runs import Run, assemble, read_run
from spd_lightning.report.schema import SCHEMA

SWEEP = ".sweep"  # in a sweep's folder: how each of its points ended


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], dict[str, str]]:
    """The finished runs among some folders, and why others are not among them.

    Points of a sweep that failed are named too, though no folder of theirs was given: those of the sweeps that the
    runs are points of. One folder alone that was begun and not scored is read as it stands.

    Returns:
        Runs, and name to reason of those that are not there.

    Raises:
        UserError: If a folder is no run, or holds a file that cannot be read.
    """
    begun = [
        path for path in folders if RunFolder(path).config_file.is_file() and not RunFolder(path).results.is_file()
    ]
    if len(folders) == 1 and begun:
        return [read_half(folders[0])], {}
    runs = [read_run(path) for path in folders if path not in begun]
    missing = {path.name: f"it was not scored. {_next_step(path)}" for path in begun}
    names = {path.name for path in folders} - set(missing)
    for parent in dict.fromkeys(path.parent for path in folders):
        missing |= {name: why for name, why in failed_points(parent).items() if name not in names}
    return runs, missing


def failed_points(parent: Path) -> dict[str, str]:
    """Points of the sweep in a folder whose command failed: name to reason."""
    failed = {}
    for record in sorted((parent / SWEEP).glob("*.json")):
        if status := or_nothing(read_object, record).get("status"):
            log = record.with_suffix(".log")
            with contextlib.suppress(OSError):
                lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
                last = next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
                failed[record.stem] = f"its command failed with status {status}: {last[:300]}"
    return failed


def read_half(path: Path) -> Run:
    """A run that was begun and not scored, with what there is of it.

    Raises:
        UserError: If a file of it cannot be read.
    """
    folder = RunFolder(path)
    results: dict[str, Any] = {"schema": SCHEMA, **{rows: [] for rows in ("scores", "comparisons", "stages")}}
    there = [
        name
        for name, file in (("subspace", folder.subspace), ("corpus", folder.corpus), ("student", folder.adapter))
        if file.exists()
    ]
    have = f"there {'are' if len(there) > 1 else 'is'} {', '.join(there)}" if there else "nothing is there yet"
    run = assemble(folder, results, f"This run is half done: {have}, and no scores. {_next_step(path)}")
    results["fingerprint"] = run.environment.get("fingerprint")
    results["trained_on"], results["method"] = run.option("subspace.task"), run.option("data.method")
    return run


def _next_step(path: Path) -> str:
    return f"Finish it with: {RunFolder(path).command()}"
