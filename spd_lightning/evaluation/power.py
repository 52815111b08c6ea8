"""Stage 4: what a design can see: examples that a comparison would need, smallest effects, equivalence and its power.

Powers of Student's t are means over the error that might have been estimated: that of ``df`` degrees of freedom is the
true one times the root of a chi-square over df.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from spd_lightning.evaluation.distributions import root, t_limit, t_p_value
from spd_lightning.evaluation.statistics import ALPHA

ENOUGH_POWER = 0.8
_POINTS = 2001  # of the error's distribution: the powers are exact to 1e-6


def examples_needed(comparison: Mapping[str, Any], family: int = 1, power: float = 0.8) -> int | None:
    """Examples at which the comparison's own test would show the difference seen, if that were the true one.

    Both tests are asked at the level ``ALPHA / family``, at which Holm's correction marks a comparison whatever the
    others of the table say. For exact McNemar the number of differing examples grows with n, their direction stays; the
    normal approximation (Miettinen 1968) is corrected for the steps of the exact test's counts, which errs on the safe
    side where all changes go one way. For Student's t the standard error falls with the root of n.

    Args:
        comparison: A row of ``results.json``: ``test``, ``n``, ``delta``, and ``only_a``, ``only_b`` or ``stderr``.
        family: Comparisons that are corrected together.
        power: Chance that the test shows the difference.

    Returns:
        The number, or None where there is no difference or the row does not say enough.
    """
    delta = abs(comparison["delta"])
    needed = _examples_for(delta, comparison, family, power) if delta else None
    return None if needed is None else math.ceil(needed)


def smallest_difference(comparison: Mapping[str, Any], family: int = 1, power: float = ENOUGH_POWER) -> float | None:
    """The smallest true difference that a comparison's own test shows with its examples, at the spread seen.

    Of these two students: another training would give other ones.

    Args:
        comparison: See `examples_needed`.
        family: Comparisons that are corrected together.
        power: Chance that the test shows the difference.

    Returns:
        The difference, or None where no difference would be shown (too few examples differ), or the row does not say
        enough.
    """
    n, largest = comparison["n"], 1.0
    if comparison.get("only_a") is not None:
        largest = (comparison["only_a"] + comparison["only_b"]) / n  # all changes go one way
    elif comparison.get("stderr"):
        largest = comparison["stderr"] * math.sqrt(n) * 100
    most = _examples_for(largest, comparison, family, power) if largest else None
    if most is None or most > n:
        return None
    return root(lambda delta: n - (_examples_for(delta, comparison, family, power) or math.inf), 0.0, largest)


def _examples_for(delta: float, comparison: Mapping[str, Any], family: int, power: float) -> float | None:
    """Examples at which a true difference of this size would be shown, at the spread of a comparison."""
    normal = NormalDist()
    z_level, z_power = normal.inv_cdf(1 - ALPHA / max(family, 1) / 2), normal.inv_cdf(power)
    n = comparison["n"]
    if comparison.get("only_a") is not None:
        differ = (comparison["only_a"] + comparison["only_b"]) / n
        spread = z_level * math.sqrt(differ) + z_power * math.sqrt(max(0.0, differ - delta**2))
        needed = (spread / delta) ** 2
        return needed / 4 * (1 + math.sqrt(1 + 4 / (needed * delta))) ** 2
    if comparison.get("stderr"):
        needed = n * ((z_level + z_power) * comparison["stderr"] / delta) ** 2
        return float(needed + z_level**2 / 2)  # what a spread that is estimated costs beside a known one
    return None


def _estimated_errors(df: float) -> tuple[np.ndarray, np.ndarray]:
    """Estimated over true standard error, and the weights of these values."""
    reach = 8 / math.sqrt(2 * df)
    ratio = np.linspace(max(1e-9, 1 - reach), 1 + reach, _POINTS)
    density = (df - 1) * np.log(ratio) - df * ratio**2 / 2
    weights = np.exp(density - density.max())
    return ratio, weights / weights.sum()


_ERF = np.vectorize(math.erf)


def _normal(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = (1 + _ERF(values / math.sqrt(2))) / 2
    return found


def power_of_t(effect: float, error: float, df: float, level: float = ALPHA) -> float:
    """Chance that a two-sided t test shows a true effect.

    Args:
        effect: The true difference.
        error: Its standard error.
        df: Degrees of freedom of the estimated one.
        level: Of the test.
    """
    ratio, weights = _estimated_errors(df)
    limit, shift = t_limit(df, 1 - level) * ratio, effect / error
    return float((weights * (_normal(shift - limit) + _normal(-shift - limit))).sum())


def smallest_effect(error: float, df: float, power: float = ENOUGH_POWER, level: float = ALPHA) -> float:
    """The smallest true difference that a design shows with this chance."""
    high = 1.0
    while power_of_t(high, 1.0, df, level) < power:
        high *= 2
    return error * root(lambda shift: power_of_t(shift, 1.0, df, level) - power, 0.0, high)


def equivalence_p(delta: float, error: float, df: float, margin: float) -> float:
    """p-value of two one-sided t tests (Schuirmann 1987): that the true difference lies within ``margin`` of 0.

    Below 0.05 exactly where the 90% interval lies within the margin.
    """
    if abs(delta) >= margin:
        return 1 - t_p_value((abs(delta) - margin) / error, df) / 2
    return t_p_value((margin - abs(delta)) / error, df) / 2


def equivalence_power(error: float, df: float, margin: float, level: float = ALPHA) -> float:
    """Chance that two one-sided tests show equivalence where the true difference is 0, at the spread seen."""
    ratio, weights = _estimated_errors(df)
    room = margin / error - t_limit(df, 1 - 2 * level) * ratio
    return float((weights * np.maximum(0.0, 2 * _normal(room) - 1)).sum())


def word_of(delta: float, p_value: float | None, error: float | None, df: float | None, margin: float | None) -> str:
    """What a comparison over blocks says, in a word.

    Args:
        delta: Score of b minus that of a.
        p_value: Corrected over its family; None where none was made.
        error: Standard error; None without enough blocks.
        df: Of the error.
        margin: Smallest effect of interest: equivalence is within it. None where none is known.

    Returns:
        ``higher`` or ``lower``; ``no difference`` where equivalence is shown by a design that had the power to; else
        ``undecided``. A design that could not have shown equivalence never says that there is none.
    """
    if p_value is not None and p_value < ALPHA:
        return "higher" if delta > 0 else "lower"
    if error is None or df is None or margin is None or equivalence_power(error, df, margin) < ENOUGH_POWER:
        return "undecided"
    return "no difference" if equivalence_p(delta, error, df, margin) < ALPHA else "undecided"
