"""The artifact store that runs share: what an artifact depends on is its fingerprint, which names its folder.

An artifact is a folder ``<stage>-<fingerprint>/``. The fingerprint covers exactly what it depends on and the version of
the stage, so another setting is another folder: nothing stale is ever reused, and nothing is overwritten.

It is finished by its record, ``complete.json``, which is written last: what it depends on, what was seen, the SHA-256
of every file, and that of the record itself. All are compared whenever it is taken. What does not match is set aside
as ``<name>.damaged`` and made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from spd_lightning.artifacts.checksums import changes, checksums, is_sealed, passing, sealed
from spd_lightning.artifacts.files import write_json
from spd_lightning.artifacts.locks import held_by_another, waited_lock
from spd_lightning.artifacts.reading import part_of, read_object
from spd_lightning.errors import UserError

# Raised by hand when a stage's arithmetic or file format changes, so that older artifacts are not reused.
STAGE_VERSION = {"moments": 5, "subspace": 3, "corpus": 4, "student": 4, "scores": 10, "movement": 2, "run": 3}
COMPLETE = "complete.json"
DAMAGED = ".damaged"  # ends the name of what was set aside


def fingerprint(stage: str, **key: Any) -> str:
    """16 hexadecimal digits that stand for ``key`` (JSON values) and the version of the stage.

    >>> fingerprint("moments", seed=1) == fingerprint("moments", seed=1)
    True
    """
    payload = json.dumps({"stage": stage, "version": STAGE_VERSION[stage], **key}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(payload.encode()).hexdigest()[:16]


def _opened(path: Path) -> BinaryIO:
    """A file to be locked alone; one that another user wrote is only read, which suffices but on network disks."""
    try:
        return open(path, "rb+")
    except PermissionError:
        return open(path, "rb")


def _to_user(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class ArtifactStore:
    """Folder of artifacts that runs share.

    Args:
        root: The store's folder; made on first use.
        say: Is told of what was set aside.
    """

    def __init__(self, root: str | Path, say: Callable[[str], None] = _to_user) -> None:
        self.root, self.say = Path(root), say
        self._asked: dict[Path, None] = {}

    def folder(self, stage: str, key: Mapping[str, Any]) -> Path:
        """The folder of an artifact, whether it exists or not."""
        folder = self.root / f"{stage}-{fingerprint(stage, **key)}"
        self._asked[folder] = None
        return folder

    def used(self) -> list[str]:
        """Names of the finished artifacts that were asked for through this object: those that its run is made of."""
        return [folder.name for folder in self._asked if self.is_complete(folder)]

    def is_complete(self, folder: Path) -> bool:
        """Whether an artifact was finished; `take` also looks whether it still is what was written."""
        return (folder / COMPLETE).is_file()

    def complete(self, folder: Path, key: Mapping[str, Any], left_out: Collection[str] = (), **facts: Any) -> None:
        """Mark an artifact as finished: record what it depends on (``key``), holds, and what was seen (``facts``).

        Files in ``left_out`` are about to be removed.
        """
        record = {"key": dict(key), **facts, "files": checksums(folder, {COMPLETE, *left_out})}
        write_json(folder / COMPLETE, sealed(record))
        self._use(folder)

    def facts(self, folder: Path) -> dict[str, Any]:
        """What `complete` recorded.

        Raises:
            UserError: If that cannot be read, or was changed since.
        """
        advice = f"Remove {folder} to have it made again."
        record = read_object(file := folder / COMPLETE, advice)
        if not is_sealed(record):
            raise UserError(f"{file} was changed. {advice}")
        return record

    def damage(self, folder: Path) -> list[str]:
        """What of a finished artifact is not as it was written, a few words each; all its files are read."""
        return self._read(folder)[1]

    def _read(self, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """The record of a finished artifact, and its `damage`."""
        try:
            record = self.facts(folder)
            files = part_of(folder / COMPLETE, record, "files", dict, "")
        except UserError as error:
            return {}, [str(error).partition(". ")[0].replace(f"{folder}/", "")]
        return record, changes(folder, files)

    def take(self, folder: Path) -> dict[str, Any] | None:
        """What `complete` recorded of an artifact that is whole; None where it has to be made.

        A damaged one is named and set aside, by one of the processes that come upon it.

        Ranks:
            For one process: it changes what the others would find.
        """
        if not self.is_complete(folder):
            return None
        self._use(folder)
        record, damage = self._read(folder)
        if not damage:
            return record
        with contextlib.ExitStack() as alone:
            with contextlib.suppress(UserError):  # a store that is only read: `set_aside` says so
                alone.enter_context(waited_lock(self.root / ".set-aside-lock", f"The store {self.root}"))
            # Meanwhile another may have set it aside, and made it anew; or it is being written a second time.
            if self.is_complete(folder) and not held_by_another(folder / ".lock") and (damage := self.damage(folder)):
                self.set_aside(folder, "; ".join(damage))
        return None

    @contextlib.contextmanager
    def writing(self, folder: Path) -> Iterator[bool]:
        """Write an artifact's files alone, after another process that does: whether it still is to be made.

        Ranks:
            For one process.
        """
        with waited_lock(folder / ".lock", f"The artifact in {folder}"):
            yield self.take(folder) is None

    def _use(self, folder: Path) -> None:
        """Hold an artifact while this object lives, so that `remove` leaves it, and note that it was used now."""
        with contextlib.suppress(OSError):  # a store that is only read, or has no locks
            descriptor = os.open(folder / COMPLETE, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.utime(folder / COMPLETE)

    @contextlib.contextmanager
    def _unless_used(self, folder: Path) -> Iterator[bool]:
        """Whether no run holds an artifact or writes it; none can begin to meanwhile."""
        with contextlib.ExitStack() as opened:
            for name in (COMPLETE, ".lock"):
                try:
                    file = opened.enter_context(_opened(folder / name))
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except (BlockingIOError, PermissionError):  # or one of another user, who may use it
                    yield False
                    return
                except OSError:  # no such file, or no locks here
                    continue
            yield True

    def open_to_others(self) -> str | None:
        """What to say of a store that every user of the machine can write; None for any other."""
        try:
            mode = self.root.stat().st_mode
        except OSError:
            return None
        if not mode & stat.S_IWOTH:
            return None
        return f"{self.root} can be written by every user of this machine, and runs take what is in it: chmod o-w"

    def set_aside(self, folder: Path, why: str) -> Path:
        """Rename an artifact that is not to be used to ``<name>.damaged``, and say so.

        Raises:
            UserError: If it cannot be renamed.
        """
        others = len(list(self.root.glob(f"{folder.name}{DAMAGED}*")))
        aside = folder.with_name(f"{folder.name}{DAMAGED}{others + 1 if others else ''}")
        try:
            folder.rename(aside)
        except FileNotFoundError:  # by another process
            return aside
        except OSError as error:
            raise UserError(
                f"{folder} is damaged ({why}) and cannot be set aside: {error.strerror}. Remove it, or set "
                "--artifact_dir to another folder."
            ) from error
        self.say(f"{folder} is damaged ({why}): set aside as {aside.name}; it is made anew.")
        return aside

    def list(self) -> list[dict[str, Any]]:
        """One row per artifact: stage, fingerprint, whether complete, size in bytes, time of last use (s).

        What a killed process was writing beside one (``.<name>-<process>-new``) has a row of its own.
        """
        rows = []
        for folder in sorted(p for p in self.root.glob("*-*") if p.is_dir()):
            stage, _, digest = folder.name.removeprefix(".").partition("-")
            if stage not in STAGE_VERSION:
                continue
            files = [p for p in folder.rglob("*") if p.is_file()]
            rows.append(
                {
                    "stage": stage,
                    "fingerprint": digest,
                    "complete": self.is_complete(folder) and DAMAGED not in digest and not passing(folder.name),
                    "bytes": sum(p.stat().st_size for p in files),
                    "used": max((p.stat().st_mtime for p in files), default=0.0),
                    "path": folder,
                }
            )
        return rows

    def remove(self, folder: Path) -> bool:
        """Delete one artifact, unless a run holds it or writes it; it goes at once, so nobody takes a part of it."""
        aside = folder.with_name(f".{folder.name.removeprefix('.').removesuffix('-new')}-{os.getpid()}-new")
        with self._unless_used(folder) as free:
            if free:
                folder.rename(aside)
        if free:
            shutil.rmtree(aside)
        return free
