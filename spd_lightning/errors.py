"""The one error class for a user's mistake, and the words that help out of it."""

from __future__ import annotations

import difflib
import errno
import os
import re
import tempfile
from collections.abc import Iterable

AGAIN = "then give the same command again: it goes on from what is finished"
INTERRUPTED = "Interrupted. Give the same command again."
DISK_FAULTS = {
    errno.ENOSPC: "Free space there",
    errno.EDQUOT: "Free space there, or have the quota raised",
    errno.EIO: "Look at the disk (dmesg), or choose another folder",
    errno.EROFS: "Make it writable, or choose another folder",
    errno.EACCES: "Have its permissions changed, or choose another folder",
    errno.EPERM: "Have its permissions changed, or choose another folder",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f), or choose another folder",
    errno.EMFILE: "Raise the number of files that a process may open (ulimit -n)",
    errno.ENFILE: "The whole machine has too many files open: wait for other programs to end",
    errno.ESTALE: "Look whether the network disk is still there, or choose another folder",
    errno.ENAMETOOLONG: "Choose a shorter name",
}


class UserError(Exception):
    """A mistake of the user: what is wrong (name and value), what was allowed, what to type.

    The command line catches it once, prints its text without a traceback and ends with status 2.
    """


def unknown_name(kind: str, value: str, known: Iterable[str], option: str) -> UserError:
    """Build the error for a misspelt name, with the nearest valid one.

    Args:
        kind: What the name stands for, e.g. ``"task"``.
        value: What the user wrote.
        known: Every name that would have been right.
        option: What to set, e.g. ``"--evaluation.tasks"``.
    """
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"Unknown {kind} {value!r}.{hint} Known: {', '.join(names)}. Set {option}.")


def counted(number: int, what: str) -> str:
    """A number with what it counts, in the plural but for one: ``1 row``, ``2 rows``."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def cannot_write(path: object, error: OSError) -> UserError:
    """Build the error for a file or folder that could not be written: what stood in its place before still does."""
    other = error.filename if error.errno == errno.ENOENT else None  # what it was to be made from has gone
    why = f"{other}: {error.strerror}" if other else error.strerror or str(error)
    return UserError(
        f"Cannot write {path}: {why}. {DISK_FAULTS.get(error.errno or 0, 'Choose another folder')}, {AGAIN}."
    )


def fault_number(error: BaseException) -> int | None:
    """The number of `DISK_FAULTS` that an error has, or tells in its text as libraries in Rust do; None for others."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(told[1])
    return number if number in DISK_FAULTS else None


def disk_fault(error: BaseException, where: object = None) -> str | None:
    """What to say of an error of the disk: path, cause, what to do; None for every other error.

    Only what an error was raised *from* is looked at, not what was being handled meanwhile: that had been dealt with.

    Args:
        error: The error.
        where: The path, for an error that names none.
    """
    cause: BaseException | None = error
    while cause is not None:
        if (number := fault_number(cause)) is not None:
            names = [getattr(cause, "filename2", None), getattr(cause, "filename", None)]
            unnamed = where or f"A file or the output (files for a moment stand in {_temporary()})"
            path = next((os.fsdecode(name) for name in names if isinstance(name, (str, bytes))), unnamed)
            return f"{path}: {os.strerror(number)}. {DISK_FAULTS[number]}, {AGAIN}."
        if isinstance(cause, FileNotFoundError) and "temporary directory" in str(cause):
            return f"No temporary folder can be written ({cause.strerror}). Free space, or set TMPDIR, {AGAIN}."
        cause = cause.__cause__
    return None


def _temporary() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return "TMPDIR"
