"""Fonts of a paper figure: matplotlib's own, and one of this machine for each character that it lacks."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, ttfFontProperty
from matplotlib.ft2font import FT2Font

log = logging.getLogger(__name__)
OWN = "DejaVu Sans"  # comes with matplotlib


def families(texts: Iterable[str]) -> tuple[list[str], dict[int, str]]:
    """Families that together draw some texts, and what stands for characters that no font of this machine draws.

    Only scalable fonts count: bitmaps, as most fonts of coloured emoji hold, cannot be drawn at any size.

    Returns:
        Names of families, matplotlib's own first; a table for `str.translate`.
    """
    lacking = {c for text in texts for c in text if ord(c) not in _characters(_own()) and not c.isspace()}
    chosen = [OWN]
    for path, name in _others() if lacking else ():
        drawn = {c for c in lacking if ord(c) in _characters(path)}
        if drawn:
            fontManager.addfont(path)
            chosen.append(name)
            lacking -= drawn
        if not lacking:
            break
    if lacking:
        log.warning("No font of this machine draws %s: figures have their codes. Install one, e.g. Noto Sans CJK.",
                    " ".join(sorted(lacking)))  # fmt: skip
    return chosen, {ord(c): f"U+{ord(c):04X}" for c in lacking}


@cache
def _own() -> str:
    return str(findfont(FontProperties(family=OWN)))


@cache
def _characters(path: str) -> frozenset[int]:
    """Code points that a font draws at any size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):  # a damaged font file of the machine is none
            font = FT2Font(path)
            if font.scalable:
                return frozenset(font.get_charmap())
    return frozenset()


@cache
def _others() -> tuple[tuple[str, str], ...]:
    """Path and family of the fonts of this machine, regular ones without serifs first."""
    found = []
    for path in findSystemFonts():
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            entry = ttfFontProperty(FT2Font(path))
            plain = str(entry.weight) in ("400", "normal", "regular", "book") and entry.style == "normal"
            found.append(((not plain, "serif" in entry.name.lower(), Path(path).name), path, entry.name))
    return tuple((path, name) for _, path, name in sorted(found))
