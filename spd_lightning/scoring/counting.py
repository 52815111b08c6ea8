"""What one example counts in a metric, from the records of its completions; the table of metrics is in ``verdicts.py``.

A record is one line of ``samples/<task>.<method>.jsonl``: a completion with its verdict. A score is the sum of what its
examples count over the sum of their weights, so value, interval and n come of the same pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spd_lightning.scoring.answers import extract_number, gold_number, numbers_equal

Record = dict[str, Any]
RECORD_KEYS = ("id", "sample", "prompt", "completion", "answer", "expected", "correct", "reason", "scores")
WRITTEN_KEYS = ("num_tokens", "finish_reason")  # behind them where a completion was written, as in a corpus
Counts = Callable[[Sequence[Record], int], tuple[float, float]]


@dataclass(frozen=True)
class Metric:
    """One number of a benchmark.

    Attributes:
        about: What it is, for people.
        counts: Total and weight of one example, from its records (one per sample) and the metric's k.
        share: Whether it is a share (0 to 1, higher is better); otherwise it is nats, lower is better.
    """

    about: str
    counts: Counts
    share: bool = True


def of_verdict(records: Sequence[Record], k: int = 1) -> tuple[float, float]:
    """1 for a right answer, the share of right ones for several."""
    return sum(bool(r["correct"]) for r in records) / len(records), 1.0


def of_marked_number(records: Sequence[Record], k: int = 1) -> tuple[float, float]:
    """1 where the number after ``####`` is the gold answer."""
    gold = gold_number(records[-1]["expected"])
    marked = [extract_number(r["completion"], "strict")[0] for r in records]
    return sum(numbers_equal(number, gold) for number in marked) / len(marked), 1.0


def of_losses(unit: str) -> Counts:
    """The loss of the target, weighted by its ``tokens`` or ``chars``: long texts count as much as they are long."""
    return lambda records, k: (records[-1]["scores"]["nll"], float(records[-1]["scores"][unit]))


def of_passes(passed: Callable[[Record], bool | float]) -> Counts:
    """`pass_at_k` of a problem whose samples pass as ``passed`` says."""
    return lambda records, k: (pass_at_k(len(records), sum(bool(passed(r)) for r in records), k), 1.0)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of n samples, drawn without replacement, hold at least one of the c that pass (arXiv:2107.03374).

    >>> pass_at_k(n=5, c=1, k=5)
    1.0
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"n={n}, c={c}, k={k}: needs 1 <= k <= n and 0 <= c <= n.")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)
