r"""Stage 4: which number of a completion is its answer.

``strict`` is the field's rule: the number right after the last ``####``. ``flexible`` is what a careful person reads:

1. What is declared to be the answer: ``\boxed{}``, ``<answer>``, ``####``, ``the answer is``, ``Answer:``; the last of
   them, and in it the result of an equation, else the first number. What is taken back afterwards ("Wait,") gives way.
2. Else the last statement that holds a number and is no aside (a rating, a note, a check): in it bold before plain, the
   result of an equation before its terms, the main clause before ``because ..`` and ``Since ..,``, and no number that
   only qualifies another one (``in the next 24 hours``, ``out of 20``, ``Step 3``). Where the last number is a
   complement (``57 more eggs than 5 cakes need``), the one that was computed just before.

What a number is at all is said in ``tasks/numbers.py``. On the worked answers of GSM8K without their ``####`` line,
``experiments/benchmarks/scorers.py`` counts how often this finds the gold answer, and how often the last number is it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

from spd_lightning.evaluation.answers_cut import NEXT_TURN, answer_part
from spd_lightning.tasks.numbers import Number, number_at, numbers, plain_characters, spelled_numbers, tidy

NumberMode = Literal["strict", "flexible"]

_MARKER = re.compile(r"#{4,}[\s*_`:={(\[\\\"'“‘~≈$]*")
_BOXED = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?=\{|\d)")
_TAG = re.compile(r"<(answer|final_answer|result)>(.*?)(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_LABEL = re.compile(
    r"(?<![A-Za-z])(?<!first )(?<!second )(?<!third )(?:answer|ans|final result|final value)(?:[\"'*_`)\]]+|\b)"
    r"(?:\s+(?:to|for|of)\s+[^.\n=:]{1,80}?)?"
    r"(?:(?P<colon>\s*(?:[:=]|->|→|[ \t*_]*\n))"
    r"|\s+(?:is|would be|will be|must be|should be|equals|comes (?:out )?to|=)\b(?P<colon_too>[\s*_]*:)?)",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|oops|hmm|correction|sorry|my mistake|scratch that|on second thought|actually,? (?:it|the|that|i)\b"
    r"|let me (?:re|correct|fix|try)|that(?:'s|’s| is| was) (?:wrong|not right|incorrect)"
    r"|i made (?:a|an) (?:\w+ )?(?:mistake|error))",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"^[\W_]*(?:(?:let me |let's |to |double[- ]|quick )*(?:check|verif|proof|sanity)|note\b"
    r"|(?:i(?:'d| would)? )?rat(?:ed?|ing)\b|scor(?:e|ed)\b|confiden|my confidence|difficulty|p\.?s\.|hint|source"
    r"|reference|i hope|hope th|let me know|please\b|feel free|time (?:taken|spent)|tokens?\b|disclaimer"
    r"|(?:this|these) (?:question|problem|answer|steps)|explanation\b)",
    re.IGNORECASE,
)
_OPERATOR = r"(?:(?<!\*)\*(?!\*)|[+/÷]|[xX](?=[ $\d(])|-(?=[ $\d(]))"
_EQUALS = re.compile(r"=|≈|\bequals\b|\b(?:is|are) equal to\b")
_LEFT_TERM = re.compile(rf"[\s*_)}}\]]*{_OPERATOR}\s*[({{\[]*\s*[$\d.]")
_LEFT_TERM_WITH_UNIT = re.compile(rf"[ A-Za-z]{{1,25}} {_OPERATOR} *[({{\[]*[$\d.]")
_RIGHT_TERM = re.compile(rf"[\w)%] ?{_OPERATOR} *[({{\[]*\$?$")
# What may follow a result and replace it: "16.75 bags, meaning 17 bags", "33.3%, which rounds down to 33%".
_REFINED = re.compile(
    r"\b(?:round(?:s|ed|ing)?(?: it)?(?: up| down| off)?(?: to)?|meaning|(?:which|that) (?:is|equals|means)"
    r"|(?<=, )so(?! far)|therefore|or|leaving|giving)(?: (?:about|approximately|equal to))?\b"
    r"(?! (?:less|more|than|greater))",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"[,;]?\s(?:because|since|given that|as (?:it|this|that|he|she|they|there|the)\b|considering|assuming)\b",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"^[\W_]*(?:(?:so|thus|therefore|hence|then|now|and|finally)[, ]+)?(?:since|because|as|if|given|when|after|having"
    r"|with|for|at|over|in|by|to|from|on|out of|during|within)\b[^,]*,\s",
    re.IGNORECASE,
)
_COMPLEMENT = re.compile(
    r"\b(?:for|than|in|after|before|to|of|per|over|with|between|from|by|on|at|within|every|each|during|across|into|and"
    r"|until|among|around|write|read|earn|use|travel|lose|go|get)"
    r"(?: (?:the|a|an|her|his|its|their|those|these|all|only|another))?(?: [a-z]+)? ?\$?\(?$",
    re.IGNORECASE,
)
# A number is only a qualifier after the first of these, or before the second, as long as another number is left.
_QUALIFIED_BEFORE = re.compile(
    r"(?:\b(?:in|over|for|within|during|of) the (?:next|last|past|following|coming|first|previous|whole)"
    r"|\b(?:step|part|question|problem|example|equation|line|case|year|no\.|number|out of|rated|rating|rating of"
    r"|confidence|confidence of|instead of|rather than|not)(?: is|:)?) \$?$",
    re.IGNORECASE,
)
_QUALIFIED_AFTER = re.compile(r"(?:st|nd|rd|th)\b|-[A-Za-z]|%? (?:confident|confidence|certain|sure)\b")
_YEAR = re.compile(r"\b(?:in|by|since|until|of) (?:19|20)\d\d$", re.IGNORECASE)
_MOST = 20  # declarations looked at, from the last; a model that repeats itself declares the same
_CUE = re.compile(
    r"\b(?:so|thus|therefore|hence|left|total|altogether|in all|remain\w*|needs?|will|answer)\b", re.IGNORECASE
)


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
        later = _conclusion(text[back[-1].end() :]) if back else None
        return (value, reason) if later is None else (later, "taken back")
    found = _conclusion(text)
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
        region = _statements(region)[0] if region.strip() else ""
    end = m.end() + len(region)
    final = len(region.split()) <= 6 or end > last_digit or _ASIDE.match(text[end : end + 80])
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
    result = _result(text, found)
    said = [n for n in found if not re.search(r"\b(?:not|question|problem|part) \$?$", text[: n.start], re.IGNORECASE)]
    return (result or (said or found)[0]).value


# -- conclusions -------------------------------------------------------------------------------------------------------


def _conclusion(text: str) -> Decimal | None:
    """The number of the last statement that states one; the last number of all where none does."""
    statements = [(s, numbers(s)) for s in _statements(tidy(text))]
    numbered = [(s, found) for s, found in statements if found]
    words = spelled_numbers(statements[-1][0]) if statements and not statements[-1][1] else []
    if words and (not numbered or _CUE.search(statements[-1][0])):
        return words[-1]
    if not numbered:
        words = [w for s, _ in statements for w in spelled_numbers(s)]
        return words[-1] if words else None
    last = len(numbered)
    while last > 1 and _ASIDE.match(numbered[last - 1][0]):
        last -= 1
    for i in range(last - 1, -1, -1):
        number = _concluded(*numbered[i], numbered[:i])
        if number:
            return number.value
    return numbered[-1][1][-1].value


def _statements(text: str) -> list[str]:
    """Sentences and lines; the numbers of a list (1., 2., ..) are taken off."""
    found: list[str] = []
    expected = 1
    for line in text.split("\n"):
        marker = re.match(r"[\s>*_#-]*\(?(\d{1,2})[.)][*_]*\s+(?=\S)", line)
        if marker and int(marker[1]) in (1, expected):
            line, expected = line[marker.end() :], int(marker[1]) + 1
        found += [s for s in re.split(r"(?<=[.!?])[\"'”’*_)\]]*\s+(?=\S)", line) if s.strip()]
    return found


def _concluded(text: str, found: list[Number], before: list[tuple[str, list[Number]]]) -> Number | None:
    """The number that one statement concludes with; None where all of its numbers are terms of a calculation."""
    bold = [
        n for m in re.finditer(r"\*\*([^*\n]+[^*:\n])\*\*(?!:)", text) for n in found if m.start() < n.start < m.end()
    ]
    if bold and len(bold) < len(found):
        found = bold
    reason = _REASON.search(text)
    if reason and found[0].end <= reason.start() and "=" not in text[reason.start() :]:
        text = text[: reason.start()]
        found = [n for n in found if n.end <= reason.start()]
    opening = _OPENING.match(text)
    if opening and found[-1].start >= opening.end():
        found = [n for n in found if n.start >= opening.end()]
    result = _result(text, found)
    if result:
        return result
    found = [n for n in found if not _is_term(text, n)]
    outside = [n for n in found if text.count("(", 0, n.start) <= text.count(")", 0, n.start)]
    found = outside or found
    main = [n for n in found if not _is_qualifier(text, n)]
    found = main or found
    if len(found) > 1 and _COMPLEMENT.search(text[max(0, found[-1].start - 40) : found[-1].start]):
        computed = next((r for t, others in reversed(before) if (r := _result(t, others))), None)
        return next((n for n in found if computed and n.value == computed.value), found[-1])
    return found[-1] if found else None


def _result(text: str, found: list[Number]) -> Number | None:
    """The number to the right of the last equals sign, unless it is a term again; left of it in ``20 = x``."""
    unknown = re.search(r"=\s*[A-Za-z]\w{0,15}[\s.$*_]*$", text)
    left = [n for n in found if n.end <= unknown.start()] if unknown else []
    if unknown and left and not text[left[-1].end : unknown.start()].strip(" %$*"):
        return left[-1]
    for sign in reversed(list(_EQUALS.finditer(text))):
        number = next((n for n in found if n.start >= sign.end()), None)
        if number is None or not re.fullmatch(r"[\s$*_({\[~A-Za-z.'-]{0,25}", text[sign.end() : number.start]):
            continue
        if _LEFT_TERM.match(text, number.end):
            continue
        refined = _REFINED.search(text, number.end)
        return next((n for n in found if refined and n.start >= refined.end()), number)
    return None


def _is_term(text: str, n: Number) -> bool:
    """Whether a number is a term of a calculation whose result is not given."""
    after = _LEFT_TERM.match(text, n.end) or _LEFT_TERM_WITH_UNIT.match(text, n.end)
    return bool(after or _RIGHT_TERM.search(text[max(0, n.start - 12) : n.start]))


def _is_qualifier(text: str, n: Number) -> bool:
    if _QUALIFIED_BEFORE.search(text[max(0, n.start - 40) : n.start]) or _QUALIFIED_AFTER.match(text, n.end):
        return True
    return bool(_YEAR.search(text[max(0, n.start - 8) : n.end]))
