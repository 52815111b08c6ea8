"""The figures of a report as files for a paper: PNG, SVG and PDF by matplotlib's Agg canvas, without a display.

They are drawn from the same charts as the page's (`chart`), in its palette. No date or version is in a file, so equal
input gives equal bytes. Fonts are embedded: outlines in SVG, TrueType in PDF.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from spd_lightning.artifacts.files import write_atomic
from spd_lightning.report.chart import COLOURS, Bars, Chart, HeatMap, Histogram, Intervals, Lines, shade, span
from spd_lightning.report.fonts import families
from spd_lightning.report.render import clean

if TYPE_CHECKING:
    from spd_lightning.subspace.compare import SiteComparison

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
NO_DATE: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
CIVIDIS = LinearSegmentedColormap.from_list("stops", [shade(i / 8) for i in range(9)])
DEPTHS = LinearSegmentedColormap.from_list("depths", [shade(0.15 + 0.7 * i / 8) for i in range(9)])


def write_plot(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format of its suffix, atomically."""
    canvas: Any = FigureCanvasAgg(figure)
    kind, buffer = Path(path).suffix.removeprefix("."), io.BytesIO()
    texts = figure.findobj(Text)
    names, _ = families(text.get_text() for text in texts)
    for text in texts:
        text.set_fontfamily(names)
    settings: Any = {
        "svg.hashsalt": "spd",
        "svg.fonttype": "path",
        "pdf.fonttype": 42 if len(names) == 1 else 3,  # outlines of other formats than TrueType fit the latter alone
    }
    with matplotlib.rc_context(settings):
        if kind == "png":  # drawn once, where savefig draws twice: first for the layout
            figure.dpi = 144
            canvas.print_png(buffer, metadata=NO_DATE[kind], pil_kwargs={"compress_level": 3})
        else:
            figure.savefig(buffer, format=kind, metadata=NO_DATE[kind])
    return write_atomic(path, buffer.getvalue())


def write_chart(chart: Chart, folder: Path, name: str, formats: Collection[str] = ("png",)) -> list[Path]:
    """Write a chart as ``<folder>/<name>.<format>`` for each format."""
    figure = paper_figure(chart) if formats else None
    return [write_plot(figure, folder / f"{name}.{kind}") for kind in formats if figure is not None]


def paper_figure(chart: Chart) -> Figure:
    """A chart, drawn."""
    match chart:
        case Intervals():
            return _intervals(chart)
        case Bars():
            return _bars(chart)
        case Lines():
            return _lines(chart)
        case Histogram():
            return _histogram(chart)
        case HeatMap():
            return _heat_map(chart)


def _figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(_text(title), fontsize=10, loc="left")
    return figure, axes


def _text(text: object) -> str:
    """Text for a figure: a dollar sign would start a formula, and what no font draws stands as its code."""
    shown = clean(text)
    return shown.translate(families([shown])[1]).replace("$", r"\$")


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, fontsize=8, frameon=False, ncols=columns, loc="outside lower center")


