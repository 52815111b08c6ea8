"""Run a W&B sweep file locally, without W&B: the whole grid, one process a point, resumable.

    python -m experiments.sweep configs/sweeps/rank_layers.yaml --workers 2
    python -m experiments.sweep configs/sweeps/rank_layers.yaml --check

Each point's command is rendered as ``wandb agent`` does, with ``--run_dir`` added, so a point is an ordinary run in
``<out>/<point>/`` and all points share the artifact store ``<out>/.artifacts``. Before anything runs, every key and
value is parsed by the command itself (``--print_config``); ``--check`` ends there. A point that finished is not run
again; its folder's name covers its command and the content of its config files, so another configuration is another
folder. At the end the report over all points is written to ``<out>/report/``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spd_lightning.artifacts.files import file_lock, write_json
from spd_lightning.errors import UserError

# What an artifact does not depend on, by the start of an option's name: points that differ only in these share it.
NOT_IN_CORPUS = ("model.", "trainer.", "evaluation.")
NOT_IN_MOMENTS = (*NOT_IN_CORPUS, "data.", "subspace.rank", "subspace.center", "subspace.basis", "subspace.strength")
NOT_IN_BASE_SCORES = ("",)


@dataclass(frozen=True)
class Sweep:
    """A sweep file: what is varied, and the command of a point with W&B's macros in it."""

    path: Path
    parameters: dict[str, list[Any]]
    command: list[str]


@dataclass(frozen=True)
class Point:
    """One point of the grid: its options, its command, and the name of its run folder."""

    options: dict[str, Any]
    command: list[str]
    name: str


def read_sweep(path: str | Path) -> Sweep:
    """Read a W&B sweep file; whatever its search method, its values are taken as a grid.

    Raises:
        UserError: If the file is absent or malformed, a parameter has no finite list of values, or the command is not
            one that takes ``${args}``.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Sweep file {path} does not exist. Shipped ones stand in configs/sweeps/.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({error}). Mend it.") from error
    given = content.get("parameters") if isinstance(content, dict) else None
    if not isinstance(given, dict) or not given:
        raise UserError(f"{path}: parameters={given!r}, but a sweep needs at least one, e.g. subspace.rank.")
    parameters: dict[str, list[Any]] = {}
    for name, spec in given.items():
        values = spec.get("values", [spec["value"]] if "value" in spec else None) if isinstance(spec, dict) else None
        if not isinstance(values, list) or not values:
            raise UserError(
                f"{path}: parameter {name}={spec!r} is no list of values. A local grid needs: {{values: [...]}}."
            )
        if None in values:
            raise UserError(
                f"{path}: parameter {name} holds null, which W&B hands on as the text None. Write null in quotes."
            )
        parameters[str(name)] = values
    command = content.get("command")
    if not isinstance(command, list) or "${args}" not in command:
        raise UserError(
            f"{path}: command={command!r} must be a list that holds ${{args}}; only that form is understood."
        )
    return Sweep(path, parameters, [str(part) for part in command])


def grid(parameters: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last parameter varying fastest."""
    return [dict(zip(parameters, values)) for values in itertools.product(*parameters.values())]


def render_command(command: Sequence[str], options: dict[str, Any]) -> list[str]:
    """The command of a point: macros replaced, options as ``--key=value``, as ``wandb agent`` renders them."""
    rendered: list[str] = []
    for part in command:
        if part == "${args}":
            rendered += [f"--{key}={value}" for key, value in options.items()]
        elif part == "${env}":
            rendered.append("/usr/bin/env")
        elif part == "${interpreter}":
            rendered.append("python")
        else:
            rendered.append(part)
    return rendered


