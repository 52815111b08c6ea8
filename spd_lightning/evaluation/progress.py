"""Stage 4: the progress bar of a benchmark."""

from __future__ import annotations

import time
from typing import Any

from spd_lightning.progress import Bar


class BenchmarkBar:
    """One progress bar per benchmark: examples done by this process, new tokens per second, time left."""

    def __init__(self, method: str) -> None:
        self.method, self.task, self.tokens, self.start = method, "", 0, 0.0
        self.bar: Any = None

    def __call__(self, task: str, done: int, total: int, tokens: int) -> None:
        if task != self.task:
            self.close()
            self.task, self.tokens, self.start = task, 0, time.perf_counter()
            self.bar = Bar(f"Evaluating {task} ({self.method})", total, "examples", leave=False)
        self.tokens += tokens
        self.bar.total = max(total, done)
        if tokens:
            seconds = max(time.perf_counter() - self.start, 1e-9)
            self.bar.set_postfix_str(f"{self.tokens / seconds:.0f} tokens/s", refresh=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
