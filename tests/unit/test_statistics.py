"""Intervals and tests against scipy, statsmodels and values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from spd_lightning.evaluation.statistics import (
    bootstrap_mean_interval,
    combine_seeds,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    standard_error,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 100), (22, 100), (100, 100), (3, 7), (7000, 14042)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_statsmodels(successes: int, n: int, confidence: float) -> None:
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(5, 4), (-1, 3), (0, 0)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"successes={successes} of n={n}"):
        wilson_interval(successes, n)


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (0, 5), (3, 3), (12, 4), (30, 51), (900, 1000)])
def test_mcnemar_equals_statsmodels(counts: tuple[int, int]) -> None:
    only_a, only_b = counts
    expected = 1.0 if only_a + only_b == 0 else mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue
    assert mcnemar_exact(only_a, only_b) == pytest.approx(min(1.0, expected), rel=1e-9)
    assert mcnemar_exact(only_b, only_a) == mcnemar_exact(only_a, only_b)


def test_mcnemar_of_thousands_is_finite() -> None:
    assert 0 < mcnemar_exact(5000, 5300) < 0.01
    with pytest.raises(ValueError, match="only_a=-1"):
        mcnemar_exact(-1, 2)


def test_standard_error_equals_scipy() -> None:
    values = np.random.default_rng(0).normal(size=37)
    assert standard_error(values) == pytest.approx(scipy.stats.sem(values))
    assert standard_error([1.0]) is None


def test_bootstrap_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=120)
    ours = bootstrap_mean_interval(values)
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=2)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)
    assert ours == bootstrap_mean_interval(values), "equal seeds must give equal intervals"
    assert ours != bootstrap_mean_interval(values, seed=1)


def test_weights_give_the_ratio_of_sums() -> None:
    generator = np.random.default_rng(3)
    tokens = generator.integers(5, 200, size=80).astype(float)
    sums = tokens * generator.uniform(0.4, 0.9, size=80)
    low, high = bootstrap_mean_interval(sums / tokens, tokens)
    rows = generator.integers(0, 80, size=(10_000, 80))
    ratios = sums[rows].sum(1) / tokens[rows].sum(1)
    assert (low, high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=0.01)
    assert low < sums.sum() / tokens.sum() < high


def test_paired_bootstrap_agrees_with_a_t_test_on_many_examples() -> None:
    generator = np.random.default_rng(4)
    a = generator.normal(size=400)
    b = a + generator.normal(0.05, 0.4, size=400)
    delta, (low, high), p = paired_bootstrap(a, b)
    assert delta == pytest.approx(float((b - a).mean()))
    expected = scipy.stats.ttest_rel(b, a)
    assert p == pytest.approx(expected.pvalue, abs=0.02)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=0.005)


def test_paired_bootstrap_of_equal_methods_and_of_a_clear_difference() -> None:
    a = np.arange(20.0)
    assert paired_bootstrap(a, a) == (0.0, (0.0, 0.0), 1.0)
    delta, interval, p = paired_bootstrap(a, a + 1)
    assert delta == pytest.approx(1.0)
    assert interval == pytest.approx((1.0, 1.0))
    assert p == pytest.approx(1 / 10_001)
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        paired_bootstrap([1, 2, 3], [1, 2])


def test_holm_equals_statsmodels() -> None:
    p_values = [0.04, 0.001, 0.03, 0.005, 0.9, 0.03]
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    assert holm([]) == []
    assert holm([0.8, 0.9]) == [1.0, 1.0]


def test_seeds_combine_as_mean_and_sample_deviation() -> None:
    mean, deviation, n = combine_seeds([0.2, 0.25, 0.31])
    described = DescrStatsW([0.2, 0.25, 0.31])
    assert (mean, deviation, n) == pytest.approx((described.mean, described.std_ddof(1), 3))
    assert combine_seeds([0.5]) == (0.5, None, 1)
    with pytest.raises(ValueError, match="no run"):
        combine_seeds([])
