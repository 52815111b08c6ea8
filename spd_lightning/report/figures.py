"""The charts of a report, from what a run recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spd_lightning.report.chart import (
    COLOURS,
    Bar,
    Bars,
    Curve,
    HeatMap,
    Histogram,
    Intervals,
    Lines,
    Point,
    Row,
)
from spd_lightning.report.runs import Run
from spd_lightning.report.sweeps import Grid
from spd_lightning.report.wording import benchmark_name, format_interval, format_value, method_order, metric_name
from spd_lightning.scoring.verdicts import is_share

GROUPS = {
    "in": "In: the task trained on",
    "transfer": "Transfer: another task of its domain",
    "out": "Out: other domains",
    None: "Not trained on any",
}
"""Splits, in the order in which they are shown."""


def value_with_interval(value: float, interval: Sequence[float] | None, metric: str, sign: bool = False) -> str:
    """A value and its interval, as tables write them."""
    return f"{format_value(value, metric, sign)} {format_interval(interval, metric, sign)}".strip()


def point(
    value: float,
    interval: Sequence[float] | None,
    metric: str,
    series: int = 0,
    strong: bool = True,
    sign: bool = False,
) -> Point:
    """A share with its interval, in per cent."""
    low, high = (None, None) if interval is None else (100 * v for v in interval)
    return Point(100 * value, low, high, value_with_interval(value, interval, metric, sign), series, strong)


def scores(run: Run) -> Intervals | None:
    """Value and 95% interval per method and benchmark, shares only; None without any."""
    found = [s for s in run.scores if is_share(s["metric"])]
    if not found:
        return None
    methods = method_order(s["method"] for s in found)
    rows = []
    for key in dict.fromkeys((s["task"], s["protocol"], s["metric"]) for s in found):
        here = {s["method"]: s for s in found if (s["task"], s["protocol"], s["metric"]) == key}
        first = next(iter(here.values()))
        points = tuple(
            point(s["value"], s["ci95"], s["metric"], methods.index(m)) for m in methods if (s := here.get(m))
        )
        counts = "/".join(dict.fromkeys(str(here[m]["n"]) for m in methods if m in here))
        rows.append(Row(f"{benchmark_name(first)}, {first['metric']}, n={counts}", points))
    return Intervals("Scores", "score (%), with 95% interval", rows, tuple(methods))


def moved(answers: Sequence[Mapping[str, Any]]) -> Bars | None:
    """Per benchmark: answers that became right and wrong, and what of the difference is parsing and what accuracy.

    All in points of the score. None without greedy answers that are right or wrong.

    Args:
        answers: Rows ``answers`` of ``moved`` in ``results.json``.
    """
    rows = []
    for row in answers:
        if row["right_to_wrong"] is None:
            continue
        gained, lost = (100 * row[name] / row["n"] for name in ("wrong_to_right", "right_to_wrong"))
        marks = tuple((i, 100 * row[name]) for i, name in enumerate(("from_parsing", "from_accuracy")))
        text = f"{row['wrong_to_right']} gained, {row['right_to_wrong']} lost"
        rows.append(Bar(f"{row['task']}, n={row['n']}", ((0, gained), (1, -lost)), text, marks))
    if not rows:
        return None
    return Bars(
        "Answers that changed, and the two parts of the difference",
        "points of the score",
        rows,
        ("wrong to right", "right to wrong"),
        ("difference by what can be read", "difference by accuracy"),
    )


def time(stages: Sequence[Mapping[str, Any]], runs: int = 1) -> Bars | None:
    """Wall-clock seconds of each stage that was computed; None without any.

    Args:
        stages: Rows ``stages`` of ``results.json``, of one run or of several.
        runs: How many runs they are of.
    """
    seconds: dict[str, float] = {}
    reused: dict[str, int] = {}
    for row in stages:
        if row["skipped"]:
            reused[row["stage"]] = reused.get(row["stage"], 0) + 1
        if row["seconds"] is not None:
            seconds[row["stage"]] = seconds.get(row["stage"], 0.0) + row["seconds"]
    total = sum(seconds.values())
    if not total:
        return None
    scale, unit = next(
        (s, u) for s, u in ((3600, "hours"), (60, "minutes"), (1, "seconds")) if total >= 3 * s or s == 1
    )
    rows = []
    for stage, value in seconds.items():
        text = f"{value / scale:,.1f} {unit}, {100 * value / total:.0f}%"
        again = reused.get(stage, 0)
        label = stage if not again else f"{stage} ({'reused' if runs == 1 else f'{again} reused'})"
        rows.append(Bar(label, ((0, value / scale),), text))
    return Bars("Where the time went", f"{unit} ({total / scale:,.1f} in all)", rows)


def spectrum(run: Run) -> Lines | None:
    """Singular values per site, as a share of the largest, with the kept rank marked; None without a subspace."""
    if not run.spectra:
        return None
    layers = sorted({s.layer for s in run.spectra})
    many, curves = len(layers) > len(COLOURS), []
    for s in run.spectra:
        values = s.values / max(float(s.values[0]), np.finfo(np.float32).tiny)
        shown = [(i + 1.0, float(v)) for i, v in enumerate(values) if v > 1e-8] or [(1.0, 1.0)]
        place = layers.index(s.layer)
        name = f"layer {s.layer}, {s.side.upper()}: rank {s.rank} holds {100 * s.energy:.1f}%"
        depth = (s.layer - layers[0]) / (layers[-1] - layers[0]) if many else None
        mark = shown[min(s.rank, len(shown)) - 1]
        curves.append(Curve(name, shown, 0 if many else place, s.side == "v", depth, mark))
    scale = ("layer (solid: K, dashed: V)", str(layers[0]), str(layers[-1])) if many else None
    ranks = tuple(float(r) for r in sorted({s.rank for s in run.spectra}))
    title = "Spectrum of the K/V gradients; the mark is the rank kept"
    return Lines(title, "component", "singular value / largest", curves, True, ranks, scale)


def losses(run: Run) -> Lines | None:
    """Training and validation loss over optimiser steps, as far as they are numbers; None where nothing was logged."""
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in run.losses.items()}
    found = [(name, points) for name, points in finite.items() if points]
    curves = [Curve(name, [(float(x), y) for x, y in p], i, i % 2 == 1) for i, (name, p) in enumerate(found)]
    return Lines("Loss in fine-tuning", "optimiser step", "loss (nats per token)", curves) if curves else None


def lengths(run: Run) -> Histogram | None:
    """Histogram of completion lengths, stopped and cut off; None without a corpus."""
    if not run.completions:
        return None
    stopped = [r["num_tokens"] for r in run.completions if r["finish_reason"] == "stop"]
    cut = [r["num_tokens"] for r in run.completions if r["finish_reason"] != "stop"]
    longest = max([*stopped, *cut, 1])
    size = -(-(longest + 1) // 32)  # whole tokens: bins of 1.3 would hold one length or two in turns
    edges = np.arange(0, longest + 1 + size, size, dtype=np.float64)
    counts = [np.histogram(values, edges)[0].tolist() for values in (stopped, cut)]
    series = (f"stopped by itself ({len(stopped)})", f"cut off at the limit ({len(cut)})")
    return Histogram("Lengths of the completions", "tokens", "completions", edges.tolist(), counts, series)


def overlap(matrix: Sequence[Sequence[float]], labels: Sequence[str], expected: float | None = None) -> HeatMap:
    """Overlap of subspaces, pair by pair.

    Args:
        matrix: Mean squared cosine of the principal angles, 0 to 1, shape ``[n, n]``; NaN stays blank.
        labels: Names of the n subspaces.
        expected: What two random subspaces of this rank would show (rank / kv_dim); written into the title.
    """
    texts = [["" if math.isnan(v) else f"{v:.2f}" for v in row] for row in matrix]
    chance = "" if expected is None else f" (by chance {expected:.2f})"
    return HeatMap(f"Overlap of subspaces{chance}", "mean squared cosine", labels, labels, matrix, texts, 0.0, 1.0)


def surface(grid: Grid) -> HeatMap:
    """The trained method's score over two options of a sweep, each cell with its interval.

    The colours span at least the width of an interval, `Grid.noise`, so that noise does not look like a slope.
    """
    scale = 100.0 if is_share(grid.metric) else 1.0
    values = [[math.nan if v is None else scale * v for v in row] for row in grid.values]
    texts = [
        [format_value(v, grid.metric) + (f"\n{format_interval(i, grid.metric)}" if i else "") for v, i in zip(*lines)]
        for lines in zip(grid.values, grid.intervals)
    ]
    there = [v for row in values for v in row if not math.isnan(v)]
    middle, half = (min(there) + max(there)) / 2, max(max(there) - min(there), scale * grid.noise) / 2
    return HeatMap(
        grid.title,
        metric_name(grid.metric),
        grid.rows,
        grid.columns,
        values,
        texts,
        middle - half,
        middle + half,
        grid.row_option,
        grid.column_option,
    )
