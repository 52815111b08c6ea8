"""Lightning's progress bar with the stages' words: one for a whole training, on standard error (`progress.Bar`)."""

from __future__ import annotations

import math
import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from spd_lightning.progress import Bar

SHOWN = {"train/loss": "loss", "val/loss": "validation loss", "train/lr": "lr"}


class StageBar(TQDMProgressBar):
    """The bar of a stage.

    Args:
        doing: What the stage does, e.g. ``Generating``.

    Ranks:
        Lightning shows that of rank 0.
    """

    def __init__(self, doing: str = "Training") -> None:
        super().__init__()
        self.doing = doing

    def _bar(self, desc: str, unit: str, leave: bool, below: int = 0) -> Any:
        position = 2 * self.process_position + below
        return Bar(desc, unit=unit, position=position, leave=leave, smoothing=0, disable=self.is_disabled)

    # Lightning's types name a class of its own that only pads numbers.

    def init_train_tqdm(self) -> Any:
        return self._bar(self.doing, "steps", leave=True)

    def init_predict_tqdm(self) -> Any:
        return self._bar(self.doing, "batches", leave=True)

    def init_validation_tqdm(self) -> Any:
        return self._bar("Validating", "batches", leave=False, below=1)

    def init_sanity_tqdm(self) -> Any:
        return self._bar("Validating", "batches", leave=False)

    def init_test_tqdm(self) -> Any:
        return Bar(disable=True)  # benchmarks have a bar each

    # -- training: one bar for all epochs ----------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin the bar where training begins or goes on."""
        super().on_train_start(trainer, *_)
        steps = float(trainer.estimated_stepping_batches)
        bar = self.train_progress_bar
        bar.total = steps if math.isfinite(steps) and steps > 0 else None
        bar.initial = bar.n = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Lightning begins a bar for every epoch; this one goes on."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move to the optimiser step, and show what was logged."""
        self._show(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what was logged of the epoch."""
        self._show(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End validation's own bar; its loss stands at that of the training."""
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()

    def _show(self, trainer: Trainer) -> None:
        bar = self.train_progress_bar
        if bar.disable:
            return
        logged = trainer.progress_bar_metrics
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        parts = [f"epoch {min(trainer.current_epoch + 1, trainer.max_epochs or 1)}/{epochs}"]
        parts += [f"{word} {float(logged[name]):.3g}" for name, word in SHOWN.items() if name in logged]
        if "train/tokens_per_second" in logged:
            parts.append(f"{float(logged['train/tokens_per_second']):.0f} tokens/s")
        bar.set_postfix_str(", ".join(parts), refresh=False)
        bar.n = trainer.global_step
        bar.refresh()

    # -- the other stages --------------------------------------------------------------------------------------------

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Lightning puts the number of a data loader into the words."""
        if self.has_dataloader_changed(dataloader_idx):
            total = self.total_predict_batches_current_dataloader
            self.predict_progress_bar.total = total if math.isfinite(total) else None

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Write above the bar, on standard error as well."""
        Bar.write(sep.join(map(str, args)), file=sys.stderr)
