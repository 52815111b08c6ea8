r"""Which number of a completion is its answer.

``strict`` is the field's rule: the number right after the last ``####``. ``flexible`` is what a careful person reads:
what is declared to be the answer (``\boxed{}``, ``<answer>``, ``####``, ``the answer is``, ``Answer:``; the last of
them, and in it the result of an equation, else the first number), unless it is taken back ("Wait,"); else what the text
concludes with (``answers_conclusion.py``). What a number is at all is said in ``tasks/numbers.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

from spd_lightning.scoring.answers_conclusion import ASIDE, conclusion, result_of, statements
from spd_lightning.scoring.answers_cut import NEXT_TURN, answer_part
from spd_lightning.tasks.numbers import number_at, numbers, plain_characters, spelled_numbers, tidy

NumberMode = Literal["strict", "flexible"]

_MARKER = re.compile(r"#{4,}[\s*_`:={(\[\\\"'“‘~≈$]*")
_BOXED = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?=\{|\d)")
_TAG = re.compile(r"<(answer|final_answer|result)>(.*?)(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_LABEL = re.compile(
    r"(?<![A-Za-z])(?<!first )(?<!second )(?<!third )(?:answer|ans|final result|final value|antwort|r[ée]ponse"
    r"|respuesta|resposta|risposta|ответ|答案|答え|答|正解|정답|답)(?:[’']s)?(?:[\"'*_`)\]]+|\b|(?=[是为は은는]))"
    r"(?:\s+(?:to|for|of)\s+[^.\n=:]{1,80}?)?"
    r"(?:(?P<colon>\s*(?:[:=]|->|→|[ \t*_]*\n))"
    r"|(?:\s+(?:is|would be|will be|must be|should be|equals|comes (?:out )?to|=|ist|est|es|é|è)\b|[是为は은는])"
    r"(?P<colon_too>[\s*_]*:)?)",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|oops|hmm|correction|sorry|my mistake|scratch that|on second thought|actually,? (?:it|the|that|i)\b"
    r"|let me (?:re|correct|fix|try)|that(?:'s|’s| is| was) (?:wrong|not right|incorrect)"
    r"|i made (?:a|an) (?:\w+ )?(?:mistake|error))",
    re.IGNORECASE,
)
_MOST = 20  # declarations looked at, from the last; a model that repeats itself declares the same


def extract_number(
    text: str, mode: NumberMode = "strict", stops: Iterable[str] = NEXT_TURN
) -> tuple[Decimal | None, str]:
    """The number that a completion answers with, and why.

    Args:
        text: The completion.
        mode: ``strict`` (after the last ``####``) or ``flexible`` (what a careful person reads).
        stops: The text is cut before the first of these.

    Returns:
        The number and ``"marker"``, ``"boxed"``, ``"tag"``, ``"answer is"``, ``"taken back"`` or ``"conclusion"``; or
        None and what was missing: ``"empty completion"``, ``"only thinking"``, ``"no #### marker"``,
        ``"no number after ####"`` or ``"no number"``.
    """
    if mode not in ("strict", "flexible"):
        raise ValueError(f"mode={mode!r} is not known. Use 'strict' or 'flexible'.")
    text, nothing = answer_part(text, stops)
    if nothing:
        return None, nothing
    if mode == "flexible":
        return _careful(plain_characters(text))
    text = tidy(text)
    markers = list(_MARKER.finditer(text))
    for marker in reversed(markers):
        number = number_at(text, marker.end())
        if number:
            return number.value, "marker"
    return None, "no number after ####" if markers else "no #### marker"


def _careful(text: str) -> tuple[Decimal | None, str]:
    declared = _declared(text)
    if declared:
        value, end, reason = declared
        back = list(_TAKEN_BACK.finditer(text, end))
        later = conclusion(text[back[-1].end() :]) if back else None
        return (value, reason) if later is None else (later, "taken back")
    found = conclusion(text)
    return (None, "no number") if found is None else (found, "conclusion")


# -- declared answers --------------------------------------------------------------------------------------------------


def _declared(text: str) -> tuple[Decimal, int, str] | None:
    """The last declared answer: its number, where it ends, and how it was declared."""
    last_digit = max((m.start() for m in re.finditer(r"\d", text)), default=-1)
    found = [(m, "boxed") for m in _BOXED.finditer(text)]
    found += [(m, "tag") for m in _TAG.finditer(text)]
    found += [(m, "marker") for m in re.finditer(r"#{4,}", text)]
    found += [(m, "answer is") for m in _LABEL.finditer(text)]
    for m, reason in sorted(found, key=lambda pair: pair[0].start())[: -_MOST - 1 : -1]:
        region = _region(text, m, reason, last_digit)
        value = None if region is None else _stated(region)
        if value is not None:
            return value, m.end() + (0 if reason == "tag" else len(region or "")), reason
    return None


def _region(text: str, m: re.Match[str], reason: str, last_digit: int) -> str | None:
    """What a declaration says; None where it declares nothing (a heading, the start of the reasoning)."""
    if reason == "tag":
        return m[2]
    if reason == "boxed":
        negative = re.search(r"(?<![\w)\]}%])-\s?\$?\s?$", text[max(0, m.start() - 5) : m.start()])
        return ("-" if negative else "") + _braced(text, m.end())
    region = _line_after(text, m.end())
    if reason == "marker":
        number = re.match(r"[\W_]*(?:\d|[A-Za-z]+[\W_]*$)", region)
        heading = re.match(r"[\W_]*\d{1,2}[.)] +[A-Za-z]", region)
        return f"#{region}" if number and not heading else None
    if not (m["colon"] or m["colon_too"]):
        region = statements(region)[0] if region.strip() else ""
    end = m.end() + len(region)
    final = len(region.split()) <= 6 or end > last_digit or ASIDE.match(text[end : end + 80])
    return region if m["colon"] is None or final else None


def _line_after(text: str, at: int) -> str:
    """The rest of the line, or the next line with a word where that is empty."""
    match = re.compile(r"[^\w\n]*(?:\n[^\w\n]*)*[^\n]*").match(text, at)
    return match[0] if match else ""


def _braced(text: str, at: int) -> str:
    """What stands in the braces that open at ``at``, or the digits there."""
    if text[at] != "{":
        return re.findall(r"\d+", text[at : at + 40])[0]
    depth = 0
    for i in range(at, min(len(text), at + 400)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[at + 1 : i]
    return text[at + 1 :].split("\n")[0]


def _stated(region: str) -> Decimal | None:
    """The number of a declaration: a result, else the first number that is not denied."""
    text = tidy(region)
    found = numbers(text)
    if not found:
        words = spelled_numbers(text)
        return words[0] if words else None
    result = result_of(text, found)
    put = re.search(r"\b(?:i\.e\.|namely|which equals|which is(?! .*\bthan\b)),? \$?(?=-?[\d.])", text)
    result = result or next((n for n in found if put and n.start >= put.end() - 1), None)
    said = [n for n in found if not re.search(r"\b(?:not|question|problem|part) \$?$", text[: n.start], re.IGNORECASE)]
    return (result or (said or found)[0]).value
