"""Paper files of every chart, the same bytes each time, with a glyph for every character."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from spd_lightning.report import fonts, plots
from spd_lightning.report.chart import PLOTS, Bar, Bars
from tests.unit.report.test_svg import CHARTS

NAMES = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("name", ["forest", "bars", "lines", "log", "counts", "cells", "many"])
def test_every_chart_is_drawn_for_a_paper(name: str, tmp_path: Path) -> None:
    (path,) = plots.write_chart(CHARTS[name], tmp_path, name, ("png",))
    assert path.read_bytes().startswith(NAMES["png"]) and b"Software" not in path.read_bytes()


def test_all_formats_hold_no_date_and_their_fonts(tmp_path: Path) -> None:
    chart = CHARTS["forest"]
    files = [plots.write_chart(chart, tmp_path / part, "f", PLOTS) for part in ("a", "b")]
    for first, again in zip(*files):
        data = first.read_bytes()
        assert data.startswith(NAMES[first.suffix[1:]]) and data == again.read_bytes()
        assert b"Date" not in data and b"atplotlib v" not in data
    assert b"FontFile2" in files[0][2].read_bytes(), "a TrueType font is inside the PDF"
    assert b"<text" not in files[0][1].read_bytes(), "letters are outlines in the SVG"


def test_other_scripts_are_drawn_or_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a font for them on the machine they are drawn, without one they are their codes; never an empty box."""
    chart = Bars("算数 🚀", "points", [Bar("한국어 ａ", ((0, 1.0),), "$x_1$")])
    caplog.set_level(logging.WARNING)
    names, instead = fonts.families(["算数 🚀 한국어"])
    assert names[0] == fonts.OWN and set(instead.values()) <= {f"U+{ord(c):04X}" for c in "算数🚀한국어"}
    assert bool(instead) == ("No font of this machine draws" in caplog.text)
    plots.write_chart(chart, tmp_path, "f", PLOTS)  # a missing glyph is a warning, which fails


def test_without_any_other_font_codes_stand_for_characters(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fonts, "_others", lambda: ())
    assert fonts.families(["a 数"]) == ([fonts.OWN], {ord("数"): "U+6570"})
    assert "数" in caplog.text and fonts.families(["only a"]) == ([fonts.OWN], {})
