"""One process holds a folder: by a lock on a file that says whose it is, or, without locks, by a file in its place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.reading import or_nothing, read_object
from spd_lightning.errors import AGAIN, DISK_FAULTS, UserError

WAIT_S = 0.02
LOOKS = 3  # a command that only asks whether a lock is held (`is_locked`) holds it for a moment
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # what a file system says that has none


class InUseError(UserError):
    """What `file_lock` was to hold is held by another process."""


@contextlib.contextmanager
def waited_lock(path: str | Path, holder: str) -> Iterator[None]:
    """Hold a lock as `file_lock` does, after whoever holds it: for what is done within moments.

    Raises:
        UserError: If the file cannot be made or locked.
    """
    with contextlib.ExitStack() as held:
        while True:
            with contextlib.suppress(InUseError):
                held.enter_context(file_lock(path, holder))
                break
            time.sleep(WAIT_S)
        yield


@contextlib.contextmanager
def file_lock(path: str | Path, holder: str) -> Iterator[Callable[[], bool]]:
    """Hold an exclusive lock on a file while the context lasts; it vanishes with the process, however that ends.

    The file says which process holds it, on which machine and since when. Where the file system has no locks, a file
    that only one process can make stands in for one; that of a process of this machine that is gone is removed.

    Yields:
        Whether another's file stands in its place by now: the folder was removed, and made again.

    Raises:
        InUseError: If another process holds it.
        UserError: If the file cannot be made or locked.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except BlockingIOError as error:
        raise InUseError(_in_use(holder, path, "")) from error
    except OSError as error:
        if error.errno in NO_LOCKS:
            path, descriptor = _made_alone(path, holder)
        elif error.errno == errno.ELOOP:
            raise UserError(
                f"{holder} cannot be used: {path} is a symbolic link, which is not followed. Remove it."
            ) from error
        else:
            raise _cannot_be_used(holder, path, error) from error

    def is_anothers() -> bool:
        try:
            return not os.path.samestat(os.fstat(descriptor), os.lstat(path))
        except OSError:
            return False

    _HELD.add(path)
    try:
        _sign(descriptor)
        yield is_anothers
    finally:
        _HELD.discard(path)
        if not is_anothers():
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(descriptor)


def held_by_another(path: str | Path) -> bool:
    """Whether another process than this one holds a lock."""
    return Path(path) not in _HELD and is_locked(path)


def is_locked(path: str | Path) -> bool:
    """Whether a process holds a lock (`file_lock`), which goes with it however it ends."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _sign(descriptor: int) -> None:
    """Write into a lock's file whose it is."""
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(OSError):  # a full disk takes no lock away
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _owner(path: Path) -> dict[str, Any]:
    """What `_sign` wrote; empty where it cannot be read."""
    return or_nothing(read_object, path)


def _cannot_be_used(holder: str, path: Path, error: OSError) -> UserError:
    advice = DISK_FAULTS.get(error.errno or 0, "Choose another folder")
    return UserError(f"{holder} cannot be used: {path}: {error.strerror}. {advice}, {AGAIN}.")


def _in_use(holder: str, path: Path, more: str) -> str:
    owner = _owner(path)
    who = f": {owner.get('pid')} on {owner.get('host')} since {owner.get('since')}" if owner else ""
    return f"{holder} is in use by another process{who} (lock file {path}). Wait for it, or choose another.{more}"


def _made_alone(path: Path, holder: str) -> tuple[Path, int]:
    """A file in place of a lock, and its descriptor."""
    with contextlib.suppress(OSError):
        path.unlink()
    alone = path.with_name(f"{path.name}-exclusive-lock")
    if (device := os.stat(path.parent).st_dev) not in _WITHOUT_LOCKS:
        _WITHOUT_LOCKS.add(device)
        print(f"{path.parent}: its file system has no locks; {alone.name} stands in for one.", file=sys.stderr)
    for _ in range(2):
        try:
            return alone, os.open(alone, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileExistsError as error:
            owner = _owner(alone)
            if owner.get("host") != socket.gethostname() or _runs(owner.get("pid")):
                more = " If that process is gone, remove the file."
                raise InUseError(_in_use(holder, alone, more)) from error
            alone.unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_be_used(holder, path, error) from error
    raise InUseError(_in_use(holder, alone, ""))


_WITHOUT_LOCKS: set[int] = set()  # file systems that were told of
_HELD: set[Path] = set()  # locks of this process


def _runs(pid: Any) -> bool:
    """Whether a process of this machine is there; True where that cannot be told."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, TypeError, ValueError, OverflowError):
        return True
    return True


def _locked(path: Path) -> int:
    """Descriptor of the file, locked; opened again if its last holder removed it meanwhile."""
    looks = 0
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            if (looks := looks + 1) == LOOKS:
                raise
            time.sleep(WAIT_S)
            continue
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
