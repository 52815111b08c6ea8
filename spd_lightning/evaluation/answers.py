r"""Stage 4: what a completion answered. Pure functions from text to answer, with the reason beside it.

Every extractor first cuts the text at the first stop string, since a model that goes on to ask itself the next question
would otherwise be scored on that one. Numbers are compared as numbers (`Decimal`), never as text.

Decisions, each shown in ``tests/unit/test_answers.py``:

- ``strict`` reads the number right after the last ``####`` (the last, because models correct themselves or recite
  solved examples first); ``flexible`` reads the last number of the text, as the field and the paper do.
- Not part of a number: ``$ % *`` and other currency signs, ``\boxed{}`` and other LaTeX commands, a final full stop,
  commas and no-break spaces between thousands.
- ``3/4``, ``\frac{3}{4}``, ``1 1/2`` and ``1½`` are one number; ``10-3`` is a subtraction and ends in 3, ``= -3`` and
  ``= - 3`` are negative; Unicode minus signs and dashes stand for a minus.
- Digits inside a name (``x2``, ``H2O``), LaTeX subscripts and the exponent of a unit (``cm^2``) are not numbers.
- Not read: number words, European decimal commas (``1,5`` ends in 5), clock times and ratios (``2:30`` ends in 30),
  scale words (``5 million`` is 5).
- A letter is the one that an ``answer is`` names, else the first that stands alone; the article in "A good reason"
  and the letter in "D'Artagnan" or "B-12" are not answers.
"""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings
from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

NumberMode = Literal["strict", "flexible"]

# Where a completion begins a turn of its own. "Question" alone would also fire on reasoning about "the Question".
NEXT_TURN = ("\nQuestion:", "\n\nQuestion", "\nQ:", "\nInstruction:")
TOLERANCE = Decimal("1e-4")

_MINUS = str.maketrans({"\u2212": "-", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\ufe63": "-"})
_VULGAR = str.maketrans(
    {sign: "\\frac{" + unicodedata.normalize("NFKC", sign).replace("\u2044", "}{") + "}" for sign in "½¼¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
)
_CLEANING = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("\uff0d", "-"),  # full-width minus
        (r"(?<=\d)(?:\\[,!:;]|[\u00a0\u202f\u2009])(?=\d{3}(?!\d))", ""),  # spaces between thousands
        (r"(?<=\d)\{,\}(?=\d)", ","),
        (r"\\[dtc]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}", r"\\frac\1/\2"),
        (r"\\[dtc]?frac\s?(\d)\s?(\d)(?!\d*/)", r"\\frac\1/\2"),
        (r"(?<=[-+])\\(?:frac(?=\d)|boxed\s*\{)", ""),  # -\frac{3}{4} and -\boxed{5} keep their sign
        (r"(?<=[=#])\s*-\s+(?=[\d$.])", " -"),  # "= - 3"; elsewhere a dash may be one between words
        (r"\\([$%#])", r"\1"),
        (r"(?<=[A-Za-z}])\s?\^\s?\{?[-\d]+\}?", ""),  # cm^2, \text{m}^{2}
        (r"(?<=[A-Za-z])_\{?\w+\}?(?![\w_])", ""),  # x_1
        (r"\\[A-Za-z]+", " "),  # \boxed, \text, \times
        (r"\b(?:US|AU|CA|NZ|HK|USD|EUR|GBP|CAD|AUD|INR|Rs\.?)(?=\s?[$\d])", ""),
        (r"(?<=[-+])[$€£¥₹]\s?", ""),  # -$5 keeps its sign
        (r"[$€£¥₹]", " "),
    )
)
_SIGN = r"(?P<sign>(?<![\w)\]}%])[-+])?"
_NUMBER = re.compile(
    rf"(?<![A-Za-z\d]){_SIGN}(?:"
    r"(?<![\d/])(?:(?P<whole>\d+)\s{1,2})?(?P<top>\d+)/(?P<bottom>\d+)(?![\d/])"
    r"|(?P<plain>(?:\d{1,3}(?:,\d{2})*(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<![\w.])\.\d+)"
    r"(?:[eE][-+]?\d{1,2}(?!\w))?))"
)
# What may not follow a letter that is an answer: the rest of a name (B-12, D'Artagnan, C++, D.C.), or, after the
# article A and the pronoun I, a word in lower case that is none of those which follow a choice.
_LETTER_END = (
    r"(?![\w#+]|['’-]\w|\.[A-Z]\.)"
    r"(?!(?<=[AI]) (?!(?:is|was|and|or|because|since|as|would|seems)\b)[a-z])"
)
_MARKER = re.compile(r"#{4,}[\s*_`:={(\[\\\"'“‘~≈]*")


def cut_at_stops(text: str, stops: Iterable[str]) -> str:
    """The text before the first of the stop strings; all of it where none occurs."""
    positions = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(positions)] if positions else text


