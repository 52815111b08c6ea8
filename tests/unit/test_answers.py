r"""Strings that models really write, and what they answered."""

from __future__ import annotations

from decimal import Decimal

import pytest

from spd_lightning.evaluation.answers import (
    cut_at_stops,
    extract_code,
    extract_letter,
    extract_number,
    extract_text,
    holds_answer,
    normalise_text,
    numbers_equal,
    parses,
)
from spd_lightning.evaluation.metrics import ParseRate

FLEXIBLE = [
    ("18", "18"),
    ("18.", "18"),
    ("18.0", "18"),
    ("18.00", "18"),
    ("0018", "18"),
    ("-3", "-3"),
    ("The change is -3.", "-3"),
    ("+7", "7"),
    ("\u22123", "-3"),
    ("The temperature is \u201312 degrees", "-12"),
    ("Answer:-4", "-4"),
    ("x = -5", "-5"),
    ("10-3", "3"),
    ("10 - 3 = 7", "7"),
    ("10-3=7", "7"),
    ("pages 5\u201310", "10"),
    ("COVID-19", "19"),
    ("$18", "18"),
    ("$1,000.", "1000"),
    ("$29.00", "29"),
    ("\\$29.00", "29"),
    ("$ 1,234,567.89 in all", "1234567.89"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("\u2212$1,250", "-1250"),
    ("US$40", "40"),
    ("USD 40", "40"),
    ("Rs.500", "500"),
    ("\u20ac12.50", "12.5"),
    ("12\u20ac", "12"),
    ("\u00a330 left", "30"),
    ("$.50", "0.5"),
    (".75", "0.75"),
    ("ends.5", "5"),
    ("25%", "25"),
    ("25\\%", "25"),
    ("**18**", "18"),
    ("**$18**", "18"),
    ("*18*.", "18"),
    ("__18__", "18"),
    ("`18`", "18"),
    ("The answer is **18**.", "18"),
    ("\\boxed{7}", "7"),
    ("$\\boxed{-7}$.", "-7"),
    ("\\boxed{\\$1,200}", "1200"),
    ("\\boxed{18\\text{ dollars}}", "18"),
    ("\\[ 6 \\times 3 = 18 \\]", "18"),
    ("6\\times3=18", "18"),
    ("\\(18\\)", "18"),
    ("1{,}000", "1000"),
    ("1\\,000", "1000"),
    ("1\u202f000 euros", "1000"),
    ("1\u00a0234\u00a0567", "1234567"),
    ("1,000", "1000"),
    ("1,00,000", "100000"),
    ("12,345", "12345"),
    ("3, 4", "4"),
    ("3,4", "4"),
    ("2, 4, 1000", "1000"),
    ("3/4", "0.75"),
    ("1 1/2 cups", "1.5"),
    ("\\frac{3}{4}", "0.75"),
    ("\\dfrac{1}{2}", "0.5"),
    ("-1/2", "-0.5"),
    ("-\\frac{1}{2}", "-0.5"),
    ("\\boxed{-\\frac{3}{4}}", "-0.75"),
    ("5\\frac{1}{2}", "5.5"),
    ("10-\\frac{1}{2}", "0.5"),
    ("\\frac{12}{5}", "2.4"),
    ("\\frac34", "0.75"),
    ("\\frac 3 4", "0.75"),
    ("$-\\boxed{5}$", "-5"),
    ("\u00bd", "0.5"),
    ("2\u00bd cups", "2.5"),
    ("3 \u00be", "3.75"),
    ("-\u00bd", "-0.5"),
    ("3 - 7 = - 4", "-4"),
    ("= \u2212 18", "-18"),
    ("in all - 18", "18"),
    ("10/2 = 5", "5"),
    ("24/0", "24"),
    ("on 12/25/2024", "2024"),
    ("5kg", "5"),
    ("5 kg.", "5"),
    ("60 miles/hour", "60"),
    ("25 cm^2", "25"),
    ("25 \\text{ cm}^{2}", "25"),
    ("25 m\u00b2", "25"),
    ("2^3 = 8", "8"),
    ("18 litres of H2O", "18"),
    ("18 = x2", "18"),
    ("x_1 is 4 and so is x_2", "4"),
    ("1e3", "1000"),
    ("1.5E+2", "150"),
    ("2e", "2"),
    ("1.2.3", "3"),
    ("18!", "18"),
    ("18?", "18"),
    ("(18)", "18"),
    ("[18]", "18"),
    ("18\u2026", "18"),
    ("\uff11\uff18", "18"),
    ("So 9 * 2 = <<9*2=18>>18 dollars", "18"),
    ("He pays 5 and gets 3 back", "3"),
    ("#### 18", "18"),
    ("... so\n#### 18\n\nQuestion: 5 + 5?\nAnswer: #### 10", "18"),
    ("18\nQuestion: and 40?", "18"),
    ("18\n\nQuestion 2: and 40?", "18"),
    ("The Question: asks for 18", "18"),
    ("1. First\n2. Second\nTotal: 7", "7"),
    ("eighteen", None),
    ("no idea", None),
    ("", None),
    (" \n", None),
    ("\nQuestion: 5?", None),
]
STRICT = [
    ("#### 18", "18", "marker"),
    ("####18", "18", "marker"),
    ("So it is 18.\n#### 18.", "18", "marker"),
    ("#### $18", "18", "marker"),
    ("#### \\$1,000.00", "1000", "marker"),
    ("#### **18**", "18", "marker"),
    ("**#### 18**", "18", "marker"),
    ("#### -3", "-3", "marker"),
    ("#### \u22123", "-3", "marker"),
    ("#### \\boxed{18}", "18", "marker"),
    ("#### 18 dollars", "18", "marker"),
    ("#### 18 apples in 3 bags", "18", "marker"),
    ("#### 3/4", "0.75", "marker"),
    ("#### \u00bd", "0.5", "marker"),
    ("#### \\(18\\)", "18", "marker"),
    ("#### \\frac{3}{4}", "0.75", "marker"),
    ("#### [18]", "18", "marker"),
    ('#### "18"', "18", "marker"),
    ("#### ~18", "18", "marker"),
    ("#### - 18", "-18", "marker"),
    ("####\n18", "18", "marker"),
    ("#### 12\nWait, that is wrong.\n#### 14", "14", "marker"),
    ("#### 12\n####", "12", "marker"),
    ("#### 18\nQuestion: 5 + 5\nAnswer: 10\n#### 10", "18", "marker"),
    ("The answer is 18", None, "no #### marker"),
    ("### 18", None, "no #### marker"),
    ("#### eighteen", None, "no number after ####"),
    ("#### The answer is 18", None, "no number after ####"),
    ("", None, "empty completion"),
]
LETTERS = [
    ("A", "A"),
    (" B", "B"),
    ("C.", "C"),
    ("D)", "D"),
    ("(B)", "B"),
    ("B. Paris", "B"),
    ("B: Paris", "B"),
    ("**C**", "C"),
    ("\nD\n", "D"),
    ("The answer is (B).", "B"),
    ("The answer is B", "B"),
    ("The correct answer is: **D**", "D"),
    ("Answer: C", "C"),
    ("answer C", "C"),
    ("The answer is option B.", "B"),
    ("The correct option is C", "C"),
    ("A good reason to pick B", "B"),
    ("A is correct", "A"),
    ("A because of gravity", "A"),
    ("Option A is wrong. The answer is (C)", "C"),
    ("The answer is (A). No, the answer is (D).", "D"),
    ("\\boxed{B}", "B"),
    ("$\\boxed{\\text{C}}$", "C"),
    ("(b)", "B"),
    ("b", "B"),
    ("b.", "B"),
    ("b) Paris", "B"),
    ("d. Paris", "D"),
    ("a: Paris", "A"),
    ("a.m. trains", None),
    ("The answer is (c), since", "C"),
    ("the answer is d.", "D"),
    ("D'Artagnan, so C", "C"),
    ("Vitamins B-12 point to C", "C"),
    ("In Washington D.C. it is B", "B"),
    ("C++ or A", "A"),
    ("25\u00b0C makes it D", "D"),
    ("not A but C", "C"),
    ("B\nQuestion: next\nAnswer: C", "B"),
    ("E", None),
    ("a good one", None),
    ("Because", None),
    ("None of these", None),
    ("", None),
]
TEXTS = [
    ("True", "true"),
    (" True.", "true"),
    ("**Yes**", "yes"),
    ("*True*.", "true"),
    ("_True_", "true"),
    ("\u22125", "-5"),
    ("The answer is no.", "no"),
    ("(B)", "b"),
    ("So the answer is (B).", "b"),
    ("Answer: valid", "valid"),
    ('"plausible"', "plausible"),
    ("two   words ", "two words"),
    ("] ) }", "] ) }"),
    ("(B) The blue car", "(b) the blue car"),
]


def test_the_tables_are_as_long_as_promised() -> None:
    assert len(FLEXIBLE) + len(STRICT) + len(LETTERS) + len(TEXTS) >= 120


@pytest.mark.parametrize(("text", "expected"), FLEXIBLE)
def test_flexible_number(text: str, expected: str | None) -> None:
    value, reason = extract_number(text, "flexible")
    assert value == (None if expected is None else Decimal(expected))
    assert reason == "last number" if expected is not None else reason in ("no number", "empty completion")


@pytest.mark.parametrize(("text", "expected", "reason"), STRICT)
def test_strict_number(text: str, expected: str | None, reason: str) -> None:
    assert extract_number(text, "strict") == (None if expected is None else Decimal(expected), reason)


@pytest.mark.parametrize(("text", "expected"), LETTERS)
def test_letter(text: str, expected: str | None) -> None:
    assert extract_letter(text)[0] == expected


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_text(text: str, expected: str) -> None:
    assert extract_text(text, "one line") == (expected, "first line")


def test_other_letters_and_other_stops() -> None:
    assert extract_letter("The answer is (F).", "ABCDEF") == ("F", "answer is")
    assert extract_letter("I think it is G", "ABCDEFGHI") == ("G", "letter")
    assert extract_number("18\nQuestion: 20", "flexible", stops=()) == (Decimal(20), "last number")


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode='loose'"):
        extract_number("1", "loose")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["9" * 5000, "1e99", "," * 5000, "-" * 5000 + "1", "1," * 3000, "a_" * 5000])
