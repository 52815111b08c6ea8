"""Run a registered study: each cell one ``python -m spd_lightning fit``, block by block, resumable anywhere.

    python -m experiments.run primary                       what is missing, in order
    python -m experiments.run primary --status              what is done, what is missing, and how long that takes
    python -m experiments.run primary --only ssd,spd@2      these arms, or this arm in this block (@2: all of a block)
    python -m experiments.run primary --only spd@999        a throw-away cell, for timing: nothing of it is kept

Runs and artifacts stand in a work folder outside the repository. What arms and studies share (a block's base scores,
its subspace, a corpus) is computed once. A finished cell is a JSON file under ``experiments/results/<study>/``
(`experiments.cells`). Interrupt it at any point and give the same command again: finished cells are not run, and one
that was under way goes on from its own files. Run it from a work tree at a tag: a cell's key has the code's commit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from experiments.cells import (
    RESULTS,
    ROOT,
    Environment,
    cell_file,
    cell_key,
    cell_name,
    collect,
    done_cells,
    environment_of,
    keep_cell,
    likely_seconds,
    read_cells,
)
from experiments.study import Arm, Study, read_study, study_names
from spd_lightning.artifacts.files import write_atomic, write_json
from spd_lightning.artifacts.locks import file_lock
from spd_lightning.artifacts.reading import reading
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError, counted, disk_fault
from spd_lightning.report.schema import read_results
from spd_lightning.sweep.runner import Runner, tail

Cell = tuple[Arm, int]


class Cells:
    """Runs cells of a study in a work folder.

    Args:
        study: The study.
        environment: Where they run.
        work: The work folder: a folder for each study, and one store of artifacts that all of them share.
        results: Where finished cells are kept.
        workers: Cells at a time.
        commit: Commit each finished cell to git.
    """

    def __init__(
        self, study: Study, environment: Environment, work: Path, results: Path, workers: int = 1, commit: bool = False
    ) -> None:
        self.study, self.environment = study, environment
        self.work, self.store = work / study.name, work / "artifacts"
        self.results, self.commit = results, commit
        self.stopped = threading.Event()
        set_to = {name: str(study.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} | {
            "WANDB_MODE": "disabled"
        }
        path = os.pathsep.join(
            filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        )  # this tree's code, whatever runs
        self.runner = Runner(workers, {**set_to, "PYTHONPATH": path})

    def run(self, cells: Sequence[Cell]) -> list[str]:
        """Run cells, those of a block side by side once its first one has made what they share.

        Returns:
            A line for each cell that failed.
        """
        failed: list[str] = []
        for seed in dict.fromkeys(seed for _, seed in cells):
            block = [cell for cell in cells if cell[1] == seed]
            for wave in (block[:1], block[1:]) if self.runner.workers > 1 else [[cell] for cell in block]:
                with ThreadPoolExecutor(self.runner.workers) as pool:
                    try:
                        failed += filter(None, pool.map(self.run_cell, wave))
                    except BaseException:
                        self.stopped.set()
                        pool.shutdown(wait=False, cancel_futures=True)
                        self.runner.stop()
                        raise
        return failed

    def run_cell(self, cell: Cell) -> str | None:
        """Run one cell and keep what came of it; a line if it failed."""
        try:
            return self._run_cell(*cell)
        except UserError as error:
            return f"--- {cell[0].name}@{cell[1]}: {error}"

    def _run_cell(self, arm: Arm, seed: int) -> str | None:
        key = cell_key(self.study, self.environment, arm.name, seed)
        if cell_file(self.results, self.study.name, arm.name, seed, key).is_file():
            print(f"{_clock()} {arm.name}@{seed}: done by another runner meanwhile", flush=True)
            return None
        name = cell_name(arm.name, seed, key)
        folder, log, starts = self.work / "runs" / name, self.work / "logs" / f"{name}.log", self.starts_file(name)
        if lacking(folder):
            print(f"{_clock()} {arm.name}@{seed}: starts ({log})", flush=True)
            status = self._fit(arm, seed, folder, log, starts)
            if (status > 128 or status < 0) and not self.stopped.is_set():
                # by a signal, of a machine that ran out of memory, say; what it did stands
                status = self._fit(arm, seed, folder, log, starts)
            if status != 0:
                print(f"{_clock()} {arm.name}@{seed}: failed ({status})", flush=True)
                return f"--- {arm.name}@{seed}, exit status {status}, {log}\n{tail(log)}"
            if why := lacking(folder):
                print(f"{_clock()} {arm.name}@{seed}: failed ({why})", flush=True)
                return f"--- {arm.name}@{seed} is not whole, {log}: {why}"
        made = collect(self.study, self.environment, arm, seed, folder, _starts(starts))
        path = keep_cell(made, self.results)
        print(f"{_clock()} {arm.name}@{seed}: done in {made['wall_seconds']:.0f} s", flush=True)
        if self.commit:
            _commit(path, f"Result: {self.study.name}, {arm.name} in block {seed}")
        return None

    def starts_file(self, name: str) -> Path:
        """Where it stands how often a cell was started and for how long it ran."""
        return self.work / "starts" / f"{name}.json"

    def _fit(self, arm: Arm, seed: int, folder: Path, log: Path, starts: Path) -> int:
        known = _starts(starts)
        config = self.work / "configs" / f"{folder.name}.yaml"
        for file in (config, starts):
            file.parent.mkdir(parents=True, exist_ok=True)
        options = self.study.config(arm, seed, self.environment.accelerator)
        write_atomic(config, yaml.safe_dump(options, sort_keys=False))
        places = ["--run_dir", str(folder), "--artifact_dir", str(self.store)]
        command = [sys.executable, "-m", "spd_lightning", "fit", "--config", str(config), *places]
        write_json(starts, {**known, "starts": known["starts"] + 1})
        began = time.monotonic()
        try:
            return self.runner.run(command, log)
        finally:
            seconds = round(known["wall_seconds"] + time.monotonic() - began, 1)
            write_json(starts, {"starts": known["starts"] + 1, "wall_seconds": seconds})


def lacking(folder: Path) -> str:
    """What a run folder lacks to be kept as a cell; empty for one whose ``fit`` ended well and that nobody touched."""
    run = RunFolder(folder)
    if not run.results.is_file():
        return "it was not scored"
    try:
        changed = run.manifest.changed()
        not_run = read_results(run.results).get("not_run") or []
    except UserError as error:
        return str(error)
    if changed is None:
        return "its last command did not end well"
    return "; ".join([*changed, *(f"{row['task']} was not run: {row['reason']}" for row in not_run)])


def _starts(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {"starts": 0, "wall_seconds": 0.0}
    with reading(file, "the starts of a cell", "Remove it: they are then counted anew."):
        found = json.loads(file.read_text(encoding="utf-8"))
        return {"starts": int(found["starts"]), "wall_seconds": float(found["wall_seconds"])}


def _clock() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())


def _commit(path: Path, message: str) -> None:
    """Commit one file; where that fails it stands uncommitted, which is said."""
    try:
        for words in (["add", path.name], ["commit", "--quiet", "-m", message, "--", path.name]):
            subprocess.run(["git", "-C", str(path.parent), *words], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{path} is not committed: {getattr(error, 'stderr', None) or error}", file=sys.stderr, flush=True)


def chosen(study: Study, only: str | None) -> list[Cell]:
    """The cells that ``--only`` names, in the study's order; all of them for None.

    Args:
        study: The study.
        only: ``arm``, ``arm@seed`` or ``@seed``, with commas between. A seed that is no block names throw-away cells.

    Raises:
        UserError: For an unknown arm, an arm in a block that it has no part in, or what is no seed.
    """
    if only is None:
        return study.cells()
    found: list[Cell] = []
    for word in only.split(","):
        name, _, seed = word.strip().partition("@")
        if seed and not seed.isdecimal():
            raise UserError(f"--only={word.strip()!r}: {seed!r} is no seed. Give arm, arm@seed or @seed.")
        arms = [study.arm(name)] if name else list(study.arms)
        if not seed:
            found += [(arm, block) for arm in arms for block in arm.blocks]
        elif int(seed) not in study.blocks:
            found += [(arm, int(seed)) for arm in arms]
        elif name and int(seed) not in arms[0].blocks:
            raise UserError(f"--only={word.strip()!r}: {name} has blocks {arms[0].blocks}. Name one of them.")
        else:
            found += [(arm, int(seed)) for arm in arms if int(seed) in arm.blocks]
    order = {(arm.name, seed): number for number, (arm, seed) in enumerate(study.cells())}
    unique = {(arm.name, seed): (arm, seed) for arm, seed in found}
    return sorted(unique.values(), key=lambda cell: order.get((cell[0].name, cell[1]), len(order)))


def throw_away(study: Study, environment: Environment, cells: Sequence[Cell], work: Path) -> list[str]:
    """Run cells outside the study's blocks, say how long each stage took, and remove everything of them."""
    folder = work / study.name / "throw-away"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        runner = Cells(study, environment, folder / "work", folder / "results")
        failed = runner.run(cells)
        for path in sorted((folder / "results" / study.name).glob("*.json")):
            made = json.loads(path.read_text(encoding="utf-8"))
            stages = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in made["seconds"].items())
            print(f"{made['arm']}@{made['seed']}: {made['wall_seconds']:.0f} s in all ({stages}); nothing is kept")
        return failed
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def status(study: Study, environment: Environment | None, work: Path, results: Path) -> str:
    """Which cells are done, under way and missing, and the seconds that the missing ones are likely to take."""
    done, kept = done_cells(study, environment, results), read_cells(study, results)
    device, said_by_study = environment.device if environment else "", float(study.content["cost"]["seconds_per_cell"])
    typical = {arm.name: likely_seconds(study, device, kept, arm.name) or said_by_study for arm in study.arms}
    lines, left = [], 0.0
    for arm, seed in study.cells():
        if (arm.name, seed) in done:
            said = "done"
        else:
            name = environment and cell_name(arm.name, seed, cell_key(study, environment, arm.name, seed))
            begun = bool(name) and (work / study.name / "runs" / str(name)).is_dir()
            said, left = f"{'begun' if begun else 'missing'}, about {typical[arm.name]:.0f} s", left + typical[arm.name]
        lines.append(f"{arm.name}@{seed}: {said}")
    old = sum(cell["exploratory"] for cell in kept)
    if old:
        lines.append(f"exploratory: {counted(old, 'cell')} of other versions of {study.path.name}")
    where = "" if environment is None else f", on {environment.device} with {environment.threads} threads"
    head = f"{study.name} ({study.content['status']}), {study.sha256[:12]}{where}: "
    lines.insert(0, f"{head}{len(done)} of {len(study.cells())} cells done, about {left / 3600:.1f} h left")
    return "\n".join(lines)


