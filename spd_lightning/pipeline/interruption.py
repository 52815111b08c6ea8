"""Interrupted by a signal: where the run stands, and what is still done before it ends.

The first signal ends the stage at once, since what is finished is on the disk; but training first saves its state at
the next optimiser step (`StopAtStep`), on every process alike. A step that does not end within `PATIENCE` is given up:
the run then goes on from its last checkpoint. A second signal ends the process there and then.

Of several processes one may be signalled: its training stops with that of the others, and its end tells them amid
every other stage (`children`, or what started them: torchrun, SLURM).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from spd_lightning.errors import INTERRUPTED
from spd_lightning.pipeline.run_log import begin_at, log_step
from spd_lightning.processes import is_rank_zero

PATIENCE = 8.0  # seconds that a step has to end after a signal
NUMBERS = {"extract": 1, "generate": 2, "fine_tune": 3, "evaluate": 4}


class Interrupted(SystemExit):
    """A signal ended the command; the exit status is 128 + its number."""


@dataclass
class Standing:
    """Where this process stands.

    Attributes:
        signal: The signal that was received, here or by another process of the training; None before.
        held: Whether a training is under way, which ends at its next step.
        saving: Whether its state is being saved.
        leaving: Whether the stage is being left.
        stage: The stage, by the name in ``results.json``; None before the first.
        step: Optimiser step and their number, where training was left.
    """

    signal: int | None = None
    held: bool = False
    saving: bool = False
    leaving: bool = False
    stage: str | None = None
    step: tuple[int, int] | None = None

    def leave(self) -> Interrupted:
        """What to raise to leave the stage."""
        self.leaving = True
        return Interrupted(128 + (self.signal or signal.SIGTERM))

    def told(self) -> str:
        """The one line for the user."""
        if self.stage is None:
            return INTERRUPTED
        at = "" if self.step is None else f" at step {self.step[0]} of {self.step[1]}"
        return f"Interrupted in stage {NUMBERS[self.stage]}{at}. The same command goes on from there."


STANDING = Standing()


def begin() -> None:
    """Forget what an earlier command of this process came to."""
    STANDING.__init__()  # type: ignore[misc]


def tell() -> None:
    """Say where the run stands, once for all processes; also from a thread, while anything else is being printed."""
    if is_rank_zero():
        os.write(2, f"\n{STANDING.told()}\n".encode())


def end_at_once(number: int) -> NoReturn:
    """End this process where it stands."""
    tell()
    os._exit(128 + number)


def on_signal(number: int, frame: FrameType | None) -> None:
    """The handler of the signals that interrupt; of a second one the thread beside it takes care (`cli.lifetime`)."""
    if STANDING.signal is not None:
        return
    STANDING.signal = number
    if not STANDING.held:
        raise STANDING.leave()
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)


def _give_up(number: int, frame: FrameType | None) -> None:
    """Leave a step that takes too long."""
    raise STANDING.leave()


def in_stage(name: str) -> None:
    """Note the stage that is under way."""
    STANDING.stage, STANDING.step = name, None


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let a training end at its next step instead of at once; what came too late for it ends the command after it.

    Until its first step begins (`StopAtStep`) there is nothing to save, and it is left like every stage.
    """
    try:
        yield
    finally:
        STANDING.held = STANDING.saving = False
        if STANDING.signal is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
    if STANDING.signal is not None:
        raise STANDING.leave()


class StopAtStep(Callback):
    """Ends an interrupted training after the optimiser step that is under way, its state saved.

    Args:
        checkpoint: Where the state is saved; None saves none.

    Ranks:
        Collective after every optimiser step of several processes: they stop at the same one, whichever was told to.
    """

    def __init__(self, checkpoint: Path | None) -> None:
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hold it from now on, and have the log forget what is trained again."""
        STANDING.held = True
        begin_at(trainer, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches != 0 and not trainer.is_last_batch:
            return
        number = STANDING.signal or 0
        if trainer.world_size > 1:
            told = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(told, reduce_op="max"))
        if not number:
            return
        STANDING.signal, STANDING.saving = STANDING.signal or number, True
        signal.setitimer(signal.ITIMER_REAL, 0)  # saving may take its time
        log_step(trainer)
        if self.checkpoint is not None:
            trainer.save_checkpoint(self.checkpoint, weights_only=False)
        STANDING.step = (trainer.global_step, int(trainer.estimated_stepping_batches))
        raise STANDING.leave()
