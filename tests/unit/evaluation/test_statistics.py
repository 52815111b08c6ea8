"""Intervals and tests against scipy, statsmodels and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from spd_lightning.evaluation.distributions import (
    binomial_lower,
    clopper_pearson,
    incomplete_beta,
    t_limit,
    t_p_value,
)
from spd_lightning.evaluation.statistics import holm, jackknife_error, over_seeds, t_interval, wilson_interval


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 100), (22, 100), (100, 100), (3, 7), (7000, 14042)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_statsmodels(successes: int, n: int, confidence: float) -> None:
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(5, 4), (-1, 3), (0, 0)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"successes={successes} of n={n}"):
        wilson_interval(successes, n)


def test_incomplete_beta_equals_scipy() -> None:
    generator = np.random.default_rng(0)
    for a, b in np.exp(generator.uniform(-1, 9.5, (2000, 2))):
        x = float(scipy.stats.beta.ppf(generator.uniform(1e-4, 1 - 1e-4), a, b))
        if 0 < x < 1:
            assert incomplete_beta(a, b, x) == pytest.approx(scipy.special.betainc(a, b, x), rel=1e-8, abs=1e-12)
    assert (incomplete_beta(2, 3, 0), incomplete_beta(2, 3, 1)) == (0, 1)
    for wrong in ((0, 1, 0.5), (1, -1, 0.5), (1, 1, 1.5)):
        with pytest.raises(ValueError, match="needs a > 0"):
            incomplete_beta(*wrong)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 20), (5, 5), (3, 7), (22, 100), (6000, 14042)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_clopper_pearson_equals_statsmodels(successes: int, n: int, confidence: float) -> None:
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="beta")
    expected = [e if 0 < e < 1 else float(i) for i, e in enumerate(expected)]  # it gives nan at the ends
    assert clopper_pearson(successes, n, confidence) == pytest.approx(tuple(expected), abs=1e-11)
    with pytest.raises(ValueError, match="successes=8 of n=7"):
        binomial_lower(8, 7, 0.025)


@pytest.mark.parametrize("df", [1, 2, 3, 19, 1318, 14041])
def test_student_equals_scipy(df: int) -> None:
    for confidence in (0.5, 0.9, 0.95, 0.999):
        limit = t_limit(df, confidence)
        assert limit == pytest.approx(scipy.stats.t.ppf(0.5 + confidence / 2, df), rel=1e-10)
        assert t_p_value(limit, df) == pytest.approx(1 - confidence, rel=1e-10)
    for t in (-8.0, -0.3, 0.0, 1e-9, 2.1, 40.0):
        assert t_p_value(t, df) == pytest.approx(2 * scipy.stats.t.sf(abs(t), df), rel=1e-9)


def test_standard_error_and_t_interval_equal_scipy() -> None:
    values = np.random.default_rng(0).normal(size=37)
    error = jackknife_error(values)
    assert error == pytest.approx(scipy.stats.sem(values))
    expected = scipy.stats.t.interval(0.95, 36, values.mean(), error)
    assert t_interval(values.mean(), error, 37) == pytest.approx(expected)
    assert t_interval(values.mean(), error, 37, limits=(-0.01, 0.02))[0] == pytest.approx(max(-0.01, expected[0]))
    assert jackknife_error([1.0]) is None and t_interval(1.0, None, 1) is None
    assert jackknife_error([0.1] * 3) == 0.0 and t_interval(0.1, 0.0, 3) is None, "no spread is no certainty"


def test_weighted_error_is_the_jackknife_of_the_ratio_of_sums() -> None:
    generator = np.random.default_rng(3)
    tokens = generator.integers(5, 200, size=40).astype(float)
    sums = tokens * generator.uniform(0.4, 0.9, size=40)
    total = sums.sum() / tokens.sum()
    left_out = [(sums.sum() - s) / (tokens.sum() - t) for s, t in zip(sums, tokens)]
    expected = math.sqrt(39 / 40 * sum((value - total) ** 2 for value in left_out))
    assert jackknife_error(sums / tokens, tokens) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "least"), [(20, 0.925), (100, 0.935)])
def test_interval_of_a_loss_per_token_covers(n: int, least: float) -> None:
    """Texts of very different lengths, losses with heavy tails: 95% intervals hold the truth about as often."""
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(2000):
        tokens = np.maximum(1, generator.lognormal(4, 0.8, n).round())
        values = generator.standard_t(3, n)
        mean = float((values * tokens).sum() / tokens.sum())
        low, high = t_interval(mean, jackknife_error(values, tokens), n) or (0, 0)
        hits += low <= 0 <= high
    assert least < hits / 2000 < 0.97


def test_holm_equals_statsmodels() -> None:
    p_values = [0.04, 0.001, 0.03, 0.005, 0.9, 0.03]
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    assert holm([]) == []
    assert holm([0.8, 0.9]) == [1.0, 1.0]


def test_seeds_combine_as_mean_sample_deviation_and_t_interval() -> None:
    values = [0.2, 0.25, 0.31]
    mean, deviation, interval = over_seeds(values)
    described = DescrStatsW(values)
    assert (mean, deviation) == pytest.approx((described.mean, described.std_ddof(1)))
    assert interval == pytest.approx(described.tconfint_mean(0.05))
    assert over_seeds([0.01, 0.02, 0.0], (0.0, 1.0))[2][0] == 0.0, "a share is no less than 0"
    assert over_seeds([0.5]) == (0.5, None, None)
    assert over_seeds([0.5, 0.6]) == (pytest.approx(0.55), pytest.approx(math.sqrt(0.005)), None)
    assert over_seeds([0.1, 0.1, 0.1]) == (pytest.approx(0.1), 0.0, None), "equal runs show no spread"
    with pytest.raises(ValueError, match="no run"):
        over_seeds([])


def test_interval_over_three_seeds_covers() -> None:
    """A percentile bootstrap of three values spans at most their range, which holds the mean in three of four cases."""
    generator = np.random.default_rng(6)
    intervals = [over_seeds(generator.normal(0.4, 0.02, 3).tolist())[2] for _ in range(2000)]
    assert np.mean([low <= 0.4 <= high for low, high in intervals]) == pytest.approx(0.95, abs=0.015)
