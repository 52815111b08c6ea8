"""Stage 4: how sure a score is. The same numbers on every run: nothing is drawn at random.

Shares of right answers get Wilson's interval; means (pass@k of several samples, log-likelihoods) and runs of several
seeds get Student's t. Two methods are compared in `paired`; the p-values of one table are corrected by Holm's step-down
rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from spd_lightning.evaluation.distributions import t_limit

ALPHA = 0.05
"""The level of every test; intervals are of 95%, its complement."""


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


def jackknife_error(values: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Standard error of a (weighted) mean over examples; None for fewer than two.

    Without weights, the sample standard deviation over the root of n. With them the mean is a ratio of sums (a loss per
    token over texts of different lengths), and each example is left out once: leaving one out counts long texts for
    what they are, where the usual linear formula is too small (at 20 texts, 95% intervals covered 92% with it).

    Args:
        values: One number per example, shape ``[n]``.
        weights: Shape ``[n]``; the mean is ``sum(weight * value) / sum(weight)``. None weighs every example alike.
    """
    value = np.asarray(values, dtype=np.float64)
    weight = np.ones_like(value) if weights is None else np.asarray(weights, dtype=np.float64)
    if value.size < 2:
        return None
    if (value == value[0]).all():
        return 0.0  # not the rounding of their mean
    total = weight.sum()
    moved = weight * (value - (weight * value).sum() / total) / (total - weight)  # by leaving each one out
    return float(math.sqrt((1 - 1 / value.size) * (moved**2).sum()))


def t_interval(
    mean: float,
    error: float | None,
    n: int,
    confidence: float = 0.95,
    limits: tuple[float, float] | None = None,
) -> tuple[float, float] | None:
    """Student's t interval of a mean; None without a spread (fewer than two values, or all of them equal).

    Args:
        mean: The mean.
        error: Its standard error.
        n: Number of values behind it; n - 1 degrees of freedom.
        confidence: Two-sided coverage.
        limits: Between which the mean must lie (0 and 1 for shares): the interval is cut there.
    """
    if not error:
        return None
    half = t_limit(n - 1, confidence) * error
    low, high = (-math.inf, math.inf) if limits is None else limits
    return max(low, mean - half), min(high, mean + half)


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


def over_seeds(
    values: Sequence[float], limits: tuple[float, float] | None = None
) -> tuple[float, float | None, tuple[float, float] | None]:
    """Mean, sample standard deviation and 95% t interval of runs that differ only in their seed.

    The interval is that of the mean over seeds on these examples: how far other seeds would move it, not other
    examples. Two runs have a standard deviation but no interval (with one degree of freedom it would be 9 of them wide
    on either side); nor have runs that are all equal, which show no spread.

    Args:
        values: One score per seed.
        limits: Between which a score lies; the interval is cut there.
    """
    if not values:
        raise ValueError("values is empty: there is no run to combine.")
    array = np.asarray(values, dtype=np.float64)
    mean, n = float(array.mean()), int(array.size)
    if n == 1:
        return mean, None, None
    deviation = 0.0 if (array == array[0]).all() else float(array.std(ddof=1))
    return mean, deviation, t_interval(mean, deviation / math.sqrt(n), n, limits=limits) if n > 2 else None
