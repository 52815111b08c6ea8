"""Stage 4: the two distributions that tests and intervals stand on, binomial and Student's t. Python alone, no tables.

Both are one function, the regularised incomplete beta function. A quantile is found by halving an interval on that same
function, so a limit and the p-value it belongs to do not fall on different sides of a level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function ``I_x(a, b)``: the share of a beta distribution that lies below ``x``.

    By its continued fraction (Abramowitz and Stegun 26.5.8), on the side of the mean where that converges fast.

    >>> round(incomplete_beta(2, 1, 0.5), 12)  # x squared
    0.25
    """
    if not (a > 0 and b > 0 and 0 <= x <= 1):
        raise ValueError(f"a={a}, b={b}, x={x}: needs a > 0, b > 0 and 0 <= x <= 1.")
    if x in (0, 1):
        return float(x)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    # 1 + d1 / (1 + d2 / (1 + ...)), as a product of ratios of successive numerators and denominators (Lentz)
    fraction, upper, lower = 1.0, 1.0, 0.0
    for step in range(1, 100_000):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        upper = 1.0 + d / (upper or 1e-300)
        lower = 1.0 / ((1.0 + d * lower) or 1e-300)
        fraction *= upper * lower
        if abs(upper * lower - 1.0) < 2e-16:
            return min(1.0, math.exp(front) / (a * fraction))
    raise ArithmeticError(f"incomplete_beta({a}, {b}, {x}) did not converge.")


def root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function passes zero between ``low`` and ``high``, to the last bit that halving reaches."""
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return middle


def binomial_lower(successes: int, n: int, tail: float, low: float = 0.0, high: float = 1.0) -> float:
    """The probability at which ``successes`` or more of ``n`` are as rare as ``tail``: Clopper and Pearson's limit.

    Args:
        successes: Number seen, 0 to ``n``.
        n: Number of trials.
        tail: One-sided level, e.g. 0.025 for a two-sided 95% interval.
        low: The limit is known not to lie below this.
        high: Nor above this.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes={successes} of n={n}: needs 0 <= successes <= n and n >= 1.")
    if successes == 0:
        return 0.0
    return root(lambda p: incomplete_beta(successes, n - successes + 1, p) - tail, low, high)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a share (Clopper and Pearson 1934): all shares that an exact binomial test does not reject."""
    tail = (1 - confidence) / 2
    return binomial_lower(successes, n, tail), 1.0 - binomial_lower(n - successes, n, tail)


def t_p_value(t: float, df: float) -> float:
    """Two-sided p-value of a value of Student's t with ``df`` degrees of freedom."""
    return incomplete_beta(df / 2, 0.5, df / (df + t * t))


@lru_cache(maxsize=1024)
def t_limit(df: float, confidence: float = 0.95) -> float:
    """How far Student's t lies from 0 with this probability, on either side: ``t_p_value`` is ``1 - confidence`` there.

    >>> round(t_limit(2), 3)
    4.303
    """
    high = 1.0
    while t_p_value(high, df) > 1 - confidence:
        high *= 2
    return root(lambda t: 1 - confidence - t_p_value(t, df), 0.0, high)
