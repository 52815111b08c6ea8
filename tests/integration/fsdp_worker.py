"""What `test_fsdp` runs in each of several processes: fine-tuning with the weights spread over them.

    torchrun --nproc-per-node 2 -m tests.integration.fsdp_worker MODEL OUT [ACCELERATOR]

Writes OUT/<case>/ (a PEFT folder or a checkpoint), OUT/resumed for a run continued from the middle of its steps, and
OUT/norms.json, the gradient norm of each case's last step.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer

from spd_lightning.cli.lifetime import let_gloo_finish_at_exit
from spd_lightning.finetuning.batching import TextLoader, make_train_loader
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.sharding import is_sharded, trained_weights
from spd_lightning.finetuning.strategy import ShardedStrategy
from spd_lightning.finetuning.student import save_student, whole_copy
from spd_lightning.finetuning.texts import TrainingText

CASES: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora-bf16": {"precision": "bf16-true"},
    "lora-checkpointing": {"gradient_checkpointing": True},
    "full": {"lora_r": None},
    "full-clipped": {"lora_r": None, "clip": 0.05},
}


class Texts(LightningDataModule):
    """Seven texts of unlike length in global batches of three, so that shares are uneven."""

    def train_dataloader(self) -> TextLoader:
        generator = torch.Generator().manual_seed(0)
        lengths = [9, 30, 12, 25, 17, 21, 40]
        ids = [torch.randint(0, 256, (n,), generator=generator).tolist() for n in lengths]
        texts = [TrainingText(str(i), tuple(row[:4]), tuple(row[4:])) for i, row in enumerate(ids)]
        return make_train_loader(texts, 3, 64, 0, self.trainer.global_rank, self.trainer.world_size, 256)


class StopAfter(Callback):
    """End the run after an optimiser step, its schedule unfinished, and keep a checkpoint."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def train(
    model: str,
    strategy: Any,
    accelerator: str = "cpu",
    devices: int = 1,
    callbacks: list[Callback] | None = None,
    resume: Path | None = None,
    precision: str = "32-true",
    clip: float = 1.0,
    **options: Any,
) -> SPDFineTuningModule:
    """Two epochs of six steps in all."""
    module = SPDFineTuningModule(model, learning_rate=1e-2, batch_size=3, lora_dropout=0.0, **options)
    trainer = Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        precision=precision,  # type: ignore[arg-type]
        gradient_clip_val=clip,
        max_epochs=2,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, Texts(), ckpt_path=resume, weights_only=True)
    return module


def main(model: str, out: Path, accelerator: str = "cpu") -> None:
    """Train every case; rank 0 writes."""
    devices = int(os.environ["LOCAL_WORLD_SIZE"])

    def run(name: str, **options: Any) -> None:
        module = train(model, ShardedStrategy(), accelerator, devices, **options)
        assert module.model is not None and is_sharded(module.model)
        weights = trained_weights(module.model)
        if name == "full":  # what scoring during training works on
            copy = whole_copy(model, module.model, torch.float32).state_dict()
            assert all(torch.equal(copy[key], value) for key, value in weights.items())
        norms[name] = float(module.trainer.callback_metrics["train/grad_norm"])
        if module.global_rank == 0:
            save_student(module.model, out / name, model, weights)

    norms: dict[str, float] = {}
    for name, options in CASES.items():
        run(name, **options)
    half = out / "half.ckpt"
    run("half", callbacks=[StopAfter(4, half)])
    run("resumed", resume=half)
    if int(os.environ["RANK"]) == 0:
        (out / "norms.json").write_text(json.dumps(norms))


if __name__ == "__main__":
    let_gloo_finish_at_exit()
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
