"""What one example counts in a metric."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest

from spd_lightning.scoring.counting import of_losses, of_marked_number, of_passes, of_verdict, pass_at_k


def test_a_verdict_counts_one_or_nothing() -> None:
    assert [of_verdict([{"correct": right}]) for right in (True, False)] == [(1.0, 1.0), (0.0, 1.0)]


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("#### 18", 1.0),
        ("#### $18.00", 1.0),
        ("It is 18", 0.0),
        ("#### 1", 0.0),
        ("#### 18\n\nQuestion: x\n#### 9", 1.0),
    ],
)
def test_only_a_marked_number_counts(text: str, total: float) -> None:
    assert of_marked_number([{"completion": text, "expected": "18"}]) == (total, 1.0)


def test_losses_weigh_as_much_as_texts_are_long() -> None:
    record: dict[str, Any] = {"scores": {"nll": 6.0, "tokens": 3, "chars": 12}}
    assert of_losses("tokens")([record], 1) == (6.0, 3.0)
    assert of_losses("chars")([record], 1) == (6.0, 12.0)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (4, 3, 2)])
def test_pass_at_k_is_the_share_of_draws_that_hold_a_pass(n: int, c: int, k: int) -> None:
    draws = list(combinations(range(n), k))
    share = sum(any(i < c for i in draw) for draw in draws) / len(draws)
    assert math.isclose(pass_at_k(n, c, k), share)
    records = [{"correct": i < c} for i in range(n)]
    assert of_passes(lambda record: record["correct"])(records, k) == (pass_at_k(n, c, k), 1.0)


@pytest.mark.parametrize(("n", "c", "k"), [(2, 1, 3), (2, 3, 1), (2, -1, 1), (2, 1, 0)])
def test_what_is_no_draw_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"n={n}, c={c}, k={k}"):
        pass_at_k(n, c, k)
