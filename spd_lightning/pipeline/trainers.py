"""Lightning's Trainer, with its refusals as mistakes of the user."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed.constants import default_pg_timeout

from spd_lightning.errors import UserError

# How long processes wait for each other, where the user says nothing: one may have hours of decoding left when another
# is done. A process that dies ends the others at once, so nothing hangs for so long.
PATIENCE = timedelta(hours=12)


class StepCheckpoint(ModelCheckpoint):
    """Saves by the clock, but only after an optimiser step: no checkpoint holds gradients that are still summed up."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def make_trainer(**settings: Any) -> Trainer:
    """A trainer that can do what the stages need.

    Raises:
        UserError: If devices are not there, processes would not outlive a stage, or torchrun started another number of
            processes than the trainer has.
    """
    try:
        trainer = Trainer(**settings)
    except (MisconfigurationException, TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        chosen = ", ".join(f"trainer.{name}={settings[name]!r}" for name in ("accelerator", "devices", "strategy"))
        raise UserError(
            f"{chosen} cannot be had here: {reason} Set --trainer.accelerator to cpu or auto, or --trainer.devices to "
            "those that this machine has."
        ) from error
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            f"trainer.strategy={settings['strategy']!r} starts processes that end with each stage, and what they found "
            "with them. Set --trainer.strategy=ddp."
        )
    if isinstance(trainer.strategy, DDPStrategy) and trainer.strategy._timeout in (None, default_pg_timeout):
        trainer.strategy._timeout = PATIENCE
    started = int(os.environ.get("WORLD_SIZE", trainer.world_size))
    if "LOCAL_RANK" in os.environ and started != trainer.world_size:
        raise UserError(
            f"{started} processes were started from outside (WORLD_SIZE), but trainer.devices={settings['devices']!r} "
            f"and trainer.strategy={settings['strategy']!r} make {trainer.world_size}. Set --trainer.strategy=ddp and "
            "--trainer.devices to the processes of a machine."
        )
    return trainer
