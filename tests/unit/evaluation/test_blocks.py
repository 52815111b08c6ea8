"""Statistics that see training, against scipy and statsmodels, and by simulation of many studies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas
import pytest
import scipy.stats
import statsmodels.formula.api
from statsmodels.stats.anova import anova_lm

from spd_lightning.evaluation.blocks import (
    clustered_variance,
    example_variance,
    fresh_moments,
    fresh_rows,
    pooled_error,
    same_moments,
    same_rows,
)
from spd_lightning.evaluation.statistics import holm

TABLES = 10_000


def students(
    generator: np.random.Generator,
    tables: int,
    seeds: int,
    n: int,
    effect: float,
    seed_sd: float,
    same: bool,
    base: bool = False,
):  # type: ignore[no-untyped-def]
    """Right or wrong answers of two methods, ``[tables, seeds, n]`` each, and the true difference.

    A row has a difficulty (sd 1 logit) and a response of its own to the second method (sd 0.5); a student an effect of
    its seed. Rows are drawn once, or afresh for each seed. The first method can be a base, which no seed changes.
    """
    rows = (tables, 1 if same else seeds, n)
    hard, own = generator.normal(0, 1, rows), generator.normal(0, 0.5, rows)
    seed = generator.normal(0, seed_sd, (2, tables, seeds, 1))
    a = generator.random(rows if base else (tables, seeds, n)) < 1 / (1 + np.exp(-(hard + (0 if base else seed[0]))))
    b = generator.random((tables, seeds, n)) < 1 / (1 + np.exp(-(effect + hard + own + seed[1])))
    return np.broadcast_to(a, b.shape), b


def true_difference(effect: float, seed_sd: float, base: bool = False) -> float:
    """By quadrature: a share of right answers is the mean of a logistic function over a normal logit."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    first, second = (
        (weights / (1 + np.exp(-(shift + math.sqrt(variance) * points)))).sum() / weights.sum()
        for shift, variance in ((0.0, 1 + (not base) * seed_sd**2), (effect, 1.25 + seed_sd**2))
    )
    return float(second - first)


@pytest.mark.parametrize("seed_sd", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("same", [False, True], ids=["fresh rows", "same rows"])
@pytest.mark.parametrize("base", [False, True], ids=["two methods", "a method and a base"])
def test_intervals_cover_95_per_cent(seed_sd: float, seeds: int, same: bool, base: bool) -> None:
    """10,000 studies of 300 examples each, in parts that fit into memory."""
    generator, truth, covered = np.random.default_rng(5), true_difference(0.3, seed_sd, base), 0
    for _ in range(TABLES // 500):
        a, b = students(generator, 500, seeds, 300, 0.3, seed_sd, same, base)
        found: Any = same_moments(a, b) if same else fresh_moments(b.mean(-1) - a.mean(-1))
        delta, variance, df = found
        half = scipy.stats.t.ppf(0.975, df) * np.sqrt(variance)
        covered += int((np.abs(delta - truth) <= half).sum())
    assert 0.935 <= covered / TABLES <= 0.965


@pytest.mark.parametrize("blocks", [3, 5])
@pytest.mark.parametrize("seed_sd", [0.1, 0.3])
@pytest.mark.parametrize("same", [False, True], ids=["fresh rows", "same rows"])
def test_a_table_of_students_of_one_method_is_seldom_starred(blocks: int, seed_sd: float, same: bool) -> None:
    """10,000 tables of four benchmarks, three comparisons each, corrected by Holm: no difference is a true one."""
    generator, starred = np.random.default_rng(11), 0
    for _ in range(TABLES // 500):
        p_values = []
        for _ in range(4):
            hard = generator.normal(0, 1, (500, 1, 1 if same else blocks, 200))
            logits = hard + generator.normal(0, seed_sd, (500, 3, blocks, 1))
            right = generator.random(logits.shape) < 1 / (1 + np.exp(-logits))
            scores = right.mean(-1)  # [tables, methods, blocks]
            for i, j in ((0, 1), (0, 2), (1, 2)):
                found: Any = fresh_moments(scores[:, j] - scores[:, i])
                delta, variance, df = same_moments(right[:, i], right[:, j]) if same else found
                with np.errstate(divide="ignore", invalid="ignore"):
                    t = np.where(variance > 0, np.abs(delta) / np.sqrt(variance), 0.0)
                p_values.append(2 * scipy.stats.t.sf(t, df))
        least = np.min(p_values, axis=0)
        assert holm([float(p[0]) for p in p_values])[int(np.argmin([p[0] for p in p_values]))] == pytest.approx(
            min(1.0, 12 * float(least[0]))
        )
        starred += int((12 * least < 0.05).sum())  # Holm stars something exactly where the smallest passes
    assert starred / TABLES <= 0.056


def test_fresh_rows_are_the_paired_t_test_over_blocks() -> None:
    differences = [0.021, -0.004, 0.033, 0.012, 0.017]
    found, expected = fresh_rows(differences), scipy.stats.ttest_1samp(differences, 0.0)
    assert (found.blocks, found.df, found.rows) == (5, 4, "fresh")
    assert found.p_value == pytest.approx(expected.pvalue) and found.delta == pytest.approx(np.mean(differences))
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_fewer_than_three_blocks_and_no_spread_have_no_interval() -> None:
    for differences in ([0.1], [0.1, 0.2], [0.1, 0.1, 0.1]):
        found = fresh_rows(differences)
        assert (found.interval, found.p_value, found.stderr, found.df) == (None, None, None, None)
        assert found.delta == pytest.approx(np.mean(differences)) and found.blocks == len(differences)
    rows = np.eye(4)[:2]
    assert same_rows(rows, 1 - rows).interval is None and same_rows(rows[:1], rows[1:]).blocks == 1
    assert same_rows(np.ones((3, 9)), np.ones((3, 9))).interval is None, "nothing varies"
    with pytest.raises(ValueError, match="no block"):
        fresh_rows([])


def test_same_rows_are_the_mean_squares_of_two_analyses_of_variance() -> None:
    """Seeds, examples and interaction by statsmodels; numbers of seeds may differ."""
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(2, 30))
    a, b = rows[0] + generator.normal(size=(4, 30)), rows[1] + generator.normal(0.2, 1.5, size=(3, 30))
    parts = []
    for scores in (a, b):
        seeds, examples = np.indices(scores.shape)
        frame = pandas.DataFrame({"y": scores.ravel(), "seed": seeds.ravel(), "example": examples.ravel()})
        table = anova_lm(statsmodels.formula.api.ols("y ~ C(seed) + C(example)", frame).fit())
        squares = table["mean_sq"]
        size = scores.size
        parts += [(squares["C(seed)"] / size, len(scores) - 1), (-squares["Residual"] / size, (len(scores) - 1) * 29)]
    parts.append(((b.mean(0) - a.mean(0)).var(ddof=1) / 30, 29))
    variance = sum(v for v, _ in parts)
    welch = variance**2 / sum(v**2 / (f + 2) for v, f in parts) - 2
    (s, f), (t, g), (e, h) = parts[::2]
    weighed = (s + t + e) / ((s**2 / f + t**2 / g) / (s + t) + e / h)
    df = max(min(welch, weighed), 2)
    found = same_rows(a, b)
    assert found.stderr == pytest.approx(math.sqrt(variance)) and found.df == pytest.approx(df)
    assert found.delta == pytest.approx(b.mean() - a.mean()) and found.blocks == 3
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(found.delta) / found.stderr, df))
    half = scipy.stats.t.ppf(0.975, df) * math.sqrt(variance)
    assert found.interval == pytest.approx((found.delta - half, found.delta + half))


