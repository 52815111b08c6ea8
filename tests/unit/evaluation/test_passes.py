"""pass@k and where two curves cross, on records made by hand."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest

from spd_lightning.evaluation.passes import MOST, crossover, pass_curve, pass_rows
from spd_lightning.evaluation.scores import BenchmarkResult
from spd_lightning.scoring.counting import Record


def records(*passed: int, n: int) -> list[Record]:
    """So many right ones of n samples, an example each."""
    return [{"id": str(i), "sample": s, "correct": s < c} for i, c in enumerate(passed) for s in range(n)]


def test_the_curve_is_what_drawing_without_replacement_gives() -> None:
    found = pass_curve(records(1, 3, 0, n=5))
    for k, value in enumerate(found, start=1):
        draws = list(itertools.combinations(range(5), k))
        assert value == pytest.approx(sum(any(i < c for i in d) for c in (1, 3, 0) for d in draws) / len(draws) / 3)
    assert len(found) == 5 and found[0] == pytest.approx(4 / 15)
    assert len(pass_curve(records(1, n=MOST + 9))) == MOST and pass_curve([]) == []


@pytest.mark.parametrize("draw", range(20))
def test_methods_that_are_level_are_equal_and_none_is_ahead(draw: int) -> None:
    """One solves a problem more often and another one less: the mean is the same, but not in sums of rounded shares."""
    generator = random.Random(draw)
    n, count = generator.choice([(10, 2), (7, 3), (64, 5)])
    of_base = [generator.randint(1, n - 1) for _ in range(count)]
    of_other = [of_base[0] + 1, of_base[1] - 1, *of_base[2:]]
    base, other = (
        BenchmarkResult("t", method, "standard", "number", records(*passed, n=n), [], {"num_samples": n})
        for method, passed in (("base", of_base), ("ssd", of_other))
    )
    assert pass_curve(base.records)[0] == pass_curve(other.records)[0] == float(Fraction(sum(of_base), n * count))
    assert [(row["ahead_at_1"], row["crossover"]) for row in pass_rows([base, other])] == [(None, None)] * 2


@pytest.mark.parametrize(
    ("base", "other", "k"),
    [
        ([0.2, 0.4, 0.6], [0.3, 0.35, 0.4], 2),  # ahead at 1, behind from 2 on
        ([0.3, 0.35, 0.4], [0.2, 0.4, 0.6], 2),  # the other way round
        ([0.2, 0.4, 0.5], [0.3, 0.5, 0.6], None),
        ([0.2, 0.4, 0.5], [0.2, 0.5, 0.6], None),  # level at 1: nothing to lose
        ([0.2, 0.4, 0.6, 0.8], [0.3, 0.35, 0.65, 0.7], 4),  # what is taken back is no crossing
        ([0.2, 0.4], [0.3, 0.4], 2),  # level
        ([], [], None),
    ],
)
def test_where_they_change_places(base: list[float], other: list[float], k: int | None) -> None:
    assert crossover(base, other) == k


def test_rows_of_base_and_student() -> None:
    base = BenchmarkResult("t", "base", "standard", "number", records(2, 2, 2, 0, n=8), [], {"num_samples": 8})
    sharp = BenchmarkResult("t", "ssd", "standard", "number", records(8, 7, 0, 0, n=8), [], {"num_samples": 8})
    greedy = BenchmarkResult("u", "base", "standard", "number", records(1, n=1), [], {"num_samples": 1})
    one, two = pass_rows([base, sharp, greedy])
    assert (one["method"], one["crossover"], one["ahead_at_1"]) == ("base", None, None)
    assert list(two["pass"]) == ["1", "2", "4", "8"] and (two["n"], two["samples"]) == (4, 8)
    assert two["ahead_at_1"] and two["pass"]["8"] == 0.5 < one["pass"]["8"] == 0.75
    assert two["crossover"] == next(
        k for k, (a, b) in enumerate(zip(pass_curve(base.records), pass_curve(sharp.records)), 1) if a >= b
    )
