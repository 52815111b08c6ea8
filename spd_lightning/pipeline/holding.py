"""A command holds its run folder: locked, claimed, and given back or finished, however the command ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.artifacts.checksums import passing
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.tasks.sources import commits_taken


@contextlib.contextmanager
def hold(
    folder: RunFolder, store: ArtifactStore, config: Mapping[str, Any], environment: Mapping[str, Any]
) -> Iterator[None]:
    """Hold a run folder while the context lasts; a mistake found before any work gives it back.

    What ended the command is what is told: on a disk that fails, notes of how far it came fail too, and are left out.

    Args:
        folder: The run folder.
        store: Whose artifacts the run uses.
        config: See `RunFolder.claim`.
        environment: The same.

    Ranks:
        Rank 0 only.
    """
    with _unless_empty(folder.path), folder.held():
        dump = yaml.safe_dump(config, sort_keys=False)
        folder.claim(config, dump, environment)
        rank_zero_info(f"Run folder: {folder.path}")
        try:
            yield
            folder.check_there()
        except BaseException as error:
            gone = _removed(folder, store, error) if isinstance(error, Exception) else None
            with contextlib.suppress(OSError, UserError):
                if not folder.is_there() and _holds_something(folder):  # then the same command may go on in it
                    folder.sign(dump, environment)
                folder.release()
                _note(folder, store)
            if gone is not None:
                raise gone from error
            raise
        _note(folder, store)
        folder.note_artifacts(store.used())
        folder.manifest.write()


@contextlib.contextmanager
def _unless_empty(path: Path) -> Iterator[None]:
    """Remove a folder after the context if it holds no file, and those above it that were made for it."""
    made = [path, *(parent for parent in path.parents if not parent.exists())]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a disk that tells nothing any more
            if not any(p.is_file() for p in path.rglob("*")):
                for folder in sorted((p for p in path.rglob("*") if p.is_dir()), reverse=True):
                    folder.rmdir()
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def _note(folder: RunFolder, store: ArtifactStore) -> None:
    folder.note_revisions(commits_taken())
    if folder.config_file.is_file() and not folder.manifest.file.is_file():  # it goes on another time
        folder.note_artifacts(store.used())


def _holds_something(folder: RunFolder) -> bool:
    return folder.path.is_dir() and any(not passing(p.name) for p in folder.path.iterdir())


def _removed(folder: RunFolder, store: ArtifactStore, error: BaseException) -> UserError | None:
    """What to say of an error that comes of the run folder, or something in the store, being removed meanwhile."""
    try:
        folder.check_there()
    except UserError as gone:
        return gone
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, FileNotFoundError) and f"{store.root}/" in str(cause):
            return UserError(
                f"Something was removed from the store while this command used it ({cause}). Give the same command "
                "again: what is missing is made anew."
            )
        cause = cause.__cause__
    return None