def evaluation_stops(
    answer_type: str, stop: tuple[str, ...], protocol: str = "standard", prompt_format: str = "plain"
) -> tuple[str, ...]:
    """Where completions are cut before they are judged.

    The published protocol cuts nowhere; the stop strings of base models would ruin a chat model's code.

    Args:
        answer_type: Of the task or benchmark.
        stop: Its own stop strings.
        protocol: ``standard`` or ``paper``.
        prompt_format: ``plain`` or ``chat``.
    """
    if prompt_format == "chat" and answer_type == "program":
        return ()
    return stop or (() if protocol == "paper" else NEXT_TURN)


def extract_number(
    text: str, mode: NumberMode = "strict", stops: Iterable[str] = NEXT_TURN
) -> tuple[Decimal | None, str]:
    """The number that a completion answers with, and why.

    Args:
        text: The completion.
        mode: ``strict`` (after the last ``####``) or ``flexible`` (the last number of all).
        stops: The text is cut before the first of these.

    Returns:
        The number and ``"marker"`` or ``"last number"``; or None and what was missing: ``"empty completion"``,
        ``"no #### marker"``, ``"no number after ####"`` or ``"no number"``.
    """
    if mode not in ("strict", "flexible"):
        raise ValueError(f"mode={mode!r} is not known. Use 'strict' or 'flexible'.")
    text = cut_at_stops(text, stops)
    if not text.strip():
        return None, "empty completion"
    text = text.translate(_MINUS).translate(_VULGAR)
    for pattern, replacement in _CLEANING:
        text = pattern.sub(replacement, text)
    if mode == "flexible":
        numbers = list(_NUMBER.finditer(text))
        return (_value(numbers[-1]), "last number") if numbers else (None, "no number")
    markers = list(_MARKER.finditer(text))
    for marker in reversed(markers):
        number = _NUMBER.match(text, marker.end())
        if number:
            return _value(number), "marker"
    return None, "no number after ####" if markers else "no #### marker"


def _value(match: re.Match[str]) -> Decimal:
    """The number that `_NUMBER` matched; a fraction of zero is its numerator (``24/0``)."""
    if match["plain"]:
        value = Decimal(match["plain"].replace(",", ""))
    else:
        value = Decimal(match["top"]) / (Decimal(match["bottom"]) or Decimal(1)) + Decimal(match["whole"] or 0)
    return -value if match["sign"] == "-" else value


def numbers_equal(a: Decimal | None, b: Decimal | None, tolerance: Decimal = TOLERANCE) -> bool:
    """Whether two numbers are the same within an absolute tolerance; a missing number equals nothing."""
    return a is not None and b is not None and abs(a - b) <= tolerance


