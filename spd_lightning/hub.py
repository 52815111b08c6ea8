"""The hub is looked for once: where nobody answers, no library asks again in this process or in those it starts.

Else `datasets` alone tries every data set six times, for half a minute.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def ask(question: Callable[[], T]) -> T:
    """The hub's answer to a question, e.g. at which commit a model is.

    Raises:
        Exception: What the hub's client raises, of whatever kind; if it was for want of any answer, the libraries are
            told to be offline from now on, so that they take what was downloaded before, or say so at once.
    """
    try:
        return question()
    except Exception as error:
        if getattr(error, "response", None) is None:  # a refusal has one: no such model, no right to it
            _ask(False)
        raise


@contextlib.contextmanager
def unasked() -> Iterator[None]:
    """Meanwhile only what was downloaded before is taken."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    _ask(False)
    try:
        yield
    finally:
        _ask(not before)


def _ask(may: bool) -> None:
    """Say to the libraries whether they may ask: the environment is read by those not imported yet, and by others."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = str(int(not may))
    constants.HF_HUB_OFFLINE = not may
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_HUB_OFFLINE = not may
