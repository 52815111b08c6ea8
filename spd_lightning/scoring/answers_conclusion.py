"""The number that a text concludes with, where none is declared to be its answer.

The last statement that holds a number and is no aside (a rating, a note, a check): in it bold before plain, the result
of an equation before its terms, the main clause before ``because ..`` and ``Since ..,``, and no number that only
qualifies another one (``in the next 24 hours``, ``out of 20``, ``Step 3``). Where the last number is a complement
(``57 more eggs than 5 cakes need``), the one that was computed just before.

On the worked answers of GSM8K without their ``####`` line, ``experiments/benchmarks/scorers.py`` counts how often this
finds the gold answer, and how often the last number is it.
"""

from __future__ import annotations

import re
from decimal import Decimal

from spd_lightning.tasks.numbers import Number, numbers, spelled_numbers, tidy

ASIDE = re.compile(
    r"^[\W_]*(?:(?:let me |let's |to |double[- ]|quick )*(?:check|verif|proof|sanity)|note\b"
    r"|(?:i(?:'d| would)? )?rat(?:ed?|ing)\b|scor(?:e|ed)\b|confiden|my confidence|difficulty|p\.?s\.|hint|source"
    r"|reference|i hope|hope th|let me know|please\b|thank|if you (?:have|need|want)"
    r"|feel free|time (?:taken|spent)|tokens?\b|disclaimer"
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
_CONDITION = re.compile(r"\s(?:when|if|where|whenever|for) [A-Za-z] ?=")
_OPENING = re.compile(
    r"^[\W_]*(?:(?:so|thus|therefore|hence|then|now|and|finally)[, ]+)?(?:since|because|as|if|given|when|after|having"
    r"|with|for|at|over|in|by|to|from|on|out of|during|within)\b[^,]*,\s",
    re.IGNORECASE,
)
_COMPARED = re.compile(r",\s*which (?:is|are|was|were)\b.*\bthan\b", re.IGNORECASE)
_COMPLEMENT = re.compile(
    r"\b(?:for|than|in|after|before|to|of|per|over|with|between|from|by|on|at|within|every|each|during|across|into|and"
    r"|until|among|around|write|read|earn|use|travel|lose|go|get)"
    r"(?: (?:the|a|an|her|his|its|their|those|these|all|only|another))?(?: [a-z]+)? ?\$?\(?$",
    re.IGNORECASE,
)
# A number is only a qualifier after the first of these, or before the second, as long as another number is left.
_QUALIFIED_BEFORE = re.compile(
    r"(?:\b(?:in|over|for|within|during|of) the (?:next|last|past|following|coming|first|previous|whole)"
    r"|\bto (?:travel|cover|reach|finish|complete|write|read|earn|fill|drive|walk|run|plant|save|produce|build|paint"
    r"|type)(?: (?:the|all|her|his|its|a))?"
    r"|\b(?:step|part|question|problem|example|equation|line|case|year|no\.|number|out of|rated|rating|rating of"
    r"|confidence|confidence of|instead of|rather than|not)(?: is|:)?) \$?$",
    re.IGNORECASE,
)
_QUALIFIED_AFTER = re.compile(r"-[A-Za-z]|%? (?:confident|confidence|certain|sure)\b")
# "$10 for 50 minutes": of money and the time that it is for, right behind it, the money.
_PAID = re.compile(
    r"(?:\$ ?\d[\d,.]*|\d[\d,.]* (?:dollars?|cents?|euros?|pounds?))[*_]{0,2}(?: (?:left|more|total|in total|profit))?"
    r" (?:for|in|over|after|during|within)(?: (?:the|these|those|his|her|their|all|only))? $",
    re.IGNORECASE,
)
_TIME_UNIT = re.compile(r"[ -](?:second|minute|hour|day|night|week|month|year)s?\b", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:in|by|since|until|of) (?:19|20)\d\d$", re.IGNORECASE)
_CUE = re.compile(
    r"\b(?:so|thus|therefore|hence|left|total|altogether|in all|remain\w*|needs?|will|answer)\b", re.IGNORECASE
)


def conclusion(text: str) -> Decimal | None:
    """The number of the last statement that states one; the last number of all where none does."""
    if text.rstrip(" \n$*\\])").endswith("="):
        return None  # broken off before its result
    said = [(s, numbers(s)) for s in statements(tidy(text))]
    numbered = [(s, found) for s, found in said if found]
    words = spelled_numbers(said[-1][0]) if said and not said[-1][1] else []
    if words and (not numbered or _CUE.search(said[-1][0])):
        return words[-1]
    if not numbered:
        words = [w for s, _ in said for w in spelled_numbers(s)]
        return words[-1] if words else None
    last = len(numbered)
    while last > 1 and ASIDE.match(numbered[last - 1][0]):
        last -= 1
    for i in range(last - 1, -1, -1):
        number = _concluded(*numbered[i], numbered[:i])
        if number:
            return number.value
    return numbered[-1][1][-1].value


def statements(text: str) -> list[str]:
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
    condition = _CONDITION.search(text)
    if condition and found[0].end <= condition.start():
        text = text[: condition.start()]
        found = [n for n in found if n.end <= condition.start()]
    if reason and found[0].end <= reason.start():
        main = [n for n in found if n.end <= reason.start()]
        results = [n.value for n in found[len(main) :] if re.search(r"=\s*\$?$", text[: n.start][-4:])]
        confirmed = [n for n in main if n.value in results]
        if confirmed or not results:
            text, found = text[: reason.start()], confirmed or main
    opening = _OPENING.match(text)
    if opening and found[-1].start >= opening.end():
        found = [n for n in found if n.start >= opening.end()]
    result = result_of(text, found)
    if result:
        return result
    found = [n for n in found if not _is_term(text, n)]
    compared = _COMPARED.search(text)
    found = [n for n in found if not compared or n.start < compared.start()] or found
    outside = [n for n in found if text.count("(", 0, n.start) <= text.count(")", 0, n.start)]
    found = outside or found
    main = [n for n in found if not _is_qualifier(text, n)]
    found = main or found
    if len(found) > 1 and _COMPLEMENT.search(text[max(0, found[-1].start - 40) : found[-1].start]):
        computed = next((r for t, others in reversed(before) if (r := result_of(t, others))), None)
        return next((n for n in found if computed and n.value == computed.value), found[-1])
    return found[-1] if found else None


def result_of(text: str, found: list[Number]) -> Number | None:
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
    """Whether a number says how long, out of how many, in which step or year, and so on."""
    if _QUALIFIED_BEFORE.search(text[max(0, n.start - 40) : n.start]) or _QUALIFIED_AFTER.match(text, n.end):
        return True
    if _YEAR.search(text[max(0, n.start - 8) : n.end]):
        return True
    return bool(_TIME_UNIT.match(text, n.end) and _PAID.search(text[max(0, n.start - 50) : n.start]))
