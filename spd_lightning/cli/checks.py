"""The commands that compare what stands on the disk with what was written, or with what comes out of it once more:
``artifacts check`` and ``verify``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from types import FrameType

from spd_lightning.artifacts.expressions import value_of
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError, counted
from spd_lightning.processes import PARENT


def check_store(store: ArtifactStore) -> None:
    """Read every file of every finished artifact and compare it with its checksum; nothing is changed.

    Raises:
        UserError: If some are damaged.
    """
    rows, damaged = store.list(), 0
    for row in rows:
        found = store.damage(row["path"]) if row["complete"] else []
        damaged += bool(found)
        state = "; ".join(found) or ("whole" if row["complete"] else "unfinished or set aside")
        print(f"{row['stage']:<10} {row['fingerprint']}  {'DAMAGED: ' if found else ''}{state}")
    if damaged:
        raise UserError(
            f"{damaged} of {len(rows)} artifacts in {store.root} are damaged. A run that wants one sets it aside and "
            "makes it anew; `artifacts prune` removes old ones."
        )
    print(f"{counted(len(rows), 'artifact')}, none damaged")


def verify(run_dir: str, *, recompute: bool = False) -> None:
    """Compare every file of a run with the checksum that was written when the run ended; on demand compute it anew.

    Args:
        run_dir: Run folder.
        recompute: See `_recompute`.
    """
    run = RunFolder(run_dir)
    if not run.config_file.is_file():
        raise UserError(f"{run.path} is not a run folder: it has no config.yaml. Give a folder that fit wrote.")
    found = run.manifest.changed()
    if found is None:
        raise UserError(
            f"{run.path} has no manifest.json: its last command did not end well, so there is nothing to compare with. "
            f"Go on with: {run.command()}"
        )
    if found:
        raise UserError(
            f"{run.path} is not as it was written: {'; '.join(found)}. Put the old files back, or remove the changed "
            f"ones and give the same command again: {run.command()}"
        )
    print(f"{run.path}: every file is as it was written", flush=True)
    if recompute:
        _recompute(run)


def _recompute(run: RunFolder) -> None:
    """Run all stages of a finished `fit` anew and compare every artifact: reproduced, or what differs first.

    It works beside the run, in a folder with a store of its own, which is removed again.

    Raises:
        UserError: If the run is not one that ``fit`` finished.
        SystemExit: With the status of that command, where it is not 0: 1 for a difference.
    """
    from spd_lightning.report.schema import read_results

    stages = {row["stage"] for row in read_results(run.results)["stages"]} if run.results.is_file() else set()
    if {"base": "evaluate"}.get(value_of(run.configuration(), "data", "method"), "fine_tune") not in stages:
        raise UserError(
            f"{run.path} holds no run that fit finished, and only such a one is computed anew. Leave --recompute out, "
            f"or finish it first: {run.command()}"
        )
    environment = {**os.environ, PARENT: str(os.getpid()), "WANDB_MODE": "disabled"}
    with (
        _left_by_signals(),
        tempfile.TemporaryDirectory(prefix=".verify-", dir=run.path.parent, ignore_cleanup_errors=True) as aside,
    ):
        command = [sys.executable, "-m", "spd_lightning", "fit", "--config", str(run.config_file)]
        command += [f"--run_dir={aside}/run", f"--artifact_dir={aside}/store", f"--check_against={run.path}"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout[done.stdout.find("\nAgainst ") :] if "\nAgainst " in done.stdout else "", end="", flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)


@contextlib.contextmanager
def _left_by_signals() -> Iterator[None]:
    """Have a signal raise SystemExit meanwhile, so that what was begun is removed; Ctrl-C does by itself."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ours = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    before = {number: signal.signal(number, leave) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def told_changes(run: RunFolder) -> None:
    """Say of a run that is going to be reported on what was changed by hand, or that nothing can tell."""
    if not run.config_file.is_file():
        return  # the report says that it is none
    found = run.manifest.changed()
    if found is None and (touched := run.touched()):
        found = [f"{file.name} was changed" for file in touched]
    if found is None:
        line = cannot_tell(run)
    elif not found:
        return
    else:
        line = f"{run.path} is not as the run wrote it. By hand, since it ended: {'; '.join(found)}."
    print(line, file=sys.stderr, flush=True)


def cannot_tell(run: RunFolder) -> str:
    """What to say of a run whose last command did not end well."""
    return f"{run.path} has no manifest.json, so whether its files were changed by hand cannot be told."