def extract_letter(text: str, letters: str = "ABCD", stops: Iterable[str] = NEXT_TURN) -> tuple[str | None, str]:
    """The choice that a completion names, and why.

    Args:
        text: The completion.
        letters: The allowed letters, upper case.
        stops: The text is cut before the first of these.

    Returns:
        The letter and ``"boxed"``, ``"answer is"``, ``"letter"`` or ``"lower case"`` (the rule that found it, tried in
        this order); or None and ``"empty completion"`` or ``"no letter"``.
    """
    text = cut_at_stops(text, stops)
    if not text.strip():
        return None, "empty completion"
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*\{\s*([A-Za-z])\s*\}", r"\1", text)
    upper, lower = f"[{letters}]", f"[{letters.lower()}]"
    named = r"(?:\b[Aa]nswer\b\W{0,6}(?:is\b\W{1,6})?|\b(?:[Oo]ption|[Cc]hoice)\W{1,4}is\W{1,6})"
    named += r"(?:(?:[Oo]ption|[Cc]hoice|[Ll]etter)\W{1,4})?"
    for reason, pattern in (
        ("boxed", rf"\\boxed\s*\{{\W*({upper}|{lower})\b"),
        ("answer is", rf"{named}({upper}){_LETTER_END}"),
        ("answer is", rf"{named}({lower})(?=\W*$)|{named}(?<=\()({lower})\)"),
    ):
        matches = re.findall(pattern, text)
        if matches:  # the last one: models correct themselves
            return "".join(matches[-1]).upper(), reason
    match = re.search(rf"(?<![\w°'’-])(?<![A-Z]\.)(?<!not )({upper}){_LETTER_END}", text)
    if match:
        return match[1], "letter"
    match = re.search(rf"\(({lower})\)", text) or re.match(rf"\W*({lower})(?:[).:]\s|[\W_]*$)", text)
    return (match[1].upper(), "lower case") if match else (None, "no letter")


def normalise_text(text: str) -> str:
    """The form in which texts are compared: lower case, single spaces, no emphasis, quotes or final punctuation.

    A leading "the answer is" or "answer:" is dropped, and the brackets around a single letter: ``(B).`` becomes ``b``.
    """
    text = " ".join(text.casefold().split())
    text = re.sub(r"^[*_`\s]*(?:(?:so )?the (?:correct |final )?answer is:?|answer:)[*_`\s]*", "", text)
    text = text.translate(_MINUS).replace("**", "").replace("`", "")
    text = re.sub(r"^([*_])(\w.*)\1(\W*)$", r"\2\3", text)
    text = text.strip().strip("\"'“”‘’").rstrip(".,;:!").strip().strip("\"'“”‘’")
    return re.sub(r"^\((\w)\)$", r"\1", text)


def extract_text(text: str, expected: str, stops: Iterable[str] = NEXT_TURN) -> tuple[str | None, str]:
    """The text that a completion answers with, normalised: its first line, or as many lines as ``expected`` has.

    Returns:
        The text and ``"first line"`` or ``"lines"``; or None and ``"empty completion"``.
    """
    lines = [line for line in cut_at_stops(text, stops).splitlines() if line.strip()]
    count = max(1, sum(1 for line in expected.splitlines() if line.strip()))
    if not lines:
        return None, "empty completion"
    return normalise_text("\n".join(lines[:count])), "first line" if count == 1 else "lines"


_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*(\w[\w+#-]*)?[ \t]*\r?$\n?", re.MULTILINE)


def extract_code(completion: str) -> str:
    """The program text of a completion: its first fenced block if there is one, else all of it.

    An unclosed block goes to the end. A single fence without a language that follows Python closes the code that stands
    before it (the completion continued code, then began to explain).
    """
    fences = list(_FENCE.finditer(completion))
    if not fences:
        return completion
    first = fences[0]
    before = completion[: first.start()]
    if first[1] is None and before.strip() and parses(before):
        return before
    return completion[first.end() : fences[1].start() if len(fences) > 1 else len(completion)]


def parses(code: str) -> bool:
    """Whether a text is Python of today's grammar; an empty one is not.

    Code that is indented as a whole counts (a function's body, a block in a list), and so does a stray first space.
    """
    # A block is read as one. Taking off the common margin would not do: a text in quotes or a comment may start at 0.
    return _parses(code.strip()) or _parses(f"if True:\n{code}")


def _parses(code: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a model's string
            return bool(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def holds_answer(completion: str, answer_type: str) -> bool:
    """Whether a completion has what could be scored: a number, a letter, a program that parses, or any text."""
    if answer_type == "number":
        return extract_number(completion, "flexible")[0] is not None
    if answer_type == "letter":
        return extract_letter(completion)[0] is not None
    if answer_type in ("program", "likelihood"):
        return parses(extract_code(completion))
    return bool(completion.strip())
