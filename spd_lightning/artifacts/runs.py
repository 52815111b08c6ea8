"""The runs of a folder: which there are, how far each has come, what it scored, and which artifacts it uses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.reading import or_nothing, read_object, read_yaml
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError, disk_fault

Row = dict[str, Any]


@dataclass(frozen=True)
class RunSummary:
    """One run, from its small files.

    Attributes:
        folder: Its folder.
        config: Its options, nested.
        state: ``running``, or how far it has come: ``scored``, ``trained``, ``generated``, ``extracted``, ``begun``.
        results: What ``results.json`` holds; empty where there is none yet, or none that can be read.
        bytes: Size of its files.
        changed: Time of the last change (s).
    """

    folder: RunFolder
    config: dict[str, Any]
    state: str
    results: dict[str, Any]
    bytes: int
    changed: float

    @property
    def task(self) -> str:
        """The task that it is calibrated and trained on."""
        return " + ".join(self.tasks)

    @property
    def tasks(self) -> list[str]:
        """The same one by one, where the run is of several."""
        task = self._option("subspace", "task")
        return [str(name) for name in task] if isinstance(task, list | dict) else [str(task)]

    @property
    def method(self) -> str:
        """``spd``, ``ssd``, ...; what the scores of its student stand under."""
        return str(self._option("data", "method"))

    @property
    def model(self) -> str:
        """The base: a hub id, an embedded model, or the last part of a folder's path."""
        name = str(self._option("subspace", "model_name_or_path"))
        return Path(name).name if name.startswith(("/", ".", "~")) else name

    def _option(self, section: str, name: str) -> Any:
        options = self.config.get(section)
        return (options.get(name) if isinstance(options, dict) else None) or "-"

    def headline(self) -> tuple[Row | None, Row | None]:
        """Score of the base and of what was trained, on the task trained on or else the first that was scored.

        Of several metrics the one that stands first; None for a model without a score.
        """
        found = self.results.get("scores")
        rows = [row for row in found if _is_score(row)] if isinstance(found, list) else []
        tasks = [row["task"] for row in rows]
        trained = self.results.get("trained_on")
        task = trained if trained in tasks else next(iter(tasks), None)
        first = {row["method"]: row for row in reversed([r for r in rows if r["task"] == task])}
        return first.get("base"), None if self.method == "base" else first.get(self.method)


def _is_score(row: Any) -> bool:
    """Whether a row of results that nobody checked has what a list shows."""
    if not isinstance(row, dict) or any(not isinstance(row.get(name), str) for name in ("task", "method", "metric")):
        return False
    return isinstance(row.get("value"), int | float)


def find_runs(root: str | Path) -> Iterator[RunFolder]:
    """The run folders in ``root`` at any depth, in the order of their paths; ``root`` itself may be one.

    What is hidden is left out: the store that runs share, dry runs, what is being written.
    """
    for path, folders, files in os.walk(root):
        if {"config.yaml", "environment.json"} <= set(files):
            folders.clear()
            yield RunFolder(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def summarise(folder: RunFolder) -> RunSummary:
    """Read a run's small files; one that is damaged counts as not there."""
    sizes, changed = 0, 0.0
    for path, _, files in os.walk(folder.path):
        for name in files:
            try:
                found = os.lstat(os.path.join(path, name))
            except OSError:  # a running run renames what it has finished
                continue
            sizes, changed = sizes + found.st_size, max(changed, found.st_mtime)
    state = "running" if folder.is_running() else reached(folder)
    config, results = or_nothing(read_yaml, folder.config_file), or_nothing(read_object, folder.results)
    return RunSummary(folder, config, state, results, sizes, changed)


def reached(folder: RunFolder) -> str:
    """How far a run has come, by what it has finished."""
    made = (
        ("scored", folder.results),
        ("trained", folder.adapter),
        ("generated", folder.corpus),
        ("extracted", folder.subspace),
    )
    return next((state for state, path in made if path.exists()), "begun")


@contextlib.contextmanager
def showing(runs: Sequence[RunFolder]) -> Iterator[None]:
    """Tell of runs that cannot be shown that their files are not, or may not be, as they were written.

    Files that can be read may still hold what no run writes: rows of another shape, text in the place of a number. What
    goes wrong with files that are as they were written is a fault of this program, and is raised as it is.

    Raises:
        UserError: For runs with changed files, or without the checksums that would tell.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if disk_fault(error) is not None:
            raise
        found = {run.path: run.manifest.changed() for run in runs}
        said = [f"{path} ({'; '.join(why) if why else 'nothing tells'})" for path, why in found.items() if why != []]
        if not said:
            raise
        raise UserError(
            f"What stands in {', '.join(said)} cannot be shown ({type(error).__name__}: {error}): it was changed by "
            "hand, or another program wrote it. Put the files back, or remove results.json and score the run again "
            "with test."
        ) from error
