"""What a design can see, against statsmodels' noncentral t and by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from spd_lightning.evaluation.blocks import fresh_moments, fresh_rows
from spd_lightning.evaluation.power import (
    ENOUGH_POWER,
    equivalence_p,
    equivalence_power,
    examples_needed,
    power_of_t,
    smallest_difference,
    smallest_effect,
    word_of,
)


@pytest.mark.parametrize("blocks", [3, 5, 30, 2000])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5, 6.0])
def test_power_is_that_of_the_noncentral_t(blocks: int, shift: float) -> None:
    expected = TTestPower().power(shift / np.sqrt(blocks), blocks, 0.05, df=blocks - 1)
    assert power_of_t(shift, 1.0, blocks - 1) == pytest.approx(expected, abs=1e-4)
    t = scipy.stats.nct(blocks - 1, shift)
    limit = scipy.stats.t.ppf(0.975, blocks - 1)
    assert power_of_t(shift, 1.0, blocks - 1) == pytest.approx(t.sf(limit) + t.cdf(-limit), abs=1e-5)


@pytest.mark.parametrize("blocks", [3, 5, 40])
def test_the_smallest_effect_is_shown_in_four_of_five_studies(blocks: int) -> None:
    effect = smallest_effect(0.01, blocks - 1)
    solved = TTestPower().solve_power(nobs=blocks, alpha=0.05, power=0.8, alternative="two-sided")
    assert effect == pytest.approx(solved * 0.01 * np.sqrt(blocks), rel=1e-3)
    draws = np.random.default_rng(2).normal(effect, 0.01 * np.sqrt(blocks), (20_000, blocks))
    delta, variance, df = fresh_moments(draws)
    shown = 2 * scipy.stats.t.sf(np.abs(delta) / np.sqrt(variance), df) < 0.05
    assert shown.mean() == pytest.approx(0.8, abs=0.012)


@pytest.mark.parametrize(
    "row",
    [
        {"n": 300, "delta": 0.05, "only_a": 20, "only_b": 35},
        {"n": 2000, "delta": 0.0, "only_a": 150, "only_b": 150},
        {"n": 120, "delta": 0.1, "stderr": 0.04},
    ],
    ids=["shares", "no difference", "means"],
)
@pytest.mark.parametrize("family", [1, 6])
def test_the_smallest_difference_needs_as_many_examples_as_there_are(row: dict[str, Any], family: int) -> None:
    least = smallest_difference(row, family)
    assert least is not None and least > 0
    assert examples_needed({**row, "delta": least}, family) in (row["n"], row["n"] + 1)
    assert (examples_needed({**row, "delta": 1.1 * least}, family) or 0) < row["n"]


def test_the_smallest_difference_of_shares_is_shown_in_four_of_five_trials() -> None:
    """By simulation of pairs of which as many differ as were seen; exact McNemar, n = 1,000."""
    least = smallest_difference({"n": 1000, "delta": 0.0, "only_a": 60, "only_b": 60})
    assert least is not None
    b, c = (0.12 + least) / 2, (0.12 - least) / 2
    counts = np.random.default_rng(3).multinomial(1000, [b, c, 1 - b - c], 4000)
    shown = scipy.stats.binom.cdf(counts[:, :2].min(1), counts[:, :2].sum(1), 0.5) * 2 < 0.05
    assert shown.mean() == pytest.approx(0.8, abs=0.03)


def test_where_too_few_examples_differ_no_difference_would_be_shown() -> None:
    assert smallest_difference({"n": 100, "delta": 0.0, "only_a": 0, "only_b": 0}) is None
    assert smallest_difference({"n": 100, "delta": 0.0, "only_a": 1, "only_b": 2}) is None
    assert smallest_difference({"n": 100, "delta": 0.0, "stderr": None}) is None


def test_equivalence_is_statsmodels_two_one_sided_tests() -> None:
    generator = np.random.default_rng(9)
    for blocks, centre in ((3, 0.0), (5, 0.01), (5, 0.05), (12, -0.02)):
        differences = generator.normal(centre, 0.01, blocks)
        found = fresh_rows(differences.tolist())
        expected = ttost_paired(differences, np.zeros(blocks), -0.03, 0.03)[0]
        assert found.stderr is not None and found.df is not None
        p = equivalence_p(found.delta, found.stderr, found.df, 0.03)
        assert p == pytest.approx(expected, rel=1e-6)
        half = scipy.stats.t.ppf(0.95, blocks - 1) * found.stderr
        assert (p < 0.05) == (abs(found.delta) + half < 0.03), "exactly where the 90% interval lies within"


@pytest.mark.parametrize("error", [0.004, 0.008, 0.012])
@pytest.mark.parametrize("blocks", [3, 5])
def test_the_power_of_equivalence_is_as_predicted(error: float, blocks: int) -> None:
    draws = np.random.default_rng(1).normal(0, error * np.sqrt(blocks), (40_000, blocks))
    delta, variance, df = fresh_moments(draws)
    within = np.abs(delta) + scipy.stats.t.ppf(0.95, df) * np.sqrt(variance) < 0.03
    assert equivalence_power(error, blocks - 1, 0.03) == pytest.approx(within.mean(), abs=0.01)


def test_a_design_without_power_never_says_that_there_is_no_difference() -> None:
    """Over many studies without an effect: the words follow, and a small spread by luck is not taken for power."""
    generator = np.random.default_rng(4)
    words = {"wide": set(), "narrow": set()}  # type: dict[str, set[str]]
    for _ in range(300):
        for name, spread in (("wide", 0.05), ("narrow", 0.004)):
            found = fresh_rows(generator.normal(0, spread, 5).tolist())
            word = word_of(found.delta, found.p_value, found.stderr, found.df, 0.03)
            words[name].add(word)
            assert found.stderr is not None and found.df is not None
            if word == "no difference":
                assert equivalence_power(found.stderr, found.df, 0.03) >= ENOUGH_POWER
                assert equivalence_p(found.delta, found.stderr, found.df, 0.03) < 0.05
    assert "no difference" in words["narrow"] and "undecided" in words["wide"]
    assert word_of(0.2, 0.01, 0.05, 4, 0.03) == "higher" and word_of(-0.2, 0.01, 0.05, 4, 0.03) == "lower"
    assert word_of(0.0, None, None, None, 0.03) == "undecided", "two blocks"
