"""Names that Lightning keeps to itself and a trainer cannot do without; tested with Lightning 2.6.6.

Lightning says nowhere else whether a strategy's processes outlive a stage, nor how long those of a strategy that it
chose itself wait for each other.
"""

from __future__ import annotations

import subprocess
from datetime import timedelta
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch.distributed.constants import default_pg_timeout


def keep_signals(trainer: Trainer) -> None:
    """Leave SIGTERM to the handler that is there: Lightning's waits in a collective that may never come.

    SLURM's signal to requeue keeps Lightning's handler.
    """
    connector: Any = trainer._signal_connector
    connector._sigterm_notifier_fn = lambda number, frame: None


def ends_with_a_stage(strategy: Strategy) -> bool:
    """Whether the strategy starts processes that end with the stage they were started for (spawn, fork)."""
    return isinstance(strategy.launcher, _MultiProcessingLauncher)


def wait_for_others(strategy: Strategy, seconds: timedelta) -> None:
    """Let DDP's processes wait so long for each other, where the user named no time."""
    if isinstance(strategy, DDPStrategy) and strategy._timeout in (None, default_pg_timeout):
        strategy._timeout = seconds


def take_children(strategy: Strategy) -> list[subprocess.Popen[bytes]]:
    """The processes that the strategy's launcher started, which it watches no longer."""
    started: list[subprocess.Popen[bytes]] = getattr(strategy.launcher, "procs", [])
    children = list(started)
    started.clear()
    return children
