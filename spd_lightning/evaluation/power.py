"""Stage 4: how many examples a comparison would need, by the test that the comparison uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from spd_lightning.evaluation.statistics import ALPHA


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
    normal = NormalDist()
    z_level, z_power = normal.inv_cdf(1 - ALPHA / max(family, 1) / 2), normal.inv_cdf(power)
    n, delta = comparison["n"], abs(comparison["delta"])
    if delta == 0:
        return None
    if comparison.get("only_a") is not None:
        differ = (comparison["only_a"] + comparison["only_b"]) / n
        spread = z_level * math.sqrt(differ) + z_power * math.sqrt(max(0.0, differ - delta**2))
        needed = (spread / delta) ** 2
        return math.ceil(needed / 4 * (1 + math.sqrt(1 + 4 / (needed * delta))) ** 2)
    if comparison.get("stderr"):
        needed = n * ((z_level + z_power) * comparison["stderr"] / delta) ** 2
        return math.ceil(needed + z_level**2 / 2)  # what a spread that is estimated costs beside a known one
    return None
