"""The cells of a study: their keys, what a finished one keeps, and which are done.

A finished cell is one JSON file under ``experiments/results/<study>/``, made of its run folder. Its key covers the
study file, the commit of the code, the device, the threads, arm and seed. It is committed, so that work goes on from a
clone of the repository on another machine: what is done is read from there and from nowhere else.

    {"schema", "study", "study_sha256", "commit", "device", "threads", "arm", "seed", "key",
     "task", "method",                 what was trained on, and how
     "scores": [...],                  rows of results.json
     "verdicts": {row: {task: {"n", "ids_sha256", "correct", "answered"[, "groups"]}}},
                                       row: base, student, projected, base_3_shots; 1 or 0 for each example, in the
                                       order of the sorted ids (and samples), which ids_sha256 is over; groups: the
                                       subjects of a task that has them, in that order, as [name, examples in a row]
     "facts": {...},                   what else results.json has: corpus, calibration, benchmarks, health, moved...
     "student": {...},                 checksum of its weights, optimiser steps
     "seconds": {stage: s}, "wall_seconds", "starts",
     "processor", "versions", "finished",
     "sha256"}                         of all that stands before it; cells of older code have none
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.study import FOLDER, Arm, Study
from spd_lightning.artifacts.checksums import sealed, untouched
from spd_lightning.artifacts.files import read_jsonl, write_json
from spd_lightning.artifacts.locks import waited_lock
from spd_lightning.artifacts.reading import reading
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError
from spd_lightning.report.schema import read_results
from spd_lightning.scoring.verdicts import is_share

ROOT = FOLDER.parent
RESULTS = FOLDER / "results"
SCHEMA = 1
LEFT_OUT = (
    "schema",
    "sha256",
    "fingerprint",
    "trained_on",
    "method",
    "scores",
    "comparisons",
    "stages",
    "corpus_samples",
)


@dataclass(frozen=True)
class Environment:
    """Where cells run; part of their keys.

    Attributes:
        commit: The last one that changed the package's code.
        device: ``cpu``, or the name of the card.
        threads: OMP_NUM_THREADS of a cell.
    """

    commit: str
    device: str
    threads: int

    @property
    def accelerator(self) -> str:
        """The trainer's: ``cpu`` or ``gpu``."""
        return "cpu" if self.device == "cpu" else "gpu"


def environment_of(study: Study, device: str | None = None, commit: str | None = None) -> Environment:
    """The environment of cells that start now and here.

    Args:
        study: The study.
        device: ``cpu`` or ``gpu``; None for the study's own.
        commit: Of the code; None asks git.

    Raises:
        UserError: If the code is not committed, or the device is not there.
    """
    name = device or study.device
    if name != "cpu":
        import torch

        if not torch.cuda.is_available():
            raise UserError(f"{study.name} is to run on a {name}, and there is none here. Set --device cpu.")
        name = torch.cuda.get_device_name(0)
    return Environment(code_commit() if commit is None else commit, name, study.threads)


def code_commit(root: Path = ROOT) -> str:
    """The last commit that changed ``spd_lightning/``: committing results or studies does not end a block.

    Raises:
        UserError: If that folder holds changes that are not committed, or this is no clone of the repository.
    """

    def git(*words: str) -> str:
        try:
            command = ["git", "-C", str(root), *words, "--", "spd_lightning"]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(f"{root} is no git repository, so cells would have no commit. Run in a clone.") from error

    if changed := git("status", "--porcelain", "--untracked-files=all"):
        raise UserError(
            f"{root}/spd_lightning holds changes that are not committed ({changed.splitlines()[0].strip()}): a cell's "
            "key names its commit. Commit them, or run in a work tree at a tag."
        )
    return git("log", "-1", "--format=%H")


def cell_key(study: Study, environment: Environment, arm: str, seed: int) -> str:
    """16 hexadecimal digits that stand for a cell."""
    return _key(study.sha256, environment, arm, seed)


def _key(study_sha256: str, environment: Environment, arm: str, seed: int) -> str:
    made = {"study": study_sha256, **asdict(environment), "arm": arm, "seed": seed}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


