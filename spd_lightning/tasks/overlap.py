"""What two sets of texts have in common: whole questions, and runs of 13 words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from spd_lightning.tasks.task import Example

NO_WORD = re.compile(r"[\W_]+")
NGRAM = 13  # words; the usual length, arXiv:2005.14165, appendix C


def normalised_text(text: str) -> str:
    """Letters and digits of a text in lower case, one space between words: equal for texts that differ in layout only.

    >>> normalised_text("What is  2+2?\n") == normalised_text("what is 2 + 2")
    True
    """
    plain = (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
    return NO_WORD.sub(" ", plain).strip() or " ".join(plain.split())


def count_overlap(examples: Iterable[Example], others: Iterable[Example]) -> int:
    """How many of ``examples`` ask a question that also stands in ``others``, compared by `normalised_text`."""
    known = {normalised_text(e.meta.get("question", e.prompt)) for e in others}
    return sum(normalised_text(e.meta.get("question", e.prompt)) in known for e in examples)


def ngrams(text: str, size: int = NGRAM) -> set[tuple[str, ...]]:
    """Every run of ``size`` words of a text, by `normalised_text`; none of a shorter one."""
    words = normalised_text(text).split()
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


def count_shared_ngrams(examples: Iterable[Example], texts: Iterable[str], size: int = NGRAM) -> tuple[int, int]:
    """How many examples share a run of ``size`` words with one of ``texts``, and how many are long enough to.

    An example counts by its question and its right completion.
    """
    known: set[tuple[str, ...]] = set()
    for text in texts:
        known |= ngrams(text, size)
    found = [ngrams(f"{e.meta.get('question', e.prompt)} {e.target}", size) for e in examples]
    return sum(not grams.isdisjoint(known) for grams in found), sum(bool(grams) for grams in found)