def test_where_nothing_is_left_the_interaction_stands() -> None:
    """Where seeds and examples spread less than chance would have them, the mean squares alone would be below 0."""
    checkered = np.indices((4, 6)).sum(0) % 2 * 1.0  # every seed and every example has the same mean
    found = same_rows(checkered, 1 - checkered)
    residual = (checkered - 0.5).var() * 24 / 15
    assert found.delta == 0 and found.stderr == pytest.approx(math.sqrt(2 * residual / 24))


def test_a_method_without_seeds_adds_no_variance_of_seeds() -> None:
    """The base answers alike in every block: what is left are the seeds of the other, and the examples."""
    generator = np.random.default_rng(4)
    base = np.repeat(generator.random((1, 50)) < 0.4, 3, axis=0)
    student = generator.random((3, 50)) < 0.5
    plain = same_moments(base, student)[1]
    d = student.astype(float) - base
    rest = d - d.mean(1, keepdims=True) - d.mean(0, keepdims=True) + d.mean()
    by_hand = student.mean(1).var(ddof=1) / 3 + d.mean(0).var(ddof=1) / 50
    inner = student - student.mean(1, keepdims=True) - student.mean(0, keepdims=True) + student.mean()
    assert rest.shape == inner.shape and plain == pytest.approx(by_hand - (inner**2).sum() / (2 * 49) / 150)


def test_strata_take_off_what_lies_between_subjects_and_clusters_keep_it() -> None:
    generator = np.random.default_rng(6)
    strata = np.repeat(np.arange(10), 8)
    differences = generator.normal(size=10)[strata] + generator.normal(0, 0.3, 80)
    stratified, df = example_variance(differences, strata)
    frame = pandas.DataFrame({"d": differences, "s": strata})
    within = anova_lm(statsmodels.formula.api.ols("d ~ C(s)", frame).fit())["mean_sq"]["Residual"]
    assert stratified == pytest.approx(within / 80) and df == 70
    clustered, groups = clustered_variance(differences, strata)
    fit = statsmodels.formula.api.ols("d ~ 1", frame).fit(cov_type="cluster", cov_kwds={"groups": strata})
    assert clustered == pytest.approx(fit.bse.iloc[0] ** 2, rel=0.03) and groups == 9
    assert stratified < example_variance(differences)[0] < clustered


def test_groups_of_one_are_taken_together() -> None:
    differences = np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    found, df = example_variance(differences, ["a", "a", "b", "c", "d"])
    assert df == 3
    assert found == pytest.approx((2 * 0.5 + 3 * np.var([0.0, 1.0, 1.0], ddof=1)) / 25)


def test_the_pooled_residual_is_that_of_blocks_and_arms() -> None:
    generator = np.random.default_rng(8)
    scores = generator.normal(size=(5, 4))
    blocks, arms = np.indices(scores.shape)
    frame = pandas.DataFrame({"y": scores.ravel(), "block": blocks.ravel(), "arm": arms.ravel()})
    table = anova_lm(statsmodels.formula.api.ols("y ~ C(block) + C(arm)", frame).fit())
    error, df = pooled_error(scores)
    assert df == table["df"]["Residual"] and error == pytest.approx(math.sqrt(2 * table["mean_sq"]["Residual"] / 5))