def cell_name(arm: str, seed: int, key: str) -> str:
    """Name of a cell's file and folder: what it is, and of what."""
    return f"{arm}.{seed}.{key[:8]}"


def read_cells(study: Study, results: Path = RESULTS) -> list[dict[str, Any]]:
    """Every finished cell of a study, in the order of its arms and blocks, those of other versions of its file last.

    A cell has one key more here, ``exploratory``: whether it was made under another study file than today's.

    Raises:
        UserError: For a file that is no finished cell, or not as it was written.
    """
    found = [read_cell(path) for path in sorted((results / study.name).glob("*.json"))]
    cells = [{**cell, "exploratory": cell["study_sha256"] != study.sha256} for cell in found]
    order = [arm.name for arm in study.arms]
    place = {name: number for number, name in enumerate(order)}
    return sorted(cells, key=lambda c: (c["exploratory"], c["seed"], place.get(c["arm"], len(order)), c["key"]))


def read_cell(path: Path) -> dict[str, Any]:
    """A finished cell.

    Raises:
        UserError: If the file is none, or not as it was written.
    """
    advice = "Put back the committed one, or remove it."
    with reading(path, f"a finished cell of schema {SCHEMA}", advice):
        cell: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (wrong := _damage(cell, path)) is not None:
            raise UserError(f"{path} is no finished cell of schema {SCHEMA}: {wrong}. {advice}")
        return cell


def _damage(cell: Mapping[str, Any], path: Path) -> str | None:
    """What of a cell is not as it was written; None for nothing.

    One of older code has no checksum: its verdicts are then held against its scores.
    """
    environment = Environment(cell["commit"], cell["device"], cell["threads"])
    name = f"{cell['study']}/{cell_name(cell['arm'], cell['seed'], cell['key'])}.json"
    if cell["schema"] != SCHEMA or name != f"{path.parent.name}/{path.name}":
        return f"schema {cell['schema']!r} of {name}"
    if _key(cell["study_sha256"], environment, cell["arm"], cell["seed"]) != cell["key"] or not untouched(cell):
        return "it was changed since it was written"
    for row, tasks in cell["verdicts"].items():
        for task, found in tasks.items():
            n, groups = found["n"], found.get("groups")
            if any(len(found[bits]) != n or set(found[bits]) - {"0", "1"} for bits in ("correct", "answered")):
                return f"the verdicts of {row} on {task} are not whole"
            if groups is not None and sum(count for _, count in groups) != n:
                return f"the subjects of {task} are not whole"
            which = task, cell["method"] if row == "student" else row
            score = next((r for r in cell["scores"] if (r["task"], r["method"]) == which), None)
            compared = "sha256" not in cell and score is not None and is_share(score["metric"])
            if compared and abs(score["value"] - found["correct"].count("1") / n) > 1e-9:
                return f"the verdicts of {row} on {task} are not those of its score"
    return None


def done_cells(study: Study, environment: Environment | None, results: Path = RESULTS) -> set[tuple[str, int]]:
    """Arm and seed of what need not run: cells of this environment, and blocks that are whole in any other one.

    A block is one environment's, since its arms are compared; one that is begun elsewhere begins anew here.
    """
    made: dict[Environment, set[tuple[str, int]]] = {}
    for cell in read_cells(study, results):
        if not cell["exploratory"]:
            where = Environment(cell["commit"], cell["device"], cell["threads"])
            made.setdefault(where, set()).add((cell["arm"], cell["seed"]))
    done = set(made.get(environment, set())) if environment is not None else set()
    for cells in made.values():
        for seed in study.blocks:
            block = {(arm.name, seed) for arm in study.arms if seed in arm.blocks}
            if block <= cells:
                done |= block
    return done


def likely_seconds(study: Study, device: str, cells: Sequence[Mapping[str, Any]], arm: str) -> float | None:
    """What a cell of an arm takes on a device: the median of its finished ones, else of all; None before there are any.

    Args:
        study: The study.
        device: ``cpu``, or the name of the card.
        cells: Finished ones, of any device.
        arm: Of the cell.
    """
    alike = [c for c in cells if (c["device"], c["threads"]) == (device, study.threads) and c.get("wall_seconds")]
    own = [c for c in alike if c["arm"] == arm] or alike
    return float(statistics.median(c["wall_seconds"] for c in own)) if own else None


