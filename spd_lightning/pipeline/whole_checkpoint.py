"""How Lightning's trainer writes a checkpoint: beside the one before, which stays until the new one was read back."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer

from spd_lightning.artifacts.files import whole_file
from spd_lightning.finetuning.checkpoint_file import checkpoint_damage


class WholeCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or not there.

    Lightning's own goes through the temporary folder: where that is another file system, the last step is a copy over
    the only checkpoint there is, which a kill leaves half done.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write, sync, read back, and only then take the place of the one before.

        Raises:
            UserError: If the folder cannot be written or the disk is full; the checkpoint before then stands.
        """
        with whole_file(path) as aside:
            with aside.open("wb") as file:
                torch.save(checkpoint, file)
            if (what := checkpoint_damage(aside)) is not None:
                raise OSError(errno.EIO, f"what was written {what}")


def write_whole_checkpoints(trainer: Trainer) -> None:
    """Have a trainer's checkpoints written so, unless the user gave it a way of its own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpointIO()
