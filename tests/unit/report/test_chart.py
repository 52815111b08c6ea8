"""What figures show, in the units that are shown."""

from __future__ import annotations

import math

import pytest

from spd_lightning.report.chart import Bar, Bars, HeatMap, Intervals, Point, Row, shade, span, ticks


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-12.5, 14.2) == [-10.0, -5.0, 0.0, 5.0, 10.0]
    assert ticks(3.0, 3.0) == [3.0] and ticks(0, 7200, 3) == [0.0, 2000.0, 4000.0, 6000.0]
    for low, high in ((0.001, 0.0042), (-1e6, 3e5), (99.1, 99.2)):
        assert 2 <= len(found := ticks(low, high)) <= 8 and low <= found[0] and found[-1] <= high


def test_an_axis_holds_every_interval_and_zero_where_it_counts() -> None:
    rows = [Row("a", (Point(4.0, 2.0, 9.0, "4"),)), Row("b", (Point(3.0, None, None, "3"),))]
    low, high = span(Intervals("t", "u", rows, zero=True))
    assert low == 0.0 and 9.0 < high < 10.0
    low, high = span(Intervals("t", "u", rows))
    assert 1.0 < low < 2.0
    stacked = Bars("t", "u", [Bar("a", ((0, 2.0), (0, 3.0), (1, -4.0)), "x", ((0, -6.0),))])
    low, high = span(stacked)
    assert low < -6.0 and high > 5.0
    assert span(Bars("t", "u", [Bar("a", ((0, 0.0),), "x")])) == (-1.0, 1.0), "no empty axis"


def test_shades_grow_lighter() -> None:
    def light(share: float) -> float:
        text = shade(share)
        return sum(w * int(text[i : i + 2], 16) for w, i in zip((0.21, 0.72, 0.07), (1, 3, 5)))

    assert [light(i / 20) for i in range(21)] == sorted(light(i / 20) for i in range(21))
    assert shade(-1) == shade(0) and shade(2) == shade(1)


def test_a_figure_is_told_in_words() -> None:
    cells = HeatMap("t", "score (%)", ["4"], ["a", "b"], [[1.0, math.nan]], [["1.0\n[0.5, 2.0]", "-"]], 0, 1, "rank")
    assert cells.describe() == "score (%) by rank and column. 4 and a: 1.0\n[0.5, 2.0]."
    bars = Bars("t", "points", [Bar("sums, n=50", ((0, 1.0),), "8 gained, 3 lost")])
    assert bars.describe() == "points. sums, n=50: 8 gained, 3 lost."
