"""Rows whose gold answer nothing could match are told from those that something can."""

from __future__ import annotations

from typing import Any

import pytest

from spd_lightning.tasks import golds

CHOICES = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("check", "good", "bad", "words"),
    [
        (golds.marked_number, {"answer": "1 + 1\n#### 2"}, {"answer": "two"}, "does not end in '#### N'"),
        (golds.marked_number, {"answer": "#### 50%"}, {"answer": "#### NaN"}, "'#### NaN', but N must be one finite"),
        (golds.stated_number, {"Answer": 2.5}, {"Answer": float("inf")}, "is inf, which no answer equals"),
        (golds.stated_number, {"Answer": -3.0}, {"Answer": 1234567890.123}, "ten digits do not hold"),
        (golds.four_choices, {"choices": CHOICES, "answer": 3}, {"choices": CHOICES, "answer": 4}, "4 choices"),
        (golds.four_choices, {"choices": CHOICES, "answer": 0}, {"choices": CHOICES[:3], "answer": 0}, "3 choices"),
        (
            golds.some_choices,
            {"choices": CHOICES[:3], "answer": 2},
            {"choices": ["a", 1], "answer": 0},
            "a list of tex",
        ),
        (golds.some_choices, {"choices": ["a"], "answer": 0}, {"choices": ["a"], "answer": 1}, "none of them"),
        (golds.comparable_text, {"target": "(A)"}, {"target": " '.' "}, "which says nothing"),
        (
            golds.humaneval_test,
            {"prompt": "def f():", "test": "def check(f):\n    assert f(1)", "entry_point": "f"},
            {"prompt": "def f():", "test": "assert f(1)", "entry_point": "f"},
            "defines check()",
        ),
        (
            golds.humaneval_test,
            {"prompt": "def f():", "test": "def check(f): pass", "entry_point": "f"},
            {"prompt": "def f():", "test": "def check(f): pass", "entry_point": "f(1)"},
            "the name of a function",
        ),
        (
            golds.humaneval_test,
            {"prompt": "def f():", "test": "def check(f): pass", "entry_point": "f"},
            {"prompt": " \n", "test": "def check(f): pass", "entry_point": "f"},
            "'prompt' is empty",
        ),
        (golds.mbpp_tests, {"test_list": ["assert f(1) == 1"]}, {"test_list": []}, "a list of assertions"),
        (golds.mbpp_tests, {"test_list": [" assert f(1)"]}, {"test_list": ["assert f("]}, "which is not Python"),
    ],
)
def test_check(check: golds.Check, good: dict[str, Any], bad: dict[str, Any], words: str) -> None:
    assert check(good) is None
    assert words in (check(bad) or "")


def test_an_empty_test_is_no_test() -> None:
    assert golds.parses("assert True")
    assert not golds.parses("# nothing")
    assert not golds.parses("(" * 10_000)
