"""Run a W&B sweep file locally, without W&B: the whole grid, one process a point, resumable.

    python -m spd_lightning sweep configs/sweeps/rank_layers.yaml --workers 2
    python -m spd_lightning sweep configs/sweeps/rank_layers.yaml --check

Each point's command is rendered as ``wandb agent`` does, with ``--run_dir`` added, so a point is an ordinary run in
``<out>/<point>/`` and all points share the artifact store ``<out>/.artifacts``. Before anything runs, every key and
value is parsed by the command itself (``--print_config``); ``--check`` ends there. A point that finished is not run
again; its folder's name covers its command and the content of its config files, so another configuration is another
folder. At the end the report over all points is written to ``<out>/report/``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from spd_lightning.artifacts.files import write_json
from spd_lightning.artifacts.locks import file_lock
from spd_lightning.artifacts.reading import or_nothing, read_object
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError, counted
from spd_lightning.processes import PARENT
from spd_lightning.report import read_run, render, sweeps, write_report
from spd_lightning.report.unfinished import SWEEP
from spd_lightning.sweep.grid import Point, Sweep, cover, points, waves


class Runner:
    """Runs commands in processes, several side by side, and ends them all when it is left.

    Args:
        workers: Processes at a time. With several GPUs, each worker keeps to one of them.
        environment: Variables that are set for every process.
    """

    def __init__(self, workers: int, environment: Mapping[str, str] | None = None) -> None:
        self.workers, self.environment = workers, dict(environment or {})
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
        environment = {
            **os.environ,
            **self.environment,
            PARENT: str(os.getpid()),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        environment["SPD_SWEEP"] = "1"  # options of a point count as those of a file: some do nothing in some points
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


def check(sweep: Sweep, runner: Runner, out: Path) -> None:
    """Parse every key and value with the command's own parser; nothing is loaded or run.

    Raises:
        UserError: With the parser's own message, if it refuses one.
    """
    chosen = cover(points(sweep))
    commands = [([*p.command, "--print_config"], out / SWEEP / f"check-{i}.log") for i, p in enumerate(chosen)]
    for point, (_, log), status in zip(chosen, commands, runner.map(commands)):
        if status != 0:
            shown = " ".join(f"--{k}={v}" for k, v in point.options.items())
            raise UserError(f"{sweep.path}: the command refuses {shown} (exit status {status}):\n{tail(log)}")


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-lines:])


def is_done(point: Point, out: Path) -> bool:
    """Whether a point finished before: its record says status 0, and its results are there."""
    record = out / SWEEP / f"{point.name}.json"
    return RunFolder(out / point.name).results.is_file() and or_nothing(read_object, record).get("status") == 0


def run_sweep(sweep: Sweep, out: Path, workers: int) -> Path:
    """Run what is missing, then write the report over all points.

    A point that fails does not stop the others.

    Returns:
        Path of the report.

    Raises:
        UserError: If another process runs this sweep, the check fails, or points failed (with the end of their logs).
    """
    runner, state = Runner(workers), out / SWEEP
    with file_lock(state / "lock", f"Sweep folder {out}"):
        every = points(sweep)
        todo = [p for p in every if not is_done(p, out)]
        print(
            f"{counted(len(every), 'point')}, {len(every) - len(todo)} already done, {workers} at a time, in {out}",
            flush=True,
        )
        failed: list[Point] = []
        if todo:
            check(sweep, runner, out)
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
            print(f"{counted(len(wave), 'point')} in {time.monotonic() - started:.0f} s", flush=True)
        done = [out / p.name for p in every if is_done(p, out)]
        page = write_report(done, out / "report") if done else None
    if failed or page is None:
        ends = "\n".join(f"--- {p.name}\n{tail(state / f'{p.name}.log')}" for p in failed[:3])
        raise UserError(f"{len(failed)} of {len(every)} points failed; start again to repeat only those.\n{ends}")
    return page


def summary(run_dirs: Sequence[Path]) -> str:
    """The table that the sweep prints at its end: rank x layers where these alone vary, else a row for each."""
    runs = [read_run(path) for path in run_dirs]
    found = sweeps.sweep_grid(runs)
    return render.text_table(
        sweeps.grid_table(found) if found is not None and not found.left_out else sweeps.seeds_table(runs)
    )
