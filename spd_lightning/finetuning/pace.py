"""Stage 3: how fast training goes, in real tokens, and how much of what is computed is padding; on this process."""

from __future__ import annotations

import time


class Pace:
    """Tokens and seconds of the current optimiser step, and of the fit so far.

    Attributes:
        real: Real tokens of the fit, without those of the step that is under way.
    """

    def __init__(self) -> None:
        self.real = self._all = 0
        self._step_real = self._step_all = 0
        self._fit_start = self._step_start = time.perf_counter()

    def add(self, num_tokens: int, num_padded: int) -> None:
        """Count a micro-batch: its real tokens, and the positions that are computed for them."""
        self._step_real += num_tokens
        self._step_all += num_padded

    def end_step(self) -> tuple[float, float]:
        """End an optimiser step: its real tokens a second, and its share of padding."""
        now = time.perf_counter()
        speed, padding = self._step_real / (now - self._step_start), 1 - self._step_real / max(self._step_all, 1)
        self.real += self._step_real
        self._all += self._step_all
        self._step_real, self._step_all, self._step_start = 0, 0, now
        return speed, padding

    def seconds(self) -> float:
        """Since the fit began."""
        return time.perf_counter() - self._fit_start

    def padding(self) -> float:
        """Share of the positions of the fit that were padding."""
        return 1 - self.real / max(self._all, 1)
