"""The one error class for a user's mistake, and the words that help out of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
