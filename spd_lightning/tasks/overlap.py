"""What two sets of examples have in common."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from spd_lightning.tasks.task import Example

NO_WORD = re.compile(r"[\W_]+")


def normalised_text(text: str) -> str:
    """Letters and digits of a text in lower case, one space between words: equal for texts that differ in layout only.

    >>> normalised_text("What is  2+2?\\n") == normalised_text("what is 2 + 2")
    True
    """
    plain = (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
    return NO_WORD.sub(" ", plain).strip() or " ".join(plain.split())


def count_overlap(examples: Iterable[Example], others: Iterable[Example]) -> int:
    """How many of ``examples`` ask a question that also stands in ``others``, compared by `normalised_text`."""
    known = {normalised_text(e.meta.get("question", e.prompt)) for e in others}
    return sum(normalised_text(e.meta.get("question", e.prompt)) in known for e in examples)
