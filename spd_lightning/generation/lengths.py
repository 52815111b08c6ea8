"""How long the completions of a corpus are, and how they end. Loads no model library: the report counts with it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def length_figures(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Lengths and endings of the completions of a corpus.

    Args:
        records: Records of the corpus, at least one.

    Returns:
        ``n``; ``tokens_mean``, ``tokens_median``, ``tokens_max``, ``tokens_total``; shares (0 to 1) ``stopped`` and
        ``empty``.
    """
    lengths = [r["num_tokens"] for r in records]
    return {
        "n": len(records),
        "tokens_mean": statistics.fmean(lengths),
        "tokens_median": statistics.median(lengths),
        "tokens_max": max(lengths),
        "tokens_total": sum(lengths),
        "stopped": statistics.fmean(r["finish_reason"] == "stop" for r in records),
        "empty": statistics.fmean(not r["completion"].strip() for r in records),
    }
