r"""What number a piece of text states: the one grammar by which gold answers and completions are read.

Numbers are `Decimal`, compared as numbers and never as text. `tidy` brings a text into the plain form in which
`numbers` finds them; `gold_number` reads a text that should be one number and nothing else, and refuses all others.

- Not part of a number: ``$ % *`` and other currency signs, LaTeX commands, a final full stop. ``50%`` is 50.
- Digits of every script are digits (Arabic-Indic, full-width, mathematical); so are their separators.
- Between thousands may stand a comma, an apostrophe, an underscore, a no-break, thin or narrow space, a plain space
  (``12 500``) and, where it can mean nothing else, a full stop (``1.234.567``, ``1.234,56``). ``12,50 kg`` and
  ``€12,50`` are decimal commas; a bare ``3,4`` is two numbers.
- ``3/4``, ``\frac{3}{4}``, ``3 3/4``, ``3 and 3/4``, ``3¾`` are one number, and so are ``2 million`` and
  ``1.5 \times 10^3``.
- Unicode minus signs, dashes, ``minus 5`` and ``negative 5`` are negative; ``10-3`` and ``10 minus 3`` subtract.
- ``12:00`` is 12; another clock time (``2:30``) is no number.
- Digits inside a name (``x2``, ``H2O``), LaTeX subscripts and the exponent of a unit (``cm^2``) are not numbers.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

TOLERANCE = Decimal("1e-4")

MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"))
_VULGAR = str.maketrans(
    {sign: "\\frac{" + unicodedata.normalize("NFKC", sign).replace("\u2044", "}{") + "}" for sign in "½¼¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
)
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\u2061\ufeff\u00ad\ufe0f\u20e3\u061c", ""),  # not seen
        **dict.fromkeys("\u00a0\u2007\u2008\u2009\u200a\u202f\u205f", "\u00a0"),  # spaces that do not break
        **dict(zip("，．：％＄（）＝＋／＊＃～［］｛｝＜＞、", ",.:%$()=+/*#~[]{}<>,")),
        **{"٫": ".", "٬": ",", "٪": "%", "\u2044": "/", "\u2215": "/", "×": " * ", "✕": " * ", "·": " * ", "÷": " / "},
    }
)
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUBSCRIPT = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_CURRENCY = "$€£¥₹₩₽"


_TIDYING = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"<sup>(\d+)</sup>/<sub>(\d+)</sub>", r" \1/\2"),
        (r"(?<=[A-Za-z)])<sup>[-\d]+</sup>", ""),
        (r"(?<=\d)<sup>(-?\d+)</sup>", r"^\1"),
        (r"</?(?:b|i|u|em|strong|mark|span)(?: [^<>]{0,80})?>", ""),
        # thousands
        (r"(?<=\d)(?:\\[,!:; ]|['’ʼ`´_\u00a0])(?=\d{3}(?!\d))", ""),
        (r"(?<![\d.,/])(?<!\d )([1-9]\d{0,2}) (\d{3})(?![\d/]|[.,]?\d| \d|-[A-Za-z])", r"\1\2"),
        (r"(?<![\d.,/])(?<!\d )([1-9]\d?) (\d{3}) (\d{3})(?![\d/]|,\d| \d|-[A-Za-z])", r"\1\2\3"),
        (r"(?<=\d)\{,\}(?=\d)", ","),
        (r"(?<![\d.,])(\d{1,3})\.(\d{3})\.(\d{3})(?:\.(\d{3}))?(?![\d.]\d|\d)", r"\1\2\3\4"),
        (r"(?<![\d.,])(\d{1,3})\.(\d{3})(?:\.(\d{3}))?,(\d{1,2})(?!\d)", r"\1\2\3.\4"),
        (r"(?<=€)(\s?\d{1,3})\.(\d{3})(?![\d.,])|(?<![\d.,])(\d{1,3})\.(\d{3})(?=\s?€)", r"\1\2\3\4"),
        (rf"([{_CURRENCY}] ?\d+),(\d\d?)(?![\d,])", r"\1.\2"),
        (rf"(?<![\d.,])(\d+),(\d\d?)(?=[ \u00a0]?(?:[{_CURRENCY}%]|[A-Za-z]{{1,10}}\b))(?! (?:and|or)\b)", r"\1.\2"),
        (rf"([{_CURRENCY}] ?[\d,.]*\d)[kK]\b", r"\1 thousand"),
        # powers of ten, fractions
        (r"(?<=\d)\s*(?:\\times|\\cdot|\*|x)\s*10\s?\^\s?\{?(-?\d{1,2})\}?(?!\d)", r"e\1"),
        (r"(?<![\w.^])10\s?\^\s?\{?(\d{1,2})\}?(?!\d)", r"1e\1"),
        (r"\\[dtc]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}", r"\\frac\1/\2"),
        (r"\\[dtc]?frac\s?(\d)\s?(\d)(?!\d*/)", r"\\frac\1/\2"),
        (r"(?<![\w/.])(\d+) (?:and|&|\\&) (?:a )?(?=(?:\\frac)?\d+/\d+(?![\d/]))", r"\1 "),
        # signs
        (r"(?<=[-+])\\(?:frac(?=\d)|boxed\s*\{)", ""),  # -\frac{3}{4} and -\boxed{5} keep their sign
        (r"(?<=[=#])\s*-\s+(?=[\d$.])", " -"),  # "= - 3"; elsewhere a dash may be one between words
        (rf"(?<![\d)\]%])(?<![\d)\]%] )\b[Mm]inus (?=[{_CURRENCY}]?\.?\d)", "-"),
        (rf"\b[Nn]egative (?=[{_CURRENCY}]?\.?\d)", "-"),
        # what belongs to words and units
        (r"\\([$%#&])", r"\1"),
        (r"(?<=[A-Za-z}])\s?\^\s?\{?[-\d]+\}?", ""),  # cm^2, \text{m}^{2}
        (r"(?<=[A-Za-z])_\{?\w+\}?(?![\w_])", ""),  # x_1
        (r"\\(?:times|cdot|ast)(?![A-Za-z])", " * "),
        (r"\\div(?![A-Za-z])", " / "),
        (r"\\(?:left|right|quad|qquad|displaystyle|[a-z]*box|frac(?=\d))(?![A-Za-z])", " "),
        (r"\\[A-Za-z]+", " "),  # \text, \mathrm
        (rf"\b(?:US|AU|CA|NZ|HK|USD|EUR|GBP|CAD|AUD|INR|Rs\.?)(?=\s?[{_CURRENCY}\d])", ""),
        (r"(?<=[-+])[$€£¥₹₩₽]\s?", ""),  # -$5 keeps its sign
        (r"[€£¥₹₩₽]", "$"),
        # clock times
        (r"(?<![\d:.])(0?\d|1\d|2[0-4]):00(?::00)?(?![\d:])", r"\1"),
        (r"(?<![\d:.])(?:0?\d|1\d|2[0-4]):[0-5]\d(?::[0-5]\d)?(?![\d:])", "clock"),
    )
)
_SIGN = r"(?P<sign>(?<![\w)\]}%])[-+])?"
_NUMBER = re.compile(
    rf"(?<![A-Za-z\d]){_SIGN}(?:"
    r"(?<![\d/])(?:(?P<whole>\d+)\s{1,2})?(?P<top>\d+)/(?P<bottom>\d+)(?![\d/])"
    r"|(?P<plain>(?:\d{1,3}(?:,\d{2})*(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<![\w.])\.\d+)"
    r"(?:[eE][-+]?\d{1,2}(?!\w))?))"
    r"(?:[ \u00a0-](?P<scale>hundred|thousand|million|billion|trillion)\b)?"
)


@dataclass(frozen=True)
class Number:
    """A number and where it stands in the tidied text: characters ``[start, end)``."""

    value: Decimal
    start: int
    end: int


def plain_characters(text: str) -> str:
    """The text with digits of every script as ASCII, one kind of minus and of no-break space, and nothing invisible."""
    if not text.isascii():
        text = re.sub(r"([⁰¹²³⁴-⁹]+)[\u2044/]([₀-₉]+)", _small_fraction, text)
        text = text.translate(MINUS).translate(_VULGAR).translate(_SIGNS)
        text = re.sub(r"(?<=10)[⁻]?[⁰¹²³⁴-⁹]+", lambda m: "^" + m[0].translate(_SUPERSCRIPT), text)
        text = re.sub(r"[^\x00-\x7f]", lambda m: str(unicodedata.decimal(m[0], m[0])), text)
    return text


def _small_fraction(match: re.Match[str]) -> str:
    return f" {match[1].translate(_SUPERSCRIPT)}/{match[2].translate(_SUBSCRIPT)}"


def tidy(text: str) -> str:
    """The text in the plain form that `numbers` reads; lines stay lines, emphasis stays."""
    text = plain_characters(text)
    for pattern, replacement in _TIDYING:
        text = pattern.sub(replacement, text)
    return text


def numbers(tidied: str) -> list[Number]:
    """All numbers of a tidied text, in order."""
    return [Number(_value(m), m.start(), m.end()) for m in _NUMBER.finditer(_unpriced(tidied))]


def number_at(tidied: str, position: int) -> Number | None:
    """The number that begins at ``position`` of a tidied text, if one does."""
    match = _NUMBER.match(_unpriced(tidied), position)
    return Number(_value(match), match.start(), match.end()) if match else None


def _unpriced(text: str) -> str:
    return text.replace("$", " ")


def _value(match: re.Match[str]) -> Decimal:
    """The number that `_NUMBER` matched; a fraction of zero is its numerator (``24/0``)."""
    if match["plain"]:
        value = Decimal(match["plain"].replace(",", ""))
    else:
        value = Decimal(match["top"]) / (Decimal(match["bottom"]) or Decimal(1)) + Decimal(match["whole"] or 0)
    if match["scale"]:
        value = value.scaleb(_SCALES[match["scale"]])
    return -value if match["sign"] == "-" else value


def numbers_equal(a: Decimal | None, b: Decimal | None, tolerance: Decimal = TOLERANCE) -> bool:
    """Whether two numbers are the same within an absolute tolerance; a missing number equals nothing."""
    return a is not None and b is not None and abs(a - b) <= tolerance


_FINAL = re.compile(r"#{4,}\s*([^\n]*\S)\s*\Z")
# What may stand around the one number of a gold answer: emphasis and currency before it, units behind it.
_AROUND = re.compile(r"[\s$*_~`({\[=]*\Z"), re.compile(r"[\s$%*_~`)}\].,;!]*(?:[A-Za-z/ .*_)}]*)\Z")


def gold_number(text: str) -> Decimal | None:
    """The number that a gold answer states; None for what cannot be compared (NaN, 1e400, two numbers, words, 1/0).

    >>> [str(gold_number(text)) for text in ("$18", "18.", "1/2", "50%", "1e5", "18 eggs", "NaN", "1e400", "3 or 4")]
    ['18', '18', '0.5', '50', '1E+5', '18', 'None', 'None', 'None']
    """
    text = tidy(text.strip())
    found = numbers(text)
    if len(found) != 1 or re.search(r"/0+(?![\d.])", text) or "clock" in text:
        return None
    before, after = text[: found[0].start], text[found[0].end :]
    return found[0].value if _AROUND[0].match(before) and _AROUND[1].match(after) else None


@dataclass(frozen=True)
class FinalNumber:
    """The ``#### N`` that a worked answer ends in.

    Attributes:
        text: What stands behind the marker.
        value: The number that it states; None where it is no number that can be compared.
        start: Where the characters of N begin in the answer.
        end: Where they end.
    """

    text: str
    value: Decimal | None
    start: int
    end: int


def final_number(answer: str) -> FinalNumber | None:
    """The ``#### N`` at the end of an answer; None where the answer does not end in a line with that marker."""
    match = _FINAL.search(answer)
    if match is None:
        return None
    digits = re.search(r"[-+\u2212]?(?:\d|\.\d)(?:.*\d)?", match[1])
    start, end = digits.span() if digits else (0, len(match[1]))
    return FinalNumber(match[1], gold_number(match[1]), match.start(1) + start, match.start(1) + end)


