"""A chart drawn as an inline SVG for the page: the shapes on its `sheet`.

For a column of 330 pixels, in which a phone shows it about as it is: labels stand above their line, not beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from spd_lightning.report.chart import Bars, Chart, HeatMap, Histogram, Intervals, Lines, shade, span, ticks
from spd_lightning.report.sheet import EDGE, WIDTH, Drawing, legend, number, sign, text_width


def draw(chart: Chart) -> Drawing:
    """The shapes of a chart."""
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


def _axis(sheet: Drawing, low: float, high: float, top: float, unit: str, zero: bool) -> None:
    """Ticks and grid of a lying value axis under what was drawn."""
    bottom = sheet.height
    about = 3 if max(abs(low), abs(high)) >= 1000 else 5
    for value in ticks(low, high, about):
        x = place(value, low, high)
        sheet.line(x, top, x, bottom, "zero" if zero and value == 0 else "grid")
        sheet.write(x, bottom + 14, number(value), "middle")
    sheet.write(WIDTH / 2, bottom + 31, unit, "middle", "soft", WIDTH)
    sheet.height = bottom + 37


def place(value: float, low: float, high: float) -> float:
    """Pixels from the left of a value on a lying axis."""
    return EDGE + (WIDTH - 2 * EDGE) * (value - low) / (high - low)


def _intervals(chart: Intervals) -> Drawing:
    sheet = Drawing()
    low, high = span(chart)
    if len(chart.series) > 1:
        legend(sheet, [(name, f"s{i % 7}", str(i % 7)) for i, name in enumerate(chart.series)])
    top, group, body = sheet.height, "", Drawing(height=sheet.height)
    for row in chart.rows:
        if row.group != group:
            body.write(0, body.height + 17, row.group, class_="group", room=WIDTH)
            body.height += 24
            group = row.group
        alone = len(row.points) == 1
        text = row.points[0].text if alone else ""
        body.write(0, body.height + 12, row.label, room=WIDTH - text_width(text) - 10)
        if alone:
            body.write(WIDTH, body.height + 12, text, "end", "number")
        body.height += 14
        for p in row.points:
            y, class_ = body.height + 8, f"s{p.series % 7}"
            if p.low is not None and p.high is not None:
                body.line(place(p.low, low, high), y, place(p.high, low, high), y, f"{class_} interval")
            sign(body, str(p.series % 7), place(p.value, low, high), y, f"{class_}{'' if p.strong else ' hollow'}")
            body.height += 17
        body.height += 3
    sheet.height = body.height
    _axis(sheet, low, high, top, chart.unit, chart.zero)
    sheet.shapes += body.shapes
    return sheet


def _bars(chart: Bars) -> Drawing:
    sheet = Drawing()
    low, high = span(chart)
    names = [(name, f"s{i % 7} part", "bar") for i, name in enumerate(chart.series) if len(chart.series) > 1]
    first = len(chart.series)
    names += [(name, f"s{(first + i) % 7}", str(i)) for i, name in enumerate(chart.marks)]
    if names:
        legend(sheet, names)
    top, body = sheet.height, Drawing(height=sheet.height)
    for row in chart.rows:
        body.write(0, body.height + 12, row.label, room=WIDTH - text_width(row.text) - 10)
        body.write(WIDTH, body.height + 12, row.text, "end", "number")
        y, ends = body.height + 17, {True: 0.0, False: 0.0}
        for series, value in row.parts:
            a, b = ends[value > 0], ends[value > 0] + value
            ends[value > 0] = b
            left, right = sorted((place(a, low, high), place(b, low, high)))
            body.add("rect", x=left, y=y, width=right - left, height=14, class_=f"s{series % 7} part")
        for i, (mark, value) in enumerate(row.marks):
            sign(body, str(mark), place(value, low, high), y + 3.5 + 7 * i, f"s{(first + mark) % 7}")
        body.height += 37
    sheet.height = body.height
    _axis(sheet, low, high, top, chart.unit, True)
    sheet.shapes += body.shapes
    return sheet


def _frame(
    sheet: Drawing, x: str, y: str, xs: tuple[float, float], ys: tuple[float, float], log: bool, whole: bool
) -> tuple[float, float, float, float]:
    """Axes of a plot of 180 pixels with their grid; gives left, right, top and bottom of its inside."""
    sheet.write(0, sheet.height + 12, y, class_="soft", room=WIDTH)
    powers = range(math.ceil(math.log10(ys[0]) - 1e-9), math.floor(math.log10(ys[1]) + 1e-9) + 1) if log else ()
    marks = [10.0**k for k in powers] if log else ticks(*ys)
    left = 12 + max(text_width(number(m)) for m in marks or [0.0])
    right, top = WIDTH - EDGE, sheet.height + 22
    bottom = top + 180
    for value in marks:
        at = _upright(value, ys, top, bottom, log)
        sheet.line(left, at, right, at, "grid")
        sheet.write(left - 6, at + 4, number(value), "end")
    for value in ticks(*xs):
        if not whole or value == int(value):
            at = left + (right - left) * (value - xs[0]) / (xs[1] - xs[0])
            sheet.line(at, top, at, bottom, "grid")
            sheet.write(at, bottom + 15, number(value), "middle")
    sheet.write((left + right) / 2, bottom + 32, x, "middle", "soft")
    sheet.height = bottom + 38
    return left, right, top, bottom


def _upright(value: float, ys: tuple[float, float], top: float, bottom: float, log: bool) -> float:
    low, high, v = (math.log10(u) for u in (*ys, value)) if log else (*ys, value)
    return bottom - (bottom - top) * (v - low) / (high - low)


def _lines(chart: Lines) -> Drawing:
    sheet = Drawing()
    points = [p for curve in chart.curves for p in curve.points]
    xs, ys = (min(p[0] for p in points), max(p[0] for p in points)), [p[1] for p in points]
    xs = xs if xs[1] > xs[0] else (xs[0] - 1, xs[1] + 1)
    low, high = min(ys), max(ys)
    room = 0.06 * (high - low) or 0.5
    ends = (low / 1.5, high * 1.4) if chart.log else (low - room, high + room)
    if chart.scale is None:
        legend(sheet, [(c.name, f"s{c.series % 7}", "dashed" if c.dashed else "line") for c in chart.curves])
    else:
        _ramp(sheet, *chart.scale)
    left, right, top, bottom = _frame(sheet, chart.x, chart.y, xs, ends, chart.log, True)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * (x - xs[0]) / (xs[1] - xs[0]), _upright(y, ends, top, bottom, chart.log)

    for value in chart.verticals:
        x, _ = at(value, ends[1])
        sheet.line(x, top, x, bottom, "kept")
    for curve in chart.curves:
        path = "M" + "L".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in curve.points)
        colour = {} if curve.depth is None else {"style": f"stroke:{shade(0.15 + 0.7 * curve.depth)}"}
        sheet.add("path", d=path, class_=f"s{curve.series % 7} curve{' dashed' if curve.dashed else ''}", **colour)
        few = len(curve.points) < 30 and not chart.log
        for x, y in [*(curve.points if few else ()), *([curve.mark] if curve.mark else [])]:
            cx, cy = at(x, y)
            fill = {} if curve.depth is None else {"style": f"fill:{shade(0.15 + 0.7 * curve.depth)}"}
            sheet.add("circle", cx=cx, cy=cy, r=3.5, class_=f"s{curve.series % 7}", **fill)
    return sheet


def _ramp(sheet: Drawing, name: str, low: str, high: str) -> None:
    """What the depth of colours means."""
    y = sheet.height
    for i in range(20):
        sheet.add("rect", x=4 + 5 * i, y=y + 3, width=5.5, height=10, fill=shade(0.15 + 0.7 * i / 19))
    sheet.write(112, y + 12, f"{name} {low} to {high}", room=WIDTH - 112)
    sheet.height += 22


def _histogram(chart: Histogram) -> Drawing:
    sheet = Drawing()
    legend(sheet, [(name, f"s{i % 7} part", "bar") for i, name in enumerate(chart.series)])
    sums = [sum(column) for column in zip(*chart.counts)]
    xs, ys = (float(chart.edges[0]), float(chart.edges[-1])), (0.0, max(sums) * 1.05 or 1.0)
    left, right, top, bottom = _frame(sheet, chart.x, chart.y, xs, ys, False, True)
    for j in range(len(sums)):
        below = 0
        a, b = (left + (right - left) * (chart.edges[j + k] - xs[0]) / (xs[1] - xs[0]) for k in (0, 1))
        for i, counts in enumerate(chart.counts):
            if counts[j]:
                y = _upright(below + counts[j], ys, top, bottom, False)
                height = (bottom - top) * counts[j] / ys[1]
                sheet.add("rect", x=a + 0.5, y=y, width=max(b - a - 1, 0.5), height=height, class_=f"s{i % 7} part")
                below += counts[j]
    return sheet


def _heat_map(chart: HeatMap) -> Drawing:
    lines = max((text.count("\n") + 1 for row in chart.texts for text in row), default=1)
    longest = max((text_width(part, 11) for row in chart.texts for text in row for part in text.split("\n")), default=0)
    left = min(130.0, max(map(text_width, chart.rows))) + 10
    cell = max(longest + 10, (WIDTH - left) / len(chart.columns), 40)
    sheet = Drawing(width=max(WIDTH, left + cell * len(chart.columns)))
    sheet.write(0, 12, chart.unit, class_="soft", room=sheet.width)
    if chart.column_title:
        sheet.write(left, 32, f"{chart.column_title} →", class_="soft", room=sheet.width - left)
    if chart.row_title:
        sheet.write(0, 50, f"{chart.row_title} ↓", class_="soft", room=left - 6)
    for j, name in enumerate(chart.columns):
        sheet.write(left + cell * (j + 0.5), 50, name, "middle", room=cell - 4)
    high = 15 + 14 * lines
    for i, (name, values, texts) in enumerate(zip(chart.rows, chart.values, chart.texts)):
        y = 58 + high * i
        sheet.write(left - 8, y + high / 2 + 4, name, "end", room=left - 8)
        for j, (value, text) in enumerate(zip(values, texts)):
            _cell(sheet, left + cell * j, y, cell, high, value, text, (chart.low, chart.high))
    sheet.height = 58 + high * len(chart.rows) + 4
    return sheet


def _cell(
    sheet: Drawing, x: float, y: float, w: float, h: float, value: float, text: str, ends: tuple[float, float]
) -> None:
    """A cell with its text, black or white, whichever can be read on its colour."""
    parts: Sequence[str] = text.split("\n")
    if math.isnan(value):
        sheet.add("rect", x=x + 1, y=y + 1, width=w - 2, height=h - 2, class_="blank")
    else:
        share = (value - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.5
        sheet.add("rect", x=x + 1, y=y + 1, width=w - 2, height=h - 2, fill=shade(share))
        fill = "#000" if share > 0.44 else "#fff"
        for i, part in enumerate(parts):
            at = y + h / 2 + 4 + 14 * (i - (len(parts) - 1) / 2)
            sheet.add("text", part, x=x + w / 2, y=at, text_anchor="middle", class_="cell", style=f"fill:{fill}")
