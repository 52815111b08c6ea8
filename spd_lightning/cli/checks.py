"""The commands that compare what stands on the disk with what was written: ``artifacts check`` and ``verify``."""

from __future__ import annotations

import sys

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError


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
    print(f"{len(rows)} artifacts, none damaged")


def verify(run_dir: str) -> None:
    """Compare every file of a run with the checksum that was written when the run ended.

    Args:
        run_dir: Run folder.
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
    print(f"{run.path}: every file is as it was written")


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