def collect(
    study: Study, environment: Environment, arm: Arm, seed: int, run_dir: Path, starts: Mapping[str, Any]
) -> dict[str, Any]:
    """What a finished run leaves behind.

    Args:
        study: The study.
        environment: Where it ran.
        arm: Of the cell.
        seed: Of the block.
        run_dir: Its run folder, with ``results.json``.
        starts: ``starts`` and ``wall_seconds``, over all starts of the cell.
    """
    run = RunFolder(run_dir)
    results = read_results(run.results)
    made = run.environment()
    student = {name: run.keys().get("student", {}).get(name) for name in ("weights_sha256", "step")}
    return {
        "schema": SCHEMA,
        "study": study.name,
        "study_sha256": study.sha256,
        **asdict(environment),
        "arm": arm.name,
        "seed": seed,
        "key": cell_key(study, environment, arm.name, seed),
        "task": results["trained_on"],
        "method": results["method"],
        "scores": results["scores"],
        "verdicts": verdicts(run, results["method"], {row["task"] for row in results["scores"]}),
        "facts": {name: value for name, value in results.items() if name not in LEFT_OUT},
        "student": student if student["weights_sha256"] else None,
        "seconds": {row["stage"]: row["seconds"] for row in results["stages"]},
        **starts,
        "processor": processor(),
        "versions": {"python": made.get("python"), "stages": made.get("stages"), **made.get("packages", {})},
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def verdicts(run: RunFolder, method: str | None, tasks: Iterable[str] = ()) -> dict[str, dict[str, dict[str, Any]]]:
    """Right or wrong, and answered or not, of every example that a run scored, by row and task.

    Args:
        run: Its folder.
        method: Of the run; what stands under it is the student's.
        tasks: Names of what was scored: those of files have ``_`` for ``:``.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    named = {task.replace(":", "_"): task for task in tasks}
    for (file, row), path in run.sample_files().items():
        task = named.get(file, file)
        records = sorted(read_jsonl(path), key=lambda r: (r["id"], r["sample"]))
        name = "student" if row == method and method != "base" else row
        found.setdefault(name, {})[task] = {
            "n": len(records),
            "ids_sha256": ids_sha256([(r["id"], r["sample"]) for r in records]),
            "correct": "".join(str(int(bool(r["correct"]))) for r in records),
            "answered": "".join(str(int(r["answer"] is not None)) for r in records),
        }
        if all("group" in r for r in records):
            runs = itertools.groupby(r["group"] for r in records)
            found[name][task]["groups"] = [[group, len(list(members))] for group, members in runs]
    return found


def ids_sha256(ids: list[tuple[str, int]]) -> str:
    """Of example ids and samples, a line each, in order."""
    return hashlib.sha256("".join(f"{name}\t{sample}\n" for name, sample in ids).encode()).hexdigest()


def cell_file(results: Path, study: str, arm: str, seed: int, key: str) -> Path:
    """Where a finished cell is kept."""
    return results / study / f"{cell_name(arm, seed, key)}.json"


def keep_cell(cell: Mapping[str, Any], results: Path = RESULTS) -> Path:
    """Write a finished cell's file, whole, with the checksum of itself.

    One that is there already stays: another runner on the same results was first.

    Raises:
        UserError: If that one has other verdicts, or it cannot be written.
    """
    path = cell_file(results, *(cell[name] for name in ("study", "arm", "seed", "key")))
    with waited_lock(path.parent / ".lock", f"Results folder {path.parent}"):
        if not path.is_file():
            return write_json(path, sealed(cell))
    if read_cell(path)["verdicts"] != cell["verdicts"]:
        raise UserError(
            f"{path} was written by another runner meanwhile, with other verdicts (on another machine?). It stays; "
            "remove it to keep this one."
        )
    return path


def processor() -> str:
    """Name of the processor, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
