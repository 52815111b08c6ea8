"""Numbers in texts: what is one number, where it stands, what a gold answer may be."""

from __future__ import annotations

from decimal import Decimal

import pytest

from spd_lightning.tasks.numbers import (
    final_number,
    gold_number,
    number_at,
    numbers,
    numbers_equal,
    plain_characters,
    spelled_numbers,
    tidy,
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("12 500 of 1.234.567 and 1,250", ["12500", "1234567", "1250"]),
        ("3,4", ["3", "4"]),  # two numbers
        ("12,50 kg and €12,50", ["12.5", "12.5"]),
        ("3 3/4, 3¾ and \\frac{3}{4}", ["3.75", "3.75", "0.75"]),
        ("2 million, 1.5 \\times 10^3", ["2000000", "1500"]),
        ("minus 5, −5 and 10-3", ["-5", "-5", "10", "3"]),
        ("12:00 is a number, 2:30 is none", ["12"]),
        ("x2, H2O and 4 cm^2", ["4"]),
        ("٣٫٥ and １２", ["3.5", "12"]),
    ],
)
def test_numbers_of_a_text(text: str, values: list[str]) -> None:
    assert [number.value for number in numbers(tidy(text))] == [Decimal(value) for value in values]


def test_a_number_stands_where_it_says() -> None:
    text = tidy("She pays $18 and gets -2.5 back")
    found = numbers(text)
    assert [text[n.start : n.end].strip() for n in found] == ["18", "-2.5"]
    assert number_at(text, found[0].start) == found[0]
    assert number_at(text, 0) is None


def test_invisible_characters_and_scripts_are_made_plain() -> None:
    assert plain_characters("1\u200b2\u2212³") == "12-³"
    assert plain_characters("plain") == "plain"


@pytest.mark.parametrize("text", ["NaN", "1e400", "3 or 4", "1/0", "eighteen", ""])
def test_what_cannot_be_compared_is_no_gold_number(text: str) -> None:
    assert gold_number(text) is None


def test_equal_is_within_a_tolerance_and_nothing_equals_a_missing_number() -> None:
    assert numbers_equal(Decimal("0.3333"), Decimal(1) / 3)
    assert not numbers_equal(Decimal("0.333"), Decimal(1) / 3)
    assert not numbers_equal(None, None)


def test_the_marked_number_at_the_end() -> None:
    answer = "9 * 2 = $18 a day\n#### $1,250"
    final = final_number(answer)
    assert final is not None
    assert (final.text, final.value, answer[final.start : final.end]) == ("$1,250", Decimal(1250), "1,250")
    unread = final_number("#### some")
    assert unread is not None and unread.value is None
    assert final_number("#### 18\nand more") is None


def test_words() -> None:
    assert spelled_numbers("Twenty-one thousand and three, not none; one of them") == [Decimal(21003)]
