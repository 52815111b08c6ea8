"""Two methods on the same examples: interval and test are one procedure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from spd_lightning.evaluation.paired import mcnemar_exact, mean_difference, share_difference
from spd_lightning.evaluation.power import examples_needed


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


def test_interval_and_mcnemar_never_contradict_each_other() -> None:
    """Over all (b, c) with n up to 60: p < 0.05 if and only if 0 is outside; n only stretches the interval."""
    checked = significant = 0
    for only_a in range(61):
        for only_b in range(61 - only_a):
            for n in {max(only_a + only_b, 1), 60}:
                found = share_difference(only_a, only_b, n)
                low, high = found.interval  # type: ignore[misc]
                assert low <= found.delta <= high
                assert (found.p_value < 0.05) == (low > 0 or high < 0), (only_a, only_b, n)
                checked, significant = checked + 1, significant + (found.p_value < 0.05)
    assert 0.2 < significant / checked < 0.8 and checked > 3000


@pytest.mark.parametrize("counts", [(7, 14, 100), (6000, 6100, 14042), (6000, 6250, 14042), (0, 14042, 14042)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_interval_is_that_of_direction_and_number_of_the_changes(
    counts: tuple[int, int, int], confidence: float
) -> None:
    only_a, only_b, n = counts
    found = share_difference(only_a, only_b, n, confidence)
    d = only_a + only_b
    low, high = proportion_confint(only_b, d, alpha=1 - confidence, method="beta")
    low, high = 2 * low - 1, 1.0 if only_a == 0 else 2 * high - 1
    few, many = proportion_confint(d, n, alpha=1 - confidence, method="beta")
    many = 1.0 if d == n else many
    expected = (low * (few if low > 0 else many), high * (many if high > 0 else few))
    assert found.interval == pytest.approx(expected, abs=1e-9)
    assert (found.p_value < 1 - confidence) == (found.interval[0] > 0), (found.p_value, found.interval)  # type: ignore[index]


def test_the_cases_that_contradicted() -> None:
    gained = share_difference(0, 5, 20)
    assert gained.p_value == 0.0625 and gained.interval == pytest.approx((-0.021433, 0.491046), abs=1e-6)
    equal = share_difference(0, 0, 20)
    assert equal.p_value == 1.0 and equal.interval == pytest.approx((-0.168433, 0.168433), abs=1e-6)
    assert share_difference(0, 0, 1).interval == pytest.approx((-0.975, 0.975))
    mirrored = share_difference(12, 4, 40).interval
    assert mirrored == pytest.approx(tuple(-v for v in reversed(share_difference(4, 12, 40).interval)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs only_a"):
        share_difference(3, 3, 5)


@pytest.mark.parametrize("n", [20, 60])
def test_interval_covers_whichever_way_the_changes_go(n: int) -> None:
    """Exact coverage over all tables; with the number of changes as seen it was 50 to 60% where all go one way."""
    counts = [(only_b, only_a, n - only_a - only_b) for only_a in range(n + 1) for only_b in range(n + 1 - only_a)]
    limits = np.array([share_difference(only_a, only_b, n).interval for only_b, only_a, _ in counts])
    for differ in (0.05, 0.25, 0.5):
        for share_b in (0.5, 0.6, 0.8, 1.0):
            truth = (2 * share_b - 1) * differ
            chance = scipy.stats.multinomial.pmf(counts, n, [differ * share_b, differ * (1 - share_b), 1 - differ])
            covered = chance[(limits[:, 0] <= truth) & (truth <= limits[:, 1])].sum()
            assert covered > 0.95, (differ, share_b)


def test_difference_of_means_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(4)
    a = generator.normal(size=30)
    b = a + generator.normal(0.1, 0.4, size=30)
    found, expected = mean_difference(a, b), scipy.stats.ttest_rel(b, a)
    assert found.delta == pytest.approx(float((b - a).mean())) and found.test == "paired_t"
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        mean_difference([1, 2, 3], [1, 2])


@pytest.mark.parametrize("weighted", [False, True])
def test_interval_and_t_test_never_contradict_each_other(weighted: bool) -> None:
    generator = np.random.default_rng(7)
    significant = 0
    for _ in range(2000):
        n = int(generator.integers(2, 40))
        weights = generator.integers(1, 300, n) if weighted else None
        bound = 1.0 if generator.random() < 0.5 else None
        found = mean_difference(np.zeros(n), generator.normal(0.1, 0.3, n).clip(-1, 1), weights, bound)
        low, high = found.interval  # type: ignore[misc]
        assert low <= found.delta <= high
        assert (found.p_value < 0.05) == (low > 0 or high < 0)
        significant += found.p_value < 0.05
    assert 400 < significant < 1600


def test_means_without_a_spread_claim_nothing() -> None:
    a = np.arange(20.0)
    for b in (a, a + 1):
        found = mean_difference(a, b)
        assert (found.interval, found.p_value) == (None, 1.0)
    assert mean_difference([0.2], [0.4]).interval is None
    same = mean_difference([0.25] * 20, [0.25] * 20, bound=1.0)
    assert same.p_value == 1.0 and same.interval == pytest.approx((-0.168433, 0.168433), abs=1e-6)


def exact_power(n: int, only_a: float, only_b: float, level: float) -> float:
    """Chance that the exact test is below a level, summed over all numbers of differing examples."""
    share, power = only_b / (only_a + only_b), 0.0
    for d in range(n + 1):
        weight = scipy.stats.binom.pmf(d, n, only_a + only_b)
        if weight > 1e-8:
            k = np.arange(d + 1)
            p = np.minimum(1, 2 * scipy.stats.binom.cdf(np.minimum(k, d - k), d, 0.5))
            power += weight * scipy.stats.binom.pmf(k[p < level], d, share).sum()
    return float(power)


@pytest.mark.parametrize(
    ("only_a", "only_b", "n", "most"),
    [(12, 5, 100, 0.83), (30, 20, 100, 0.83), (3, 8, 200, 0.83), (2, 9, 100, 0.86), (0, 5, 20, 0.98)],
)
@pytest.mark.parametrize("family", [1, 6])
def test_examples_needed_give_the_exact_test_its_power(
    only_a: int, only_b: int, n: int, most: float, family: int
) -> None:
    row = {"test": "mcnemar_exact", "n": n, "delta": (only_b - only_a) / n, "only_a": only_a, "only_b": only_b}
    needed = examples_needed(row, family)
    assert needed is not None
    assert 0.8 <= exact_power(needed, only_a / n, only_b / n, 0.05 / family) <= most


@pytest.mark.parametrize("family", [1, 8])
def test_examples_needed_give_the_t_test_its_power(family: int) -> None:
    row = {"test": "paired_t", "n": 40, "delta": 0.1, "only_a": None, "only_b": None, "stderr": 0.2 / math.sqrt(40)}
    n = examples_needed(row, family)
    assert n is not None
    values = np.random.default_rng(0).normal(0.1, 0.2, (20_000, n))
    p = scipy.stats.ttest_1samp(values, 0, axis=1).pvalue
    assert np.mean(p < 0.05 / family) == pytest.approx(0.8, abs=0.015)


def test_examples_needed_need_a_difference_and_its_spread() -> None:
    row = {"test": "mcnemar_exact", "n": 20, "delta": 0.0, "only_a": 2, "only_b": 2, "stderr": None}
    assert examples_needed(row) is None
    assert examples_needed({"test": "paired_bootstrap", "n": 20, "delta": 0.1}) is None, "rows of an earlier version"
