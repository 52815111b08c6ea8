"""Stage 4: what a difference of two methods says once their training is a random variable too.

A *block* is a seed that both methods share: test rows, training prompts, calibration rows, commit, device, batch size.
One student of each is a difference of two students; only several blocks say what the methods do.

- Test rows drawn afresh for each block (`fresh_rows`): the differences of the blocks are independent, and the interval
  is Student's of their mean, with blocks - 1 degrees of freedom.
- The same rows in every block (`same_rows`): the variance is that of the seeds of either method and that of the
  examples, less their interaction, which both contain. Degrees of freedom are Satterthwaite's, see `same_moments`.

Two blocks have no interval: with one degree of freedom it would be 9 of their differences wide on either side. No
bootstrap over seeds: over 3 seeds a percentile interval covers 83 to 99%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spd_lightning.evaluation.distributions import t_limit, t_p_value

LEAST_BLOCKS = 3
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BlockDifference:
    """A difference of two methods over blocks.

    Attributes:
        delta: Score of b minus that of a.
        blocks: Blocks behind it; the fewer students of either method.
        stderr: Standard error of delta; None for fewer than three blocks, or without a spread.
        df: Degrees of freedom of that error.
        interval: Student's t interval of 95%; None where there is no error.
        p_value: Two-sided, of the same procedure; None where there is no interval.
        rows: ``fresh`` or ``same``: how the examples of the blocks stand to each other.
    """

    delta: float
    blocks: int
    stderr: float | None
    df: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    rows: str


def _difference(delta: float, blocks: int, variance: float, df: float, rows: str) -> BlockDifference:
    if blocks < LEAST_BLOCKS or not variance > 0:
        return BlockDifference(delta=delta, blocks=blocks, stderr=None, df=None, interval=None, p_value=None, rows=rows)
    error = math.sqrt(variance)
    half = t_limit(df) * error
    p_value = t_p_value(delta / error, df)
    return BlockDifference(
        delta=delta,
        blocks=blocks,
        stderr=error,
        df=df,
        interval=(delta - half, delta + half),
        p_value=p_value,
        rows=rows,
    )


def fresh_moments(differences: ArrayLike) -> tuple[Array, Array, int]:
    """Mean over blocks, its variance and degrees of freedom.

    Args:
        differences: Of the blocks, shape ``[..., blocks]``.
    """
    found = np.asarray(differences, dtype=np.float64)
    blocks = found.shape[-1]
    return found.mean(-1), found.var(-1, ddof=1) / blocks, blocks - 1


def fresh_rows(differences: Sequence[float]) -> BlockDifference:
    """Two methods whose blocks have examples of their own: a paired t test over blocks.

    Args:
        differences: Score of b less that of a, one a block.

    Raises:
        ValueError: If there is none.
    """
    if not len(differences):
        raise ValueError("differences is empty: there is no block.")
    if len(differences) == 1:
        return _difference(float(differences[0]), 1, 0.0, 0, "fresh")
    delta, variance, df = fresh_moments(differences)
    equal = all(value == differences[0] for value in differences)  # not the rounding of their mean
    return _difference(float(delta), len(differences), 0.0 if equal else float(variance), df, "fresh")


def same_moments(a: ArrayLike, b: ArrayLike, strata: ArrayLike | None = None) -> tuple[Array, Array, Array]:
    """Difference of two methods on the same examples under several seeds, its variance and degrees of freedom.

    The mean square of a method's seeds holds seeds and interaction, that of the examples holds examples and the
    interaction of both methods: what is counted twice is taken off. Where nothing is left by chance, the interaction
    stands, which the variance has at least. Degrees of freedom are ``V^2 / sum(v^2 / (f + 2)) - 2`` over the parts v
    with f each (Welch's unbiased form of Satterthwaite's, 1947; the plain one covers 96 to 97% where both methods have
    three seeds), but no more than the mean of those of seeds and examples, harmonic and weighed by their variances:
    with three seeds of a method against a base that has none, Welch's alone cover 90 to 93%, since they are many just
    where the seeds' variance came out small.

    Args:
        a: One number per seed and example for the first method, shape ``[..., seeds, n]``.
        b: The same examples for the second, in the same order; another number of seeds is possible.
        strata: Shape ``[n]``, a label per example where examples were drawn within groups (subjects): their variance is
            then that within groups. A group of one counts with all others of one.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(f"a has {first.shape[-1]} examples, b has {second.shape[-1]}: the same examples are needed.")
    n = first.shape[-1]
    parts: list[tuple[Array, float]] = []  # with the sign that they have in the variance
    for scores in (first, second):
        seeds = scores.shape[-2]
        mean = scores.mean(-1, keepdims=True)
        rest = scores - mean - scores.mean(-2, keepdims=True) + scores.mean((-1, -2), keepdims=True)
        df = (seeds - 1) * (n - 1)
        parts.append((scores.mean(-1).var(-1, ddof=1) / seeds, seeds - 1))
        parts.append((-(rest**2).sum((-1, -2)) / df / (seeds * n), df))
    differences = second.mean(-2) - first.mean(-2)
    parts.append(example_variance(differences, strata))
    variance = np.sum([value for value, _ in parts], axis=0)
    variance = np.where(variance > 0, variance, -parts[1][0] - parts[3][0])
    spread = np.sum([value**2 / (df + 2) for value, df in parts], axis=0)
    (seeds_a, df_a), (seeds_b, df_b), (examples, df_examples) = parts[::2]
    seeds = seeds_a + seeds_b
    with np.errstate(divide="ignore", invalid="ignore"):
        over_df = np.nan_to_num((seeds_a**2 / df_a + seeds_b**2 / df_b) / seeds)  # variance of the seeds over their df
        weighed = (seeds + examples) / (over_df + examples / df_examples)
        df = np.maximum(np.fmin(variance**2 / spread - 2, weighed), min(df_a, df_b))
    return differences.mean(-1), variance, df


