"""The sheet that a chart is drawn on: shapes of an inline SVG, texts cut to their room, legends and their signs.

Colours are classes, so that they follow the page's light and dark.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

WIDTH, SIZE = 330, 12  # of the column and of its text, in pixels
EDGE = 10  # left and right of a value axis, so that its outermost labels are inside


@dataclass(frozen=True)
class Shape:
    """One element: its tag, attributes and text."""

    tag: str
    attributes: dict[str, Any]
    text: str = ""


@dataclass
class Drawing:
    """Shapes on a sheet, from top to bottom.

    Attributes:
        width: Of the sheet, pixels.
        height: What is drawn so far.
        shapes: In the order of drawing.
    """

    width: float = WIDTH
    height: float = 0.0
    shapes: list[Shape] = field(default_factory=list)

    def add(self, tag: str, text: str = "", **attributes: Any) -> None:
        """An element; a trailing underscore is dropped from names, others become hyphens; numbers are short."""
        shown = {
            name.rstrip("_").replace("_", "-"): f"{value:.5g}" if isinstance(value, float) else value
            for name, value in attributes.items()
        }
        self.shapes.append(Shape(tag, shown, text))

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)

    def write(self, x: float, y: float, text: str, anchor: str = "start", class_: str = "", room: float = 0) -> None:
        """Text, cut to ``room`` pixels where that is given."""
        shown = fitted(text, room) if room else text
        extra = {"class_": class_} if class_ else {}
        self.add("text", shown, x=x, y=y, text_anchor=anchor, **extra)


def text_width(text: str, size: float = SIZE) -> float:
    """About how wide a text is, pixels: wide characters of East Asian scripts and emoji take a whole em."""
    return size * sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.56 for c in text)


def fitted(text: str, room: float) -> str:
    """The text, or its beginning with an ellipsis."""
    if text_width(text) <= room:
        return text
    while text and text_width(text + "…") > room:
        text = text[:-1]
    return text + "…"


def number(value: float) -> str:
    """A tick's label."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def legend(sheet: Drawing, names: Iterable[tuple[str, str, str]]) -> None:
    """Rows of (name, class, kind of sign) at the top."""
    x, y = 0.0, sheet.height + SIZE
    for name, class_, kind in names:
        wide = 20 + text_width(name) + 12
        if x and x + wide > sheet.width:
            x, y = 0.0, y + 18
        sign(sheet, kind, x + 7, y - 4, class_)
        sheet.write(x + 18, y, name, room=sheet.width - x - 18)
        x += wide
    sheet.height = y + 8


def sign(sheet: Drawing, kind: str, x: float, y: float, class_: str) -> None:
    """A mark: another shape for each series, so that colour is never alone."""
    if kind == "bar":
        sheet.add("rect", x=x - 7, y=y - 5, width=14, height=10, class_=class_)
    elif kind in ("line", "dashed"):
        sheet.line(x - 8, y, x + 8, y, f"{class_} curve{' dashed' if kind == 'dashed' else ''}")
    elif kind == "0":
        sheet.add("circle", cx=x, cy=y, r=4.5, class_=class_)
    else:
        corners = {"1": 4, "2": 4, "3": 3, "4": 3, "5": 5, "6": 6}[kind]
        turn = {"1": 45.0, "2": 0.0, "3": -90.0, "4": 90.0}.get(kind, -90.0)
        angles = [math.radians(turn + 360 * i / corners) for i in range(corners)]
        points = " ".join(f"{x + 5.5 * math.cos(a):.1f},{y + 5.5 * math.sin(a):.1f}" for a in angles)
        sheet.add("polygon", points=points, class_=class_)
