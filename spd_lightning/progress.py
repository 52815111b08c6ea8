"""How far a stage has come: a bar on a terminal, else a plain line now and then; on standard error, never on output.

Words are those of the field: examples, steps, tokens a second, time left.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit} [{elapsed}<{left}{postfix}]"
LINE_S = 30.0  # seconds between plain lines; what is done sooner shows none
WINDOW = 0.5  # share of what is done whose pace counts


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Show no progress at all in this process (``--quiet``), or as ever."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether this process shows no progress."""
    return _quiet


def on_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal, on which a bar can be drawn over."""
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


class TimeLeft:
    """Seconds that are left of something, from how much was done by when.

    The pace is that of the later half of what is done so far: the first units load and compile, and what is sorted by
    length changes its pace all along.

    Args:
        now: When it begins, seconds of any clock.
    """

    def __init__(self, now: float) -> None:
        self._seen: deque[tuple[float, float]] = deque([(0.0, now)])

    def note(self, done: float, now: float) -> None:
        """Say that so much is done at this moment, in the unit of the total."""
        if done < self._seen[-1][0]:  # it was begun anew
            self._seen.clear()
        elif self._seen[-1][0] == done:
            return
        self._seen.append((done, now))
        start = (1.0 - WINDOW) * done
        while len(self._seen) > 2 and self._seen[1][0] <= start:
            self._seen.popleft()

    def seconds(self, total: float | None, now: float) -> float | None:
        """What is left until ``total``; None where nothing is done yet, or no total is known."""
        (first, start), (done, end) = self._seen[0], self._seen[-1]
        if total is None or done <= first or end <= start:
            return None
        left = (total - done) * (end - start) / (done - first) - (now - end)
        return max(left, 0.0)


def shown_time(seconds: float | None) -> str:
    """``0:42``, ``12:05``, ``1:02:03``; a question mark where it is not known."""
    return "?" if seconds is None else tqdm.format_interval(seconds)


class Bar(tqdm):  # type: ignore[misc]
    """A tqdm bar that knows where it may be drawn, and estimates the time left by `TimeLeft`.

    Args:
        desc: What is done, e.g. ``Training``.
        total: How much there is to do.
        unit: Of what, e.g. ``steps``.
        clock: Seconds; for tests.
        settings: Further arguments of tqdm; where it is drawn is decided here.
    """

    def __init__(
        self,
        desc: str = "",
        total: float | None = None,
        unit: str = "",
        clock: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> None:
        self.clock, self.plain = clock, not on_terminal(sys.stderr)
        self.time_left = TimeLeft(clock())
        self._line_at = clock() + LINE_S
        settings |= {"file": sys.stderr, "bar_format": BAR, "dynamic_ncols": True, "disable": settings.get("disable")}
        settings["disable"] = bool(settings["disable"]) or _quiet
        if self.plain:
            settings |= {"leave": False, "mininterval": 0.0, "delay": 0.0}
        super().__init__(desc=desc, total=total, unit=unit, **settings)

    @property
    def format_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = super().format_dict
        return {**found, "left": shown_time(self.time_left.seconds(self.total, self.clock()))}

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar, or write a line if the last one is long ago."""
        self.time_left.note(float(self.n), self.clock())
        if not self.plain:
            return bool(super().display(msg, pos))
        if msg is None and self.n and self.clock() >= self._line_at:
            self._line_at = self.clock() + LINE_S
            print(self.line(), file=sys.stderr, flush=True)
        return True

    def line(self) -> str:
        """The state in words: ``Training: 25% (8/32 steps), loss 1.2, 117 tokens/s, 3:10 left``."""
        share = f"{self.n / self.total:.0%} " if self.total else ""
        parts = [f"{share}({self.format_num(self.n)}/{self.format_num(self.total) if self.total else '?'} {self.unit})"]
        parts += [self.postfix] if self.postfix else []
        left = self.time_left.seconds(self.total, self.clock())
        return f"{self.desc.removesuffix(': ')}: {', '.join(parts)}, {shown_time(left)} left"

    def close(self) -> None:
        """End the bar; plain lines need no end."""
        if not self.plain:
            super().close()
        elif not self.disable:
            self.disable: bool = True
            self._decr_instances(self)
