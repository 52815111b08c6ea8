"""Charts as inline SVG: inside their sheet, colours by class, texts cut to their room."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from spd_lightning.report.chart import Bar, Bars, Chart, Curve, HeatMap, Histogram, Intervals, Lines, Point, Row
from spd_lightning.report.html import render_html
from spd_lightning.report.render import Figure
from spd_lightning.report.sheet import WIDTH, fitted, text_width
from spd_lightning.report.svg import draw

LONG = "a name of a benchmark that is far too long for any column " * 2
CHARTS: dict[str, Chart] = {
    "forest": Intervals("t", "u", [Row(LONG, (Point(4, -2, 9, "+4.0 [-2.0, +9.0]"),), "In")], zero=True),
    "scores": Intervals("t", "u", [Row("a", tuple(Point(i, 0, 9, "", i) for i in range(9)))], tuple("abcdefghi")),
    "bars": Bars("t", "u", [Bar("a", ((0, 3.0), (1, -2.0)), "x", ((0, 1.0), (1, -1.0)))], ("up", "down"), ("m", "n")),
    "empty": Bars("t", "u", [Bar("a", ((0, 0.0),), "x")]),
    "lines": Lines("t", "x", "y", [Curve("one", [(1, 2.0), (2, 1.0)]), Curve("alone", [(2, 1.5)], 1, True)]),
    "point": Lines("t", "x", "y", [Curve("one", [(1, 2.0)])]),
    "log": Lines("t", "x", "y", [Curve("k", [(1, 1), (9, 1e-4)], 0, True, 0.5, (2, 0.1))], True, (2,), ("l", "0", "9")),
    "counts": Histogram("t", "x", "y", [0, 1, 2], [[3, 0], [1, 2]], ("a", "b")),
    "none": Histogram("t", "x", "y", [0, 1], [[0]], ("a",)),
    "cells": HeatMap("t", "u", ["r"], ["c", "d"], [[1.0, math.nan]], [["1.0\n[0.5, 2.0]", "-"]], 0, 1, "row", "column"),
    "flat": HeatMap("t", "u", ["r"], ["c"], [[1.0]], [["1.0"]], 1.0, 1.0),
    "many": HeatMap("t", "u", ["r"], list("abcdefghijkl"), [[0.5] * 12], [["50.0 [10.0, 90.0]"] * 12], 0.0, 1.0),
}  # fmt: skip


def ends(shape: Any) -> list[tuple[float, float]]:
    """Left and right of a shape, about."""
    at = shape.attributes
    if shape.tag == "text":
        wide, x = text_width(shape.text), float(at["x"])
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[at["text-anchor"]]
        return [(left, left + wide)]
    numbers = [float(at[name]) for name in ("x", "x1", "x2", "cx") if name in at]
    numbers += [float(at["x"]) + float(at["width"])] if "width" in at else []
    numbers += [
        float(pair.split(",")[0]) for pair in re.findall(r"[-\d.]+,[-\d.]+", str(at.get("points", at.get("d", ""))))
    ]
    return [(min(numbers), max(numbers))]


@pytest.mark.parametrize("name", CHARTS)
def test_nothing_leaves_the_sheet(name: str) -> None:
    sheet = draw(CHARTS[name])
    assert sheet.shapes and sheet.height > 40 and (sheet.width == WIDTH or name == "many")
    for shape in sheet.shapes:
        for left, right in ends(shape):
            assert -9 <= left <= right <= sheet.width + 9, shape
        for key, value in shape.attributes.items():
            assert "nan" not in str(value) and "inf" not in str(value), (key, value)
            assert key not in ("fill", "stroke") or name in ("cells", "flat", "many", "log"), "colours are classes"


@pytest.mark.parametrize("name", CHARTS)
def test_the_page_names_and_describes_each_figure(name: str) -> None:
    page = render_html("t", [Figure(CHARTS[name], name, "It shows <this>.")])
    assert f'<title id="{name}-title">t</title>' in page and f'<desc id="{name}-description">' in page
    assert f'aria-labelledby="{name}-title {name}-description"' in page and "It shows &lt;this&gt;." in page
    assert page.count("<svg") == page.count("</svg>") == 1


def test_texts_are_cut_to_their_room() -> None:
    assert fitted("short", 100) == "short" and fitted("", 10) == ""
    cut = fitted(LONG, 100)
    assert cut.endswith("…") and text_width(cut) <= 100 < text_width(LONG)
    assert text_width("数学") == 24 and text_width("ab") < 14
