"""What a figure shows, apart from how it is drawn: `svg` draws it for the page, `plots` for a paper.

All numbers are in the units that are shown (per cent, points, seconds), so both drawings have the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PLOTS = ("png", "svg", "pdf")  # formats of the files that `plots` writes
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito, which colour-blind readers can tell apart; markers and line styles differ as well."""


@dataclass(frozen=True)
class Point:
    """A value with its interval.

    Attributes:
        value: Where it stands.
        low: Lower end of its interval; None without one.
        high: Upper end.
        text: How the tables write it.
        series: Index into the chart's series.
        strong: Whether it is drawn filled: a difference that is shown.
    """

    value: float
    low: float | None
    high: float | None
    text: str
    series: int = 0
    strong: bool = True


@dataclass(frozen=True)
class Row:
    """A labelled line of points; rows of one group stand together under its name."""

    label: str
    points: tuple[Point, ...]
    group: str = ""


@dataclass(frozen=True)
class Intervals:
    """Values with their intervals, a row each: scores, or a forest of differences.

    Attributes:
        title: What it is, in a line.
        unit: Of the axis.
        rows: From top to bottom.
        series: Names of the colours; one needs no legend.
        zero: Whether 0 is a line to compare with.
    """

    title: str
    unit: str
    rows: Sequence[Row]
    series: tuple[str, ...] = ("",)
    zero: bool = False

    def describe(self) -> str:
        """The numbers in words, for who does not see the figure."""
        names = [f"{name} " if len(self.series) > 1 else "" for name in self.series]
        rows = (f"{r.label}: {', '.join(names[p.series] + p.text for p in r.points)}" for r in self.rows)
        return f"{self.unit}. {'; '.join(rows)}."


@dataclass(frozen=True)
class Bar:
    """One bar: parts that stand behind each other on either side of 0, and marks on it, each as (series, value)."""

    label: str
    parts: tuple[tuple[int, float], ...]
    text: str
    marks: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Bars:
    """Lying bars; ``series`` names the parts, ``marks`` the marks."""

    title: str
    unit: str
    rows: Sequence[Bar]
    series: tuple[str, ...] = ("",)
    marks: tuple[str, ...] = ()

    def describe(self) -> str:
        """The numbers in words."""
        return f"{self.unit}. {'; '.join(f'{row.label}: {row.text}' for row in self.rows)}."


@dataclass(frozen=True)
class Curve:
    """A line through points; ``depth`` (0 to 1) colours it where there are more lines than colours."""

    name: str
    points: Sequence[tuple[float, float]]
    series: int = 0
    dashed: bool = False
    depth: float | None = None
    mark: tuple[float, float] | None = None


@dataclass(frozen=True)
class Lines:
    """Curves over x; ``scale`` says what the depth of their colours is: its name, and its ends."""

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    log: bool = False
    verticals: tuple[float, ...] = ()
    scale: tuple[str, str, str] | None = None

    def describe(self) -> str:
        """Both ends of every curve, of the first ten."""
        rows = []
        for curve in self.curves[:10]:
            (x0, y0), (x1, y1) = curve.points[0], curve.points[-1]
            rows.append(f"{curve.name}: from {y0:.3g} at {x0:g} to {y1:.3g} at {x1:g}")
        more = f"; and {len(self.curves) - 10} more" if len(self.curves) > 10 else ""
        return f"{self.y} over {self.x}. {'; '.join(rows)}{more}."


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, one on top of the other for each series."""

    title: str
    x: str
    y: str
    edges: Sequence[float]
    counts: Sequence[Sequence[int]]
    series: tuple[str, ...]

    def describe(self) -> str:
        """The sums."""
        return f"{self.y} by {self.x}, {self.edges[0]:g} to {self.edges[-1]:g}: {', '.join(self.series)}."


@dataclass(frozen=True)
class HeatMap:
    """Cells with a colour and a text; NaN stays blank. ``texts`` may hold several lines a cell."""

    title: str
    unit: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]]
    low: float
    high: float
    row_title: str = ""
    column_title: str = ""

    def describe(self) -> str:
        """Every cell that is there, of the first forty."""
        found = [
            f"{row} and {column}: {text}"
            for row, line, texts in zip(self.rows, self.values, self.texts)
            for column, value, text in zip(self.columns, line, texts)
            if not math.isnan(value)
        ]
        more = f"; and {len(found) - 40} more" if len(found) > 40 else ""
        by = f"{self.row_title or 'row'} and {self.column_title or 'column'}"
        return f"{self.unit} by {by}. {'; '.join(found[:40])}{more}."


Chart = Intervals | Bars | Lines | Histogram | HeatMap


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``.

    >>> ticks(-12.5, 14.2)
    [-10.0, -5.0, 0.0, 5.0, 10.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / about
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= 0.8 * rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def span(chart: Intervals | Bars) -> tuple[float, float]:
    """Ends of the value axis, with a little room; 0 is inside where it is a line to compare with."""
    if isinstance(chart, Intervals):
        found = [v for row in chart.rows for p in row.points for v in (p.value, p.low, p.high) if v is not None]
        found += [0.0] if chart.zero else []
    else:
        found = [0.0]
        for row in chart.rows:
            for sign in (1, -1):
                found.append(sum(v for _, v in row.parts if v * sign > 0))
            found += [v for _, v in row.marks]
    low, high = min(found), max(found)
    if high == low:
        return low - 1.0, high + 1.0
    room = 0.04 * (high - low)
    return (low if low == 0 else low - room), (high if high == 0 else high + room)


CIVIDIS = ((0, 34, 78), (18, 53, 112), (60, 77, 110), (88, 101, 111), (112, 125, 118), (141, 149, 116), (180, 177, 103),
           (219, 205, 79), (254, 232, 56))  # fmt: skip


def shade(share: float) -> str:
    """The colour of a share, 0 to 1, on nine stops of the map Cividis (Nuñez, Anderton and Renslow 2018)."""
    place = min(max(share, 0.0), 1.0) * (len(CIVIDIS) - 1)
    i = min(int(place), len(CIVIDIS) - 2)
    a, b = CIVIDIS[i], CIVIDIS[i + 1]
    return "#" + "".join(f"{round(x + (y - x) * (place - i)):02x}" for x, y in zip(a, b))
