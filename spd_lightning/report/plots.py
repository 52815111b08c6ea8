"""Plots of a report, drawn with matplotlib's Agg canvas: no display, no global state, equal input gives equal bytes.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; line styles and markers differ as well.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from spd_lightning.artifacts.files import write_atomic
from spd_lightning.report.render import clean
from spd_lightning.report.runs import Run
from spd_lightning.report.sweeps import Grid
from spd_lightning.report.wording import benchmark_name, format_value, method_order, metric_name
from spd_lightning.scoring.verdicts import is_share

if TYPE_CHECKING:
    from spd_lightning.subspace.compare import SiteComparison

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
STYLES = ("-", "--", "-.", ":")


def write_plot(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, without any date or version in it, atomically."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return write_atomic(path, buffer.getvalue())


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _text(text: object) -> str:
    """Text for a figure: a dollar sign would start a formula."""
    return clean(text).replace("$", r"\$")


def plot_spectrum(run: Run) -> Figure | None:
    """Singular values per site, as a share of the largest, with the kept rank marked; None without a subspace."""
    if not run.spectra:
        return None
    figure, axes = _figure(7.2, 4.0)
    layers = sorted({s.layer for s in run.spectra})
    many = len(layers) > len(COLOURS)
    depth = ScalarMappable(Normalize(layers[0], layers[-1]), "cividis")
    floor = 1.0
    for s in run.spectra:
        i = layers.index(s.layer)
        values = s.values / max(float(s.values[0]), np.finfo(np.float32).tiny)
        positive = values[values > 1e-8]
        floor = min(floor, float(positive.min()) if len(positive) else 1.0)
        colour = depth.to_rgba(np.array([s.layer]))[0] if many else COLOURS[i]
        style = "-" if s.side == "k" else "--"
        axes.plot(
            np.arange(1, len(values) + 1),
            np.maximum(values, 1e-8),
            style,
            color=colour,
            linewidth=1.4,
            label=f"layer {s.layer}, {s.side.upper()}: rank {s.rank} holds {100 * s.energy:.1f}%",
        )
        axes.plot(
            [s.rank], [max(float(values[s.rank - 1]), 1e-8)], "o" if s.side == "k" else "s", color=colour, markersize=6
        )
    for rank in sorted({s.rank for s in run.spectra}):
        axes.axvline(rank, color="grey", linewidth=0.9, linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(floor / 1.5, 1.4)
    axes.set_xlabel("component")
    axes.set_ylabel("singular value / largest")
    axes.set_title("Spectrum of the K/V gradients; dotted: rank kept", fontsize=10)
    if many:
        figure.colorbar(depth, ax=axes, label="layer (solid: K, dashed: V)", ticks=MaxNLocator(integer=True))
    else:
        axes.legend(fontsize=8, frameon=False, title="share of squared singular values", title_fontsize=8)
    return figure


def plot_scores(run: Run) -> Figure | None:
    """Value and 95% interval per method and benchmark, shares only (per cent); None without any."""
    scores = [s for s in run.scores if is_share(s["metric"])]
    if not scores:
        return None
    methods = method_order(s["method"] for s in scores)
    keys = list(dict.fromkeys((s["task"], s["protocol"], s["metric"]) for s in scores))
    figure, axes = _figure(7.2, 1.2 + 0.22 * len(keys) * max(len(methods), 2))
    step = 0.7 / max(len(methods), 1)
    labels = []
    for row, key in enumerate(keys):
        found = {s["method"]: s for s in scores if (s["task"], s["protocol"], s["metric"]) == key}
        first = next(iter(found.values()))
        labels.append(_text(f"{benchmark_name(first)}\n{first['metric']}, n={first['n']}"))
        for j, method in enumerate(methods):
            if method not in found:
                continue
            value, interval = found[method]["value"], found[method]["ci95"]
            y = row + (j - (len(methods) - 1) / 2) * step
            if interval is not None:
                axes.plot([100 * v for v in interval], [y, y], color=COLOURS[j % 7], linewidth=1.8, alpha=0.6)
            axes.plot([100 * value], [y], MARKERS[j % 7], color=COLOURS[j % 7], markersize=6)
    for j, method in enumerate(methods):
        axes.plot([], [], MARKERS[j % 7], color=COLOURS[j % 7], linestyle="-", label=_text(method))
    for row in range(1, len(keys)):
        axes.axhline(row - 0.5, color="grey", linewidth=0.5, alpha=0.4)
    axes.grid(axis="y", visible=False)
    axes.set_yticks(range(len(keys)), labels, fontsize=8)
    axes.set_ylim(len(keys) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("score (%), with 95% interval")
    axes.legend(fontsize=8, frameon=False, ncols=len(methods), loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def plot_moved(answers: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Per benchmark: answers that became right and wrong, and what of the difference is parsing and what accuracy.

    All in points of the score. None without greedy answers that are right or wrong.

    Args:
        answers: Rows ``answers`` of ``moved`` in ``results.json``.
    """
    rows = [row for row in answers if row["right_to_wrong"] is not None]
    if not rows:
        return None
    figure, axes = _figure(7.2, 1.3 + 0.55 * len(rows))
    for y, row in enumerate(rows):
        gained, lost = (100 * row[name] / row["n"] for name in ("wrong_to_right", "right_to_wrong"))
        first = y == 0
        axes.barh(y, gained, 0.55, color=COLOURS[0], alpha=0.5, label="wrong to right" if first else None)
        axes.barh(y, -lost, 0.55, color=COLOURS[1], alpha=0.5, label="right to wrong" if first else None)
        for i, (name, words) in enumerate((("from_parsing", "by what can be read"), ("from_accuracy", "by accuracy"))):
            label = f"difference {words}" if first else None
            axes.plot([100 * row[name]], [y - 0.1 + 0.2 * i], MARKERS[i], color=COLOURS[2 + i], label=label)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="y", visible=False)
    axes.set_yticks(range(len(rows)), [_text(f"{row['task']}\nn={row['n']}") for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("points of the score")
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def plot_losses(run: Run) -> Figure | None:
    """Training and validation loss over optimizer steps; None where nothing was logged."""
    curves = {name: points for name, points in run.losses.items() if points}
    if not curves:
        return None
    figure, axes = _figure(7.2, 3.2)
    for i, (name, points) in enumerate(curves.items()):
        steps, values = zip(*points)
        marker = "o" if len(points) < 30 else ""
        style = STYLES[i % len(STYLES)]
        axes.plot(steps, values, style, marker=marker, markersize=4, color=COLOURS[i % 7], linewidth=1.4, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per token)")
    axes.legend(fontsize=8, frameon=False)
    return figure


def plot_lengths(run: Run) -> Figure | None:
    """Histogram of completion lengths, stopped and cut off; None without a corpus."""
    if not run.completions:
        return None
    figure, axes = _figure(7.2, 3.2)
    stopped = [r["num_tokens"] for r in run.completions if r["finish_reason"] == "stop"]
    cut = [r["num_tokens"] for r in run.completions if r["finish_reason"] != "stop"]
    longest = max([*stopped, *cut, 1])
    bins = np.linspace(0, longest + 1, min(32, longest + 1) + 1)
    axes.hist(
        [stopped, cut],
        bins=bins.tolist(),
        stacked=True,
        color=list(COLOURS[:2]),
        label=[f"stopped by itself ({len(stopped)})", f"cut off at the limit ({len(cut)})"],
    )
    axes.set_xlabel("length of a completion (tokens)")
    axes.set_ylabel("completions")
    axes.legend(fontsize=8, frameon=False)
    return figure


def _cells(axes: Axes, values: np.ndarray, cells: list[list[str]], limits: tuple[float, float]) -> AxesImage:
    """Coloured cells with their text, black or white, whichever can be read on the colour."""
    low, high = limits
    image = axes.imshow(values, cmap="cividis", vmin=low, vmax=high if high > low else low + 1e-9, aspect="auto")
    for i, j in np.ndindex(*values.shape):
        blank = np.isnan(values[i, j])
        colour = "black" if blank or values[i, j] > low + 0.55 * (high - low) else "white"
        axes.text(j, i, cells[i][j], ha="center", va="center", fontsize=8, color=colour)
    return image


def _heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: list[list[str]],
    unit: str,
    limits: tuple[float, float],
) -> tuple[Figure, Axes]:
    """A heat map with the value written in every cell; NaN stays blank."""
    figure = Figure(figsize=(2.6 + 0.85 * len(columns), 1.9 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    image = _cells(axes, values, cells, limits)
    axes.set_xticks(range(len(columns)), [_text(c) for c in columns], rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), [_text(r) for r in rows], fontsize=8)
    bar = figure.colorbar(image, ax=axes, shrink=0.9)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure, axes


def plot_overlap(matrix: Sequence[Sequence[float]], labels: Sequence[str], expected: float | None = None) -> Figure:
    """Overlap of subspaces, pair by pair.

    Args:
        matrix: Mean squared cosine of the principal angles, 0 to 1, shape ``[n, n]``; NaN stays blank.
        labels: Names of the n subspaces.
        expected: What two random subspaces of this rank would show (rank / kv_dim); written into the title.
    """
    values = np.asarray(matrix, dtype=np.float64)
    cells = [["" if np.isnan(v) else f"{v:.2f}" for v in row] for row in values]
    figure, axes = _heat_map(values, labels, labels, cells, "mean squared cosine", (0.0, 1.0))
    chance = "" if expected is None else f" (by chance {expected:.2f})"
    axes.set_title(f"Overlap of subspaces{chance}", fontsize=10)
    return figure


def plot_sites(rows: Sequence[SiteComparison]) -> Figure:
    """Overlap of subspaces, pair by pair, one panel a site, with what chance would give."""
    names = list(dict.fromkeys(name for row in rows for name in (row.a, row.b)))
    sites = sorted({(row.layer, row.side) for row in rows})
    columns = min(4, len(sites))
    lines = math.ceil(len(sites) / columns)
    panel = 1.6 + 0.5 * len(names)  # inches
    figure = Figure(figsize=(panel * columns + 1.5, panel * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for unused in panels[len(sites) :]:
        unused.set_axis_off()
    for number, (axes, (layer, side)) in enumerate(zip(panels, sites)):
        here = [row for row in rows if (row.layer, row.side) == (layer, side)]
        values = np.full((len(names), len(names)), np.nan)
        np.fill_diagonal(values, 1.0)
        for row in here:
            i, j = names.index(row.a), names.index(row.b)
            values[i, j] = values[j, i] = row.mean_squared_cosine
        image = _cells(axes, values, [["" if np.isnan(v) else f"{v:.2f}" for v in line] for line in values], (0.0, 1.0))
        axes.set_title(f"layer {layer}, {side} (random {here[0].random_expectation:.2f})", fontsize=9)
        axes.set_xticks(range(len(names)), [_text(n) for n in names], rotation=45, ha="right", fontsize=8)
        shown = [_text(n) for n in names] if number % columns == 0 else [""] * len(names)
        axes.set_yticks(range(len(names)), shown, fontsize=8)
    figure.colorbar(image, ax=figure.axes, label="mean squared cosine", shrink=0.8)
    return figure


def plot_grid(grid: Grid) -> Figure:
    """The trained method's score over two options of a sweep."""
    values = np.array([[np.nan if v is None else v for v in row] for row in grid.values], dtype=np.float64)
    cells = [[format_value(v, grid.metric) for v in row] for row in grid.values]
    limits = (float(np.nanmin(values)), float(np.nanmax(values)))
    scale = 100.0 if is_share(grid.metric) else 1.0
    unit = metric_name(grid.metric)
    figure, axes = _heat_map(
        values * scale, grid.rows, grid.columns, cells, _text(unit), (limits[0] * scale, limits[1] * scale)
    )
    axes.set_xlabel(_text(grid.column_option))
    axes.set_ylabel(_text(grid.row_option))
    axes.set_title(_text(grid.title), fontsize=10)
    return figure