def points(sweep: Sweep) -> list[Point]:
    """The points of a sweep, each with a name that covers its command and the content of its config files."""
    found = []
    for options in grid(sweep.parameters):
        command = render_command(sweep.command, options)
        digest = hashlib.sha256(json.dumps(command).encode())
        for flag, value in itertools.pairwise(command):
            if flag == "--config":
                if not Path(value).is_file():
                    raise UserError(
                        f"{sweep.path}: config file {value} does not exist. Start in the folder that holds it."
                    )
                digest.update(Path(value).read_bytes())
        words = "-".join(f"{key.rsplit('.', 1)[-1]}{value}" for key, value in options.items())
        slug = re.sub(r"[^A-Za-z0-9.]+", "_", words).strip("_")[:60]
        found.append(Point(options, command, f"{slug}-{digest.hexdigest()[:8]}"))
    return found


def waves(todo: Sequence[Point]) -> list[list[Point]]:
    """Order points so that what they share is computed once; those of a wave run side by side.

    First a single point (scores of the base model), then one per set of gradients, then one per corpus, then the rest.
    """
    found: list[list[Point]] = []
    left = list(todo)
    for unused in (NOT_IN_BASE_SCORES, NOT_IN_MOMENTS, NOT_IN_CORPUS):
        seen = {_shared(point, unused) for wave in found for point in wave}
        wave: list[Point] = []
        rest: list[Point] = []
        for point in left:
            key = _shared(point, unused)
            (rest if key in seen else wave).append(point)
            seen.add(key)
        found.append(wave)
        left = rest
    return [wave for wave in (*found, left) if wave]


def _shared(point: Point, unused: tuple[str, ...]) -> str:
    return json.dumps({k: v for k, v in point.options.items() if not k.startswith(unused)}, default=str)


def cover(all_points: Sequence[Point]) -> list[Point]:
    """Fewest points, taken greedily, that hold every value of every option at least once."""
    seen: set[tuple[str, str]] = set()
    chosen = []
    for point in all_points:
        pairs = {(k, str(v)) for k, v in point.options.items()}
        if pairs - seen:
            seen |= pairs
            chosen.append(point)
    return chosen


class Runner:
    """Runs commands in processes, several side by side, and ends them all when it is left.

    Args:
        workers: Processes at a time. With several GPUs, each worker keeps to one of them.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._slots: queue.Queue[int] = queue.Queue()
        for slot in range(workers):
            self._slots.put(slot)
        self._devices = _visible_devices()

    def run(self, command: Sequence[str], log: Path) -> int:
        """Run one command, its output in ``log``; the exit status, 127 if it cannot be started."""
        slot = self._slots.get()
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "wb") as file:
                try:
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=self._environment(slot),
                    )
                except OSError as error:
                    file.write(f"{command[0]}: {error.strerror}\n".encode())
                    return 127
                with self._lock:
                    self._processes.add(process)
                try:
                    return process.wait()
                finally:
                    with self._lock:
                        self._processes.discard(process)
        finally:
            self._slots.put(slot)

    def map(self, commands: Sequence[tuple[Sequence[str], Path]]) -> Iterable[int]:
        """Run commands side by side; their exit statuses in order."""
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                yield from pool.map(lambda item: self.run(*item), commands)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.stop()
                raise

    def stop(self) -> None:
        """End every process that still runs."""
        with self._lock:
            for process in self._processes:
                with contextlib.suppress(OSError):
                    process.terminate()

    def _environment(self, slot: int) -> dict[str, str]:
        """The interpreter's own folder leads PATH, so that ``python`` is this one; cores and GPUs are shared out."""
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.workers)))
        if len(self._devices) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        return environment


def _visible_devices() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [d for d in given.split(",") if d]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def check(sweep: Sweep, runner: Runner, logs: Path) -> None:
    """Parse every key and value with the command's own parser; nothing is loaded or run.

    Raises:
        UserError: With the parser's own message, if it refuses one.
    """
    chosen = cover(points(sweep))
    commands = [([*p.command, "--print_config"], logs / f"check-{i}.log") for i, p in enumerate(chosen)]
    for point, (_, log), status in zip(chosen, commands, runner.map(commands)):
        if status != 0:
            shown = " ".join(f"--{k}={v}" for k, v in point.options.items())
            raise UserError(f"{sweep.path}: the command refuses {shown} (exit status {status}):\n{tail(log)}")


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-lines:])


