"""The one error class for a user's mistake, and the words that help out of it."""

from __future__ import annotations

import difflib
import errno
import os
import re
import tempfile
from collections.abc import Iterable

AGAIN = "then give the same command again: it goes on from what is finished"
DISK_FAULTS = {
    errno.ENOSPC: "Free space there",
    errno.EDQUOT: "Free space there, or have the quota raised",
    errno.EIO: "Look at the disk (dmesg), or choose another folder",
    errno.EROFS: "Make it writable, or choose another folder",
    errno.EACCES: "Have its permissions changed, or choose another folder",
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


def disk_fault(error: BaseException) -> str | None:
    """What to say of an error of the disk: path, cause, what to do; None for every other error.

    Libraries in Rust tell the number of the cause in their text alone. Only what an error was raised *from* is looked
    at, not what was being handled meanwhile: that had been dealt with.
    """
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None and (told := re.search(r"\(os error (\d+)\)", str(cause))):
            number = int(told[1])
        if number in DISK_FAULTS:
            names = [getattr(cause, "filename2", None), getattr(cause, "filename", None)]
            unnamed = f"A file or the output (files for a moment stand in {_temporary()})"
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