def default_work() -> Path:
    """The work folder where none is named: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "spd_lightning" / "experiments"


def run_study(
    study: Study,
    only: str | None,
    work: Path,
    results: Path,
    workers: int = 1,
    commit: bool = False,
    device: str | None = None,
) -> int:
    """Run what is missing of a study, or throw-away cells.

    Args:
        study: The study.
        only: See `chosen`.
        work: Folder of runs and artifacts.
        results: Folder of finished cells.
        workers: Cells at a time.
        commit: Commit each finished cell to git.
        device: See `environment_of`.

    Returns:
        How many cells failed.

    Raises:
        UserError: If the study is not to be run, another process runs it here, or its cells have no commit.
    """
    cells = chosen(study, only)
    thrown = [cell for cell in cells if cell[1] not in study.blocks]
    if thrown and len(thrown) < len(cells):
        raise UserError(f"--only={only!r} mixes blocks of the study with throw-away cells. Run them apart.")
    if study.content["status"] == "not run" and not thrown:
        raise UserError(
            f"{study.path} has status: not run. Set it to registered, and commit the file, before its first result."
        )
    with file_lock(work / study.name / ".lock", f"Work folder {work / study.name}"):
        if thrown:
            failed = throw_away(study, environment_of(study, device, "throw-away"), thrown, work)
        else:
            environment = environment_of(study, device)
            done = done_cells(study, environment, results)
            todo = [cell for cell in cells if (cell[0].name, cell[1]) not in done]
            print(
                f"{study.name}: {len(cells) - len(todo)} of {len(cells)} cells done; runs stand in {work}", flush=True
            )
            failed = Cells(study, environment, work, results, workers, commit).run(todo)
    if failed:
        print("\n".join(failed), file=sys.stderr, flush=True)
    return len(failed)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point; 0 success, 1 a cell failed, 2 a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.run", description="Run a registered study, cell by cell.", allow_abbrev=False
    )
    parser.add_argument("name", help=f"study: {', '.join(study_names())}")
    parser.add_argument("--only", help="cells: arm, arm@seed or @seed, with commas between")
    parser.add_argument("--workers", type=int, default=1, help="cells at a time (default: 1)")
    parser.add_argument("--work", type=Path, help="folder of runs and artifacts (default: in the user's cache)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of finished cells, a folder a study")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="where cells run (default: as the study says)")
    parser.add_argument("--commit", action="store_true", help="commit each finished cell to git")
    parser.add_argument("--status", action="store_true", help="only list what is done and what is missing")
    given = parser.parse_args(args)
    try:
        if given.workers < 1:
            raise UserError(f"--workers={given.workers} is below 1. Set it to the cells that should run at a time.")
        study = read_study(given.name)
        work = (given.work or default_work()).absolute()
        if given.status:
            environment = None
            try:
                environment = environment_of(study, given.device)
            except UserError as error:
                print(f"{error}\nSo whole blocks alone are counted.", file=sys.stderr)
            print(status(study, environment, work, given.results), flush=True)
            return 0
        how = (given.workers, given.commit, given.device)
        return 1 if run_study(study, given.only, work, given.results, *how) else 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Start again to run what is missing.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `--status | head -1`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if (said := disk_fault(error)) is None:
            raise
        print(said, file=sys.stderr)
        return 2


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the cells too
    sys.exit(main())