def is_done(point: Point, out: Path) -> bool:
    """Whether a point finished before: its record says status 0, and its results are there."""
    record = out / ".sweep" / f"{point.name}.json"
    if not (record.is_file() and (out / point.name / "results.json").is_file()):
        return False
    with contextlib.suppress(ValueError):
        return json.loads(record.read_text(encoding="utf-8")).get("status") == 0
    return False


def run_sweep(sweep: Sweep, out: Path, workers: int) -> Path:
    """Run what is missing, then write the report over all points.

    A point that fails does not stop the others.

    Returns:
        Path of the report.

    Raises:
        UserError: If another process runs this sweep, the check fails, or points failed (with the end of their logs).
    """
    from spd_lightning.report import write_report

    runner, state = Runner(workers), out / ".sweep"
    with file_lock(state / "lock", f"Sweep folder {out}"):
        every = points(sweep)
        todo = [p for p in every if not is_done(p, out)]
        print(f"{len(every)} points, {len(every) - len(todo)} already done, {workers} at a time, in {out}", flush=True)
        failed: list[Point] = []
        if todo:
            check(sweep, runner, state)
        for wave in waves(todo):
            started = time.monotonic()
            commands = [([*p.command, f"--run_dir={out / p.name}"], state / f"{p.name}.log") for p in wave]
            for point, (command, _), status in zip(wave, commands, runner.map(commands)):
                write_json(
                    state / f"{point.name}.json", {"status": status, "command": command, "options": point.options}
                )
                print(f"{point.name}: {'done' if status == 0 else f'failed ({status})'}", flush=True)
                if status != 0:
                    failed.append(point)
            print(f"{len(wave)} points in {time.monotonic() - started:.0f} s", flush=True)
        done = [out / p.name for p in every if is_done(p, out)]
        page = write_report(done, out / "report") if done else None
    if failed or page is None:
        ends = "\n".join(f"--- {p.name}\n{tail(state / f'{p.name}.log')}" for p in failed[:3])
        raise UserError(f"{len(failed)} of {len(every)} points failed; start again to repeat only those.\n{ends}")
    return page


def main(args: Sequence[str] | None = None) -> int:
    """Entry point; 0 success, 2 a mistake of the user, a failed check or a failed point."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sweep", description="Run a W&B sweep file locally as a grid.", allow_abbrev=False
    )
    parser.add_argument("sweep", help="sweep file, e.g. configs/sweeps/rank_layers.yaml")
    parser.add_argument("--workers", type=int, default=1, help="points at a time (default: 1)")
    parser.add_argument("--out", help="folder of the runs (default: runs/sweeps/<name of the sweep file>)")
    parser.add_argument("--check", action="store_true", help="only verify that every key and value is accepted")
    given = parser.parse_args(args)
    try:
        if given.workers < 1:
            raise UserError(f"--workers={given.workers} is below 1. Set it to the points that should run at a time.")
        sweep = read_sweep(given.sweep)
        out = Path(given.out or Path("runs") / "sweeps" / sweep.path.stem)
        if given.check:
            check(sweep, Runner(given.workers), out / ".sweep")
            print(f"{sweep.path}: all {len(grid(sweep.parameters))} points are accepted")
        else:
            page = run_sweep(sweep, out, given.workers)
            print(summary([out / p.name for p in points(sweep)]))
            print(page)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Start again to run what is missing.", file=sys.stderr)
        return 130
    return 0


def summary(run_dirs: Sequence[Path]) -> str:
    """The table that the sweep prints at its end: rank x layers where these vary, else one row per configuration."""
    from spd_lightning.report import read_run, render, sweeps

    runs = [read_run(path) for path in run_dirs]
    found = sweeps.sweep_grid(runs)
    return render.text_table(sweeps.seeds_table(runs) if found is None else sweeps.grid_table(found))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the points too
    sys.exit(main())