def test_hostile_text_takes_no_time(text: str) -> None:
    import time

    start = time.perf_counter()
    value, _ = extract_number(text, "flexible")
    extract_letter(text)
    numbers_equal(value, Decimal(18))
    assert time.perf_counter() - start < 1.0


def test_numbers_are_compared_as_numbers_within_the_published_tolerance() -> None:
    assert numbers_equal(Decimal("18.00"), Decimal("18"))
    assert numbers_equal(Decimal("0.33333"), Decimal("0.3333"))
    assert not numbers_equal(Decimal("8.5"), Decimal("9"))
    assert not numbers_equal(None, None)


def test_the_first_stop_in_the_text_cuts_whatever_its_place_in_the_list() -> None:
    assert cut_at_stops("a STOP b HALT c", ("HALT", "STOP")) == "a "
    assert cut_at_stops("abc", ("x", "")) == "abc"


def test_texts_of_several_lines_are_compared_whole() -> None:
    assert extract_text("one\n\nTwo.\nthree", "One\nTwo") == ("one two", "lines")
    assert extract_text("\n\nTrue\nbecause", "True") == ("true", "first line")
    assert extract_text(" \n", "True") == (None, "empty completion")
    assert normalise_text("One\nTwo.") == "one two"


CODE = [
    ("def f():\n    return 1\n", "def f():\n    return 1\n"),
    ("Sure!\n```python\ndef f():\n    return 1\n```\nDone.", "def f():\n    return 1\n"),
    ("```\nx = 1\n```", "x = 1\n"),
    ("```py\nx = 1\n```\nor\n```python\nx = 2\n```", "x = 1\n"),
    ("```python\nx = 1\n", "x = 1\n"),
    ("Here is the code:\n```\nx = 1\n", "x = 1\n"),
    ("    return x + 1\n```\nThis adds one.", "    return x + 1\n"),
    ("~~~python\nx = 1\n~~~", "x = 1\n"),
    ("```python\r\nx = 1\r\n```", "x = 1\r\n"),
    ("s = '```'\n", "s = '```'\n"),
    ("", ""),
]


