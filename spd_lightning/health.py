"""What a stage says of its own result: figures always, and a warning with what to try where one is out of order."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spd_lightning.processes import is_rank_zero

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Health:
    """One stage's line.

    Attributes:
        stage: Name of the stage, and of what in it, e.g. ``evaluate gsm8k.base``.
        figures: Counts (whole numbers) and shares (0 to 1) by name.
        warnings: What is out of order, each with what to try.
    """

    stage: str
    figures: Mapping[str, int | float]
    warnings: tuple[str, ...] = ()

    def line(self) -> str:
        """The figures in one line."""
        shown = (f"{k.replace('_', ' ')} {v:.0%}" if isinstance(v, float) else f"{v} {k.replace('_', ' ')}"
                 for k, v in self.figures.items())  # fmt: skip
        return f"[{self.stage}] health: {', '.join(shown)}"

    def told(self, say: Callable[[str], None]) -> dict[str, Any]:
        """Tell it on the console (rank 0 does), and give its row of ``results.json``."""
        if is_rank_zero():
            say(self.line())
            for warning in self.warnings:
                log.warning("[%s] warning: %s", self.stage, warning)
        return {"stage": self.stage, "figures": dict(self.figures), "warnings": list(self.warnings)}


def fewer_than_asked(
    option: str, asked: int | None, found: int, what: str, why: str = "there are no more"
) -> list[str]:
    """A warning where there is less than a number that was asked for; nothing is clamped in silence."""
    return [f"{option} {asked} asks for more {what} than the {found} taken: {why}."] if asked and found < asked else []


def commonest(texts: Iterable[str]) -> tuple[str, float]:
    """The most frequent of some texts and its share, 0 to 1; ``("", 0.0)`` for none."""
    counts = Counter(texts)
    if not counts:
        return "", 0.0
    text, count = counts.most_common(1)[0]
    return text, count / counts.total()
