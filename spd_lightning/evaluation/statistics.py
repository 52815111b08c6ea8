"""Stage 4: how sure a score is, and whether two scores differ. Numpy alone, the same numbers on every run.

Shares of right answers get a Wilson interval and, in pairs, the exact McNemar test; means (pass@k, log-likelihoods) get
a percentile bootstrap over examples, in pairs over the same resamples of both methods. The p-values of one table are
corrected by Holm's step-down rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
_CHUNK = 1 << 22  # resampled values held at a time (32 MB)


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share: never outside 0 to 1, and right for shares near 0 or 1.

    Args:
        successes: Number of right answers.
        n: Number of answers.
        confidence: Two-sided coverage.

    Raises:
        ValueError: If ``n`` is 0 or ``successes`` is outside 0 to ``n``.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes={successes} of n={n}: needs 0 <= successes <= n and n >= 1.")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def standard_error(values: ArrayLike) -> float | None:
    """Standard error of a mean (sample standard deviation over the root of n); None for fewer than two values."""
    values = np.asarray(values, dtype=np.float64)
    return None if values.size < 2 else float(values.std(ddof=1) / math.sqrt(values.size))


def bootstrap_means(
    values: ArrayLike, weights: ArrayLike | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Means of ``resamples`` samples of the values, drawn with replacement; shape ``[resamples, columns]``.

    Args:
        values: One number per example, shape ``[n]``, or several measured on the same examples, ``[n, columns]``:
            every column then sees the same resamples.
        weights: Shape of ``values``; the mean is ``sum(weight * value) / sum(weight)``, so that per-token means stay
            per token when examples are resampled. None weighs every example alike.
        resamples: Number of resamples.
        seed: Seed of the draws; equal seeds and shapes give equal draws.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    n = len(values)
    if n == 0:
        raise ValueError("values is empty: there is nothing to resample.")
    weight = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64).reshape(values.shape)
    product = values * weight
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        rows = generator.integers(0, n, size=(min(step, resamples - start), n))
        for column in range(values.shape[1]):
            total = weight[:, column][rows].sum(axis=1)
            means[start : start + step, column] = product[:, column][rows].sum(axis=1) / total
    return means


def bootstrap_mean_interval(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a (weighted) mean over examples; arguments as in `bootstrap_means`."""
    means = bootstrap_means(values, weights, resamples, seed)[:, 0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar test of two methods on the same examples.

    Args:
        only_a: Examples that the first method alone got right.
        only_b: Examples that the second method alone got right.

    Returns:
        The p-value: twice the binomial tail of the rarer kind at one half, at most 1; 1 if the methods never differ.
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"only_a={only_a}, only_b={only_b}: counts cannot be negative.")
    n = only_a + only_b
    term = tail = 1  # binomial coefficients as integers: exact for any n
    for k in range(1, min(only_a, only_b) + 1):
        term = term * (n - k + 1) // k
        tail += term
    return min(1.0, 2 * tail / 2**n)


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    weights: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, tuple[float, float], float]:
    """Difference of the (weighted) means of two methods on the same examples.

    Args:
        a: One number per example for the first method, shape ``[n]``.
        b: The same examples, same order, for the second.
        weights: Shape ``[n]``; see `bootstrap_means`.
        confidence: Two-sided coverage of the interval.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        ``mean(b) - mean(a)``, its percentile interval, and the two-sided p-value: how often the resampled difference,
        shifted to a mean of zero, is at least as far from zero as the one seen (one is added to both counts, so that
        it is never 0).
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"a has shape {first.shape}, b has {second.shape}: the same examples are needed.")
    weight = np.ones_like(first) if weights is None else np.asarray(weights, dtype=np.float64)
    difference = second - first
    delta = float((difference * weight).sum() / weight.sum())
    means = bootstrap_means(difference, weight, resamples, seed)[:, 0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    if not difference.any():
        return delta, (float(low), float(high)), 1.0
    slack = 1e-12 * float(np.abs(difference).max())  # resamples that equal the difference seen count as as far
    extreme = int((np.abs(means - delta) >= abs(delta) - slack).sum())
    return delta, (float(low), float(high)), (1 + extreme) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that keep the chance of any false finding below the level.

    Args:
        p_values: One per comparison of the table, any order.

    Returns:
        The corrected values in the same order.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for position, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[i]))
        corrected[i] = largest
    return corrected


def combine_seeds(values: Sequence[float]) -> tuple[float, float | None, int]:
    """Mean, sample standard deviation (None for a single run) and number of runs that differ only in their seed."""
    if not values:
        raise ValueError("values is empty: there is no run to combine.")
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else None, int(array.size)
