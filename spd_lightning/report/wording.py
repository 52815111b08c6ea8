"""How values, intervals, p-values, metrics, benchmarks and methods are written, in every table, plot and sentence.

Shares are printed in per cent with one decimal, negative log-likelihoods in nats with three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spd_lightning.evaluation.statistics import ALPHA
from spd_lightning.generation.methods import METHODS
from spd_lightning.scoring.verdicts import is_share

SHOWN_METHODS = ("base", "projected", *METHODS)  # in this order


def format_value(value: float | None, metric: str, sign: bool = False, more: int = 0) -> str:
    """A score: per cent with one decimal for shares, nats with three otherwise; ``more`` decimals on request."""
    if value is None:
        return "-"
    plus = "+" if sign else ""
    return f"{100 * value:{plus}.{1 + more}f}" if is_share(metric) else f"{value:{plus}.{3 + more}f}"


def format_interval(interval: Sequence[float] | None, metric: str, sign: bool = False) -> str:
    """``[low, high]`` in the unit of the metric; empty without an interval.

    An end of a difference's interval has more decimals where it would read as 0: they say on which side of it it is.

    >>> format_interval((0.0003, 0.083), "acc", sign=True), format_interval((0.0, 0.083), "acc", sign=True)
    ('[+0.03, +8.3]', '[+0.0, +8.3]')
    """
    if interval is None:
        return ""
    return "[" + ", ".join(_end(v, metric) if sign else format_value(v, metric) for v in interval) + "]"


def _end(value: float, metric: str) -> str:
    """An end of a difference's interval, of at most three more decimals; what is 0 in those too is a rounding's."""
    texts = [format_value(value, metric, sign=True, more=more) for more in range(4)]
    return next((text for text in texts if float(text)), texts[0])


def format_p(p: float | None) -> str:
    """A p-value with three decimals, or ``<0.001``; with more where three would put it on the other side of the level.

    >>> format_p(0.0497), format_p(0.0503)
    ('0.0497', '0.050')
    """
    if p is None or p < 0.001:
        return "-" if p is None else "<0.001"
    return next(text for digits in range(3, 20) if (float(text := f"{p:.{digits}f}") < ALPHA) is (p < ALPHA))


def equals_p(p: float) -> str:
    """A p-value in a sentence: ``= 0.012``, ``<0.001``."""
    text = format_p(p)
    return text if text.startswith("<") else f"= {text}"


def format_kl(value: float) -> str:
    """Four decimals, below 0.001 two digits: 0.0000 is that of a student that stayed."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"


def format_any(value: Any) -> str:
    """Whatever a fact holds, in one line: large counts grouped, floats with four digits."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(format_any(v) for v in value[:8])
        return shown + (f", ... ({len(value)} in all)" if len(value) > 8 else "")
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {format_any(v)}" for k, v in value.items())
    return str(value)


def benchmark_name(row: Mapping[str, Any]) -> str:
    """Task of a row, with its protocol unless that is the standard one."""
    protocol = row["protocol"]
    return (
        row["task"] if protocol == "standard" or row["task"].endswith(f":{protocol}") else f"{row['task']} ({protocol})"
    )


def metric_name(metric: str) -> str:
    """Metric with its unit and, where lower is better, a word on that."""
    return f"{metric} (%)" if is_share(metric) else f"{metric} (nats, lower is better)"


def method_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order in which they are shown: base, projected, then what was trained."""
    found = set(methods)
    return [m for m in SHOWN_METHODS if m in found] + sorted(found - set(SHOWN_METHODS))


def format_word(row: Mapping[str, Any]) -> str:
    """The word of a comparison; *no difference* with what it was tested against: the interval may well leave out 0."""
    if row["word"] == "no difference" and row.get("margin"):
        return f"no difference of {100 * row['margin']:g} points"
    return str(row["word"])