@pytest.mark.parametrize(("completion", "code"), CODE)
def test_code(completion: str, code: str) -> None:
    assert extract_code(completion) == code


def test_parses() -> None:
    assert parses("x = '\\d'")
    assert not parses("")
    assert not parses("x = \x00")
    assert not parses("(" * 10_000)
    assert not parses("here is")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("    total = 1\n    return total\n", True),  # the body of a function, as HumanEval asks for it
        ("\n\tx = 1\n\ty = 2", True),
        ("  def f():\n      return 1\n  f()", True),
        ('    s = """\nat the margin\n"""\n    return s', True),  # what stands in quotes is no indentation
        ("# told first\n    x = 1\n    y = 2", True),
        (" x = 1\ny = 2", True),  # a stray first space, as decoders leave it
        ("    x = 1\n  y = 2", False),
        ("x = 1\n    y = 2", False),
        ("    # nothing but words", False),
    ],
)
def test_code_indented_as_a_whole_parses(code: str, expected: bool) -> None:
    assert parses(code) is expected
    assert holds_answer(code, "program") is expected
    assert ParseRate().compute(predictions=[code, f"Here:\n```python\n{code}\n```"])["parse_rate"] == float(expected)


@pytest.mark.parametrize(
    ("completion", "answer_type", "expected"),
    [
        ("so 7", "number", True),
        ("no idea", "number", False),
        (" B.", "letter", True),
        (" hm", "letter", False),
        ("```python\nx = 1\n```", "program", True),
        ("def f(:", "program", False),
        ("    return x + 1\n", "program", True),
        ("", "program", False),
        ("x = 1", "likelihood", True),
        (" yes", "text", True),
        (" \n", "text", False),
    ],
)
def test_holds_answer(completion: str, answer_type: str, expected: bool) -> None:
    assert holds_answer(completion, answer_type) is expected
