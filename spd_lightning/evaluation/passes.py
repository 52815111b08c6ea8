"""Stage 4: pass@k of several samples an example, and the k at which base and student change places.

A student that is better at the first try and no better at the 64th has learned to say first what the base would have
said among others: it is sharper, and knows no more (arXiv:2504.13837).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from spd_lightning.evaluation.scores import BenchmarkResult
from spd_lightning.scoring.counting import Record

MOST = 64


def pass_curve(records: Sequence[Record]) -> list[float]:
    """pass@1, pass@2, .. up to as many as every example has samples, 64 at most: unbiased, averaged over examples."""
    of_example: dict[str, list[bool]] = {}
    for r in records:
        of_example.setdefault(r["id"], []).append(bool(r["correct"]))
    counts = Counter((len(passed), sum(passed)) for passed in of_example.values())
    most = min([MOST, *(n for n, _ in counts)]) if counts else 0
    return [_mean_pass(counts, k) for k in range(1, most + 1)]


def _mean_pass(counts: Mapping[tuple[int, int], int], k: int) -> float:
    """Mean of `pass_at_k` over examples, how many there are of each (samples, right ones).

    In fractions: two methods that are level are equal here, and rounding puts neither ahead.
    """
    missed = sum(Fraction(times * math.comb(n - c, k), math.comb(n, k)) for (n, c), times in counts.items())
    return float(1 - missed / sum(counts.values()))


def crossover(base: Sequence[float], other: Sequence[float]) -> int | None:
    """The smallest k from which on the one that is behind at k = 1 is ahead or level up to the last k; None if there is
    none, or if they are level at 1.

    >>> crossover([0.2, 0.4, 0.5], [0.3, 0.4, 0.45])
    2
    """
    signs = [(b > a) - (b < a) for a, b in zip(base, other)]
    if not signs or signs[0] == 0:
        return None
    from_end = next((i for i, sign in enumerate(reversed(signs)) if sign == signs[0]), len(signs))
    return None if from_end == 0 else len(signs) - from_end + 1


def pass_rows(results: Sequence[BenchmarkResult]) -> list[dict[str, Any]]:
    """``passes`` of results.json: a row for each benchmark and method with several samples an example.

    Returns:
        Rows with ``task``, ``protocol``, ``method``, ``n``, ``samples``, ``decoding``, ``pass`` (by k: powers of two
        and the last), ``crossover`` with the base (None: there is none, or it is the base) and ``ahead_at_1`` (whether
        the method is, of the two; None where they are level or it is the base).
    """
    curves = {(r.task, r.method): pass_curve(r.records) for r in results if r.facts.get("num_samples", 1) > 1}
    rows = []
    for r in results:
        own, base = curves.get((r.task, r.method)), curves.get((r.task, "base"), [])
        if own is None:
            continue
        against = base if r.method != "base" else []
        ahead = own[0] > against[0] if against and own[0] != against[0] else None
        rows.append(
            {
                "task": r.task,
                "protocol": r.protocol,
                "method": r.method,
                "n": len({record["id"] for record in r.records}),
                "samples": r.facts["num_samples"],
                "decoding": r.facts.get("decoding"),
                "pass": _shown(own),
                "crossover": crossover(against, own),
                "ahead_at_1": ahead,
            }
        )
    return rows


def _shown(curve: Sequence[float]) -> Mapping[str, float]:
    shown = sorted({k for k in (2**i for i in range(7)) if k <= len(curve)} | {len(curve)})
    return {str(k): curve[k - 1] for k in shown}
