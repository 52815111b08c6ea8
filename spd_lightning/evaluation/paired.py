"""Stage 4: whether two methods differ on the same examples. Interval and p-value are one procedure, in one function.

The p-value is below ``1 - confidence`` exactly where the interval leaves 0 out, so a table never says both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spd_lightning.evaluation.distributions import binomial_lower, clopper_pearson, t_p_value
from spd_lightning.evaluation.statistics import jackknife_error, t_interval


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What separates two methods, a and b, on the same examples.

    Attributes:
        delta: Score of b minus that of a.
        interval: Of delta; None where the examples show no spread to make one from.
        p_value: Two-sided, of the same procedure.
        test: ``mcnemar_exact`` or ``paired_t``.
        only_a: Examples that a alone got right; None where answers are not right or wrong.
        only_b: Examples that b alone got right.
        stderr: Standard error of delta, for means of two examples and more.
    """

    delta: float
    interval: tuple[float, float] | None
    p_value: float
    test: str
    only_a: int | None = None
    only_b: int | None = None
    stderr: float | None = None


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


def share_difference(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> Difference:
    """Difference of two shares of right answers: exact McNemar test, and the interval that belongs to it.

    Of the ``d = only_a + only_b`` examples on which the methods differ, ``only_b`` speak for b. The test asks whether
    their share ``t`` may be one half; the interval is ``(2 t - 1) s`` over all ``t`` that the same test does not reject
    and all ``s`` that may be the share of examples that differ (Clopper and Pearson's limits for both). Since ``s`` is
    never negative, 0 is outside exactly where the test rejects one half.

    With ``s = d / n`` as seen, the interval would be narrower and would not cover: in 50 to 60 of 100 trials only where
    all changes go one way, since it would end at the difference seen. So it covers 96 to 100 (``docs/scoring.md``).

    Args:
        only_a: Examples that a alone got right.
        only_b: Examples that b alone got right.
        n: Examples that both answered.
        confidence: Two-sided coverage.
    """
    d = only_a + only_b
    p_value = mcnemar_exact(only_a, only_b)
    if n < max(d, 1):
        raise ValueError(f"only_a={only_a}, only_b={only_b}, n={n}: needs only_a + only_b <= n and n >= 1.")
    few, many = clopper_pearson(d, n, confidence)
    if d == 0:
        interval = (-many, many)
    else:
        # The test decides on which side of one half the nearer limit lies, the search only where there.
        tail, significant = (1 - confidence) / 2, p_value < 1 - confidence
        least = {k: (0.5, 1.0) if significant and 2 * k > d else (0.0, 0.5) for k in (only_a, only_b)}
        low = 2 * binomial_lower(only_b, d, tail, *least[only_b]) - 1
        high = 1 - 2 * binomial_lower(only_a, d, tail, *least[only_a])
        interval = (low * (few if low > 0 else many), high * (many if high > 0 else few))
    delta = (only_b - only_a) / n
    return Difference(
        delta=delta, interval=interval, p_value=p_value, test="mcnemar_exact", only_a=only_a, only_b=only_b
    )


def mean_difference(
    a: ArrayLike,
    b: ArrayLike,
    weights: ArrayLike | None = None,
    bound: float | None = None,
    confidence: float = 0.95,
) -> Difference:
    """Difference of the (weighted) means of two methods: Student's t on the differences, example by example.

    Interval and p-value share the jackknife standard error and n - 1 degrees of freedom. Differences that are all equal
    have no spread to judge by: no interval, and nothing is claimed (p = 1).

    Args:
        a: One number per example for the first method, shape ``[n]``.
        b: The same examples, same order, for the second.
        weights: Shape ``[n]``; the means are ``sum(weight * value) / sum(weight)``. None weighs every example alike.
        bound: The largest difference that one example can show (1 for shares such as pass@k). The interval is cut
            there; where no example differs, it is the exact limit of the share of examples that do, times this.
        confidence: Two-sided coverage.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"a has shape {first.shape}, b has {second.shape}: the same examples are needed.")
    differences = second - first
    weight = np.ones_like(first) if weights is None else np.asarray(weights, dtype=np.float64)
    n, limits = len(differences), None if bound is None else (-bound, bound)
    delta = float((differences * weight).sum() / weight.sum())
    error = jackknife_error(differences, weight)
    interval, p_value = t_interval(delta, error, n, confidence, limits), 1.0
    if error:
        p_value = t_p_value(delta / error, n - 1)
    elif bound is not None and not differences.any():
        most = bound * clopper_pearson(0, n, confidence)[1]
        interval = (-most, most)
    return Difference(delta=delta, interval=interval, p_value=p_value, test="paired_t", stderr=error)