_TEENS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
_UNITS = {word: value for value, word in enumerate(_TEENS.split())}
_TIES = """twenty thirty forty fifty sixty seventy eighty ninety"""
_TENS = {word: 10 * value for value, word in enumerate(_TIES.split(), start=2)}
_WORD = "|".join((*_TENS, *sorted(_UNITS, key=len, reverse=True)))
_SPELLED = re.compile(
    rf"(?<![\w-])(?:{_WORD})(?:(?:[ -]| and |, )(?:{_WORD}|hundred|thousand|million))*(?![\w-])(?! of\b)", re.IGNORECASE
)


def spelled_numbers(text: str) -> list[Decimal]:
    """Numbers in English words, in order; ``one`` is 1, though it is a pronoun as often.

    >>> spelled_numbers("twenty-four, or one hundred and five")
    [Decimal('24'), Decimal('105')]
    """
    found = []
    for match in _SPELLED.finditer(text):
        total = group = 0
        for word in re.findall(r"[a-z]+", match[0].lower()):
            if word == "hundred":
                group = (group or 1) * 100
            elif word in _SCALES:
                total, group = total + (group or 1) * 10 ** _SCALES[word], 0
            elif word != "and":
                group += {**_UNITS, **_TENS}[word]
        found.append(Decimal(total + group))
    return found
