r"""What a completion answered. Pure functions from text to answer, with the reason beside it.

Every extractor takes off the thinking of a model that thinks before it answers, then cuts the text at the first stop
string, since a model that goes on to ask itself the next question would otherwise be scored on that one. Each kind of
answer has its file: ``answers_numbers.py``, ``answers_letters.py``, ``answers_code.py``; texts stand here, and this is
the address of all of them.

Every decision is shown with its reason in ``tests/unit/scoring/test_answers.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from spd_lightning.errors import UserError
from spd_lightning.scoring.answers_code import extract_code, parses
from spd_lightning.scoring.answers_cut import (
    NEXT_TURN,
    answer_part,
    cut_at_stops,
    evaluation_stops,
    reading_stops,
    without_thinking,
)
from spd_lightning.scoring.answers_letters import extract_letter, letters_up_to
from spd_lightning.scoring.answers_numbers import NumberMode, extract_number
from spd_lightning.tasks import numbers
from spd_lightning.tasks.golds import NUMBER_WANTED
from spd_lightning.tasks.numbers import MINUS, TOLERANCE, numbers_equal

__all__ = [
    "NEXT_TURN",
    "TOLERANCE",
    "NumberMode",
    "answer_lines",
    "answer_part",
    "cut_at_stops",
    "evaluation_stops",
    "extract_code",
    "extract_letter",
    "extract_number",
    "extract_text",
    "gold_number",
    "is_gold_number",
    "letters_up_to",
    "normalise_text",
    "numbers_equal",
    "parses",
    "reading_stops",
    "tidy_text",
    "without_thinking",
]

_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)|\\boxed\{([^{}]*)\}", re.IGNORECASE | re.DOTALL)


def normalise_text(text: str) -> str:
    """The form in which texts are compared: lower case, single spaces, no emphasis, quotes or final punctuation.

    A leading "the answer is" or "answer:" is dropped, and the brackets around a single letter: ``(B).`` becomes ``b``.
    """
    return tidy_text(" ".join(text.casefold().split()))


def tidy_text(text: str) -> str:
    """`normalise_text` with case and white space left as they are."""
    text = re.sub(r"(?i)^[*_`\s]*(?:(?:so )?the (?:correct |final )?answer is:?|answer:)[*_`\s]*", "", text)
    text = text.translate(MINUS).replace("**", "").replace("`", "")
    text = re.sub(r"^([*_])(\w.*)\1(\W*)$", r"\2\3", text)
    text = text.strip().strip("\"'“”‘’").rstrip(".,;:!").strip().strip("\"'“”‘’")
    return re.sub(r"^\((\w)\)$", r"\1", text)


def extract_text(text: str, expected: str, stops: Iterable[str] = NEXT_TURN) -> tuple[str | None, str]:
    """The text that a completion answers with, normalised; see `answer_lines`.

    Returns:
        The text and ``"first line"``, ``"lines"`` or ``"tag"``; or None and ``"empty completion"`` or
        ``"only thinking"``.
    """
    text, nothing = answer_part(text, stops)
    if nothing:
        return None, nothing
    lines, reason = answer_lines(text, expected)
    return normalise_text(lines), reason


def answer_lines(text: str, expected: str) -> tuple[str, str]:
    """The first line of an answer, or as many lines as ``expected`` has, and why.

    Where the completion marks its answer (``<answer>``, ``\\boxed{}``), the last text so marked is read instead.
    """
    tagged = [m[1] or m[2] for m in _TAGGED.finditer(text) if (m[1] or m[2] or "").strip()]
    lines = [line for line in (tagged[-1] if tagged else text).splitlines() if line.strip()]
    count = max(1, sum(1 for line in expected.splitlines() if line.strip()))
    reason = "tag" if tagged else "first line" if count == 1 else "lines"
    return "\n".join(lines[:count]), reason


def gold_number(reference: str) -> Decimal:
    """The number that a gold answer states, alone or as the answer of a worked solution.

    Raises:
        UserError: If it states none that could be compared (``NaN``, ``1e400``, words): nothing would ever equal it.
    """
    number = numbers.gold_number(reference)
    number = extract_number(reference, "flexible", ())[0] if number is None else number
    if number is None:
        raise UserError(f"The gold answer {reference!r} is no number that can be compared. Needed: {NUMBER_WANTED}.")
    return number


def is_gold_number(answer: str | None, expected: str) -> bool:
    """Whether a number, as text, equals the gold answer's within 1e-4; none at all equals nothing."""
    gold = gold_number(expected)
    return numbers_equal(None if answer is None else Decimal(answer), gold)