def same_rows(a: ArrayLike, b: ArrayLike, strata: ArrayLike | None = None) -> BlockDifference:
    """Two methods whose students all answered the same examples; see `same_moments`.

    Args:
        a: One number per seed and example for the first method, shape ``[seeds, n]``.
        b: The same examples for the second.
        strata: See `same_moments`.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    blocks = min(len(first), len(second))
    if blocks < 2 or first.shape[-1] < 2:
        return _difference(float(second.mean() - first.mean()), blocks, 0.0, 0, "same")
    delta, variance, df = same_moments(first, second, strata)
    return _difference(float(delta), blocks, float(variance), float(df), "same")


def example_variance(differences: Array, strata: ArrayLike | None = None) -> tuple[Array, float]:
    """Variance of a mean over examples, and its degrees of freedom; within strata where they are given.

    Args:
        differences: Shape ``[..., n]``.
        strata: Shape ``[n]``; the mean is over all examples, each stratum with the weight that it has among them.
    """
    n = differences.shape[-1]
    if strata is None:
        return differences.var(-1, ddof=1) / n, n - 1
    labels = np.unique(np.asarray(strata), return_inverse=True)[1]
    counts = np.bincount(labels)
    alone = counts[labels] == 1
    labels = np.where(alone, len(counts), labels)  # groups of one are taken together
    total, groups = np.zeros(differences.shape[:-1]), 0
    for label in np.unique(labels):
        chosen = differences[..., labels == label]
        size = chosen.shape[-1]
        groups += 1
        if size > 1:
            total = total + chosen.var(-1, ddof=1) * size / n**2
    return total, max(n - groups, 1)


def clustered_variance(differences: Array, clusters: ArrayLike) -> tuple[float, int]:
    """Variance of a mean over examples if the groups themselves were drawn, and its degrees of freedom.

    It answers another question than the strata: how the difference would be on new subjects. Each group is left out
    once (jackknife), so that groups count by their size.

    Args:
        differences: Shape ``[n]``.
        clusters: Shape ``[n]``, a label per example.
    """
    labels = np.unique(np.asarray(clusters), return_inverse=True)[1]
    sizes = np.bincount(labels).astype(np.float64)
    sums = np.bincount(labels, weights=differences)
    groups, mean, n = len(sizes), differences.mean(), sizes.sum()
    moved = (sums - sizes * mean) / (n - sizes) if groups > 1 else np.zeros(1)
    return float((groups - 1) / groups * (moved**2).sum()), groups - 1


def pooled_error(scores: ArrayLike) -> tuple[float, int]:
    """Standard error of a difference of two arms with the residual of all arms, and its degrees of freedom.

    A second figure only: where the arms' variances differ, an interval from it covers 87%.

    Args:
        scores: Shape ``[blocks, arms]``, at least two of either.
    """
    found = np.asarray(scores, dtype=np.float64)
    blocks, arms = found.shape
    rest = found - found.mean(0, keepdims=True) - found.mean(1, keepdims=True) + found.mean()
    df = (blocks - 1) * (arms - 1)
    return math.sqrt(2 * float((rest**2).sum()) / df / blocks), df