def _rows(axes: Axes, labels: Sequence[str], unit: str, ends: tuple[float, float]) -> None:
    """A lying value axis with a labelled row for each line."""
    axes.grid(axis="y", visible=False)
    axes.set_yticks(range(len(labels)), [_text(label) for label in labels], fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(*ends)
    axes.set_xlabel(_text(unit))


def _intervals(chart: Intervals) -> Figure:
    many = len(chart.series)
    figure, axes = _figure(7.2, 1.3 + 0.24 * len(chart.rows) * max(many, 2), chart.title)
    for y, row in enumerate(chart.rows):
        for p in row.points:
            at = y + (p.series - (many - 1) / 2) * 0.7 / many
            colour = COLOURS[p.series % 7]
            if p.low is not None and p.high is not None:
                axes.plot([p.low, p.high], [at, at], color=colour, linewidth=1.8, alpha=0.6)
            fill = colour if p.strong else "white"
            axes.plot([p.value], [at], MARKERS[p.series % 7], color=colour, markerfacecolor=fill, markersize=6)
    for i, name in enumerate(chart.series if many > 1 else ()):
        axes.plot([], [], MARKERS[i % 7], color=COLOURS[i % 7], linestyle="-", label=_text(name))
    for y in range(1, len(chart.rows)):
        other = chart.rows[y].group != chart.rows[y - 1].group
        axes.axhline(y - 0.5, color="grey", linewidth=1.0 if other else 0.5, alpha=0.4)
    if chart.zero:
        axes.axvline(0, color="black", linewidth=0.8)
    groups = {row.group for row in chart.rows if row.group}
    _rows(axes, [f"{r.group}\n{r.label}" if len(groups) > 1 else r.label for r in chart.rows], chart.unit, span(chart))
    _legend(figure, axes, min(many, 4))
    return figure


def _bars(chart: Bars) -> Figure:
    figure, axes = _figure(7.2, 1.4 + 0.5 * len(chart.rows), chart.title)
    first, seen = len(chart.series), set()
    for y, row in enumerate(chart.rows):
        ends = {True: 0.0, False: 0.0}
        for series, value in row.parts:
            name = _text(chart.series[series]) if first > 1 and series not in seen else None
            axes.barh(y, value, 0.55, left=ends[value > 0], color=COLOURS[series % 7], alpha=0.6, label=name)
            ends[value > 0] += value
            seen.add(series)
        for mark, value in row.marks:
            colour = COLOURS[(first + mark) % 7]
            label = _text(chart.marks[mark]) if y == 0 else None
            axes.plot([value], [y - 0.1 + 0.2 * mark], MARKERS[mark], color=colour, linestyle="", label=label)
    axes.axvline(0, color="black", linewidth=0.8)
    _rows(axes, [f"{row.label}\n{row.text}" for row in chart.rows], chart.unit, span(chart))
    _legend(figure, axes, 2)
    return figure


def _lines(chart: Lines) -> Figure:
    figure, axes = _figure(7.2, 4.0, chart.title)
    for curve in chart.curves:
        xs, ys = zip(*curve.points)
        colour = COLOURS[curve.series % 7] if curve.depth is None else shade(0.15 + 0.7 * curve.depth)
        style, few = "--" if curve.dashed else "-", len(xs) < 30 and not chart.log
        label = None if chart.scale else _text(curve.name)
        axes.plot(xs, ys, style, color=colour, linewidth=1.4, label=label, marker="o" if few else "", markersize=4)
        if curve.mark:
            axes.plot(*[[v] for v in curve.mark], "s" if curve.dashed else "o", color=colour, markersize=6)
    for value in chart.verticals:
        axes.axvline(value, color="grey", linewidth=0.9, linestyle=":")
    if chart.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # exponents take a parser's time
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    if chart.scale:
        name, low, high = chart.scale
        depth = ScalarMappable(Normalize(float(low), float(high)), DEPTHS)
        figure.colorbar(depth, ax=axes, label=name, ticks=MaxNLocator(integer=True))
    else:
        _legend(figure, axes, 2 if max(len(c.name) for c in chart.curves) > 12 else 4)
    return figure


def _histogram(chart: Histogram) -> Figure:
    figure, axes = _figure(7.2, 3.2, chart.title)
    below = np.zeros(len(chart.edges) - 1)
    edges = np.asarray(chart.edges, dtype=np.float64)
    for i, (name, counts) in enumerate(zip(chart.series, chart.counts)):
        axes.bar(edges[:-1], counts, np.diff(edges), below, align="edge", color=COLOURS[i % 7], label=_text(name))
        below += np.asarray(counts)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    _legend(figure, axes, 2)
    return figure


def _heat_map(chart: HeatMap) -> Figure:
    lines = max((text.count("\n") + 1 for row in chart.texts for text in row), default=1)
    longest = max((len(part) for row in chart.texts for text in row for part in text.split("\n")), default=4)
    size = (2.8 + max(0.85, 0.08 * longest) * len(chart.columns), 2.0 + (0.32 + 0.16 * lines) * len(chart.rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    _cells(figure, [axes], [chart], shrink=0.9)
    axes.set_xlabel(_text(chart.column_title))
    axes.set_ylabel(_text(chart.row_title))
    axes.set_title(_text(chart.title), fontsize=10)
    return figure


def _cells(figure: Figure, panels: Iterable[Axes], charts: Sequence[HeatMap], shrink: float) -> None:
    """Coloured cells with their text, black or white, whichever can be read on the colour; one colour bar."""
    image = None
    for axes, chart in zip(panels, charts):
        values = np.asarray(chart.values, dtype=np.float64)
        high = chart.high if chart.high > chart.low else chart.low + 1e-9
        image = axes.imshow(values, cmap=CIVIDIS, vmin=chart.low, vmax=high, aspect="auto")
        for i, j in np.ndindex(*values.shape):
            light = math.isnan(values[i, j]) or values[i, j] > chart.low + 0.44 * (high - chart.low)
            text, colour = _text(chart.texts[i][j]), "black" if light else "white"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(
            range(len(chart.columns)), [_text(c) for c in chart.columns], rotation=30, ha="right", fontsize=8
        )
        axes.set_yticks(range(len(chart.rows)), [_text(r) for r in chart.rows], fontsize=8)
    if image is not None:
        bar = figure.colorbar(image, ax=list(panels), shrink=shrink)
        bar.set_label(_text(charts[0].unit), fontsize=8)
        bar.ax.tick_params(labelsize=8)


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
    charts = []
    for number, (layer, side) in enumerate(sites):
        here = [row for row in rows if (row.layer, row.side) == (layer, side)]
        values = np.full((len(names), len(names)), np.nan)
        np.fill_diagonal(values, 1.0)
        for row in here:
            i, j = names.index(row.a), names.index(row.b)
            values[i, j] = values[j, i] = row.mean_squared_cosine
        texts = [["" if np.isnan(v) else f"{v:.2f}" for v in line] for line in values]
        shown = names if number % columns == 0 else [""] * len(names)
        title = f"layer {layer}, {side} (random {here[0].random_expectation:.2f})"
        charts.append(HeatMap(title, "mean squared cosine", shown, names, values.tolist(), texts, 0.0, 1.0))
    _cells(figure, list(panels[: len(sites)]), charts, shrink=0.8)
    for axes, chart in zip(panels, charts):
        axes.set_title(_text(chart.title), fontsize=9)
    return figure
