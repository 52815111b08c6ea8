"""Stage 3: fine-tune the base model on its own projected generations, with LoRA, projection off.

Reference: arXiv:2605.22675, section 3 and eq. 14 (next-token loss over prompt and completion of the raw corpus).
"""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from peft import PeftModel
from torch import Tensor, nn
from torchmetrics import MeanMetric
from transformers import PreTrainedModel

from spd_lightning.errors import UserError, counted
from spd_lightning.finetuning.batching import BATCH_SIZE, MAX_LENGTH, LossOn, TextLoader
from spd_lightning.finetuning.checkpoint import (
    keep_typed_rates,
    last_checkpoint,
    made_of,
    refuse_other,
    refuse_other_weights,
)
from spd_lightning.finetuning.lora import adapted_blocks
from spd_lightning.finetuning.loss import check_packing, token_loss_sum
from spd_lightning.finetuning.optimiser import finite_steps, make_optimiser, make_schedule
from spd_lightning.finetuning.pace import Pace
from spd_lightning.finetuning.sharding import is_sharded, shard, whole
from spd_lightning.finetuning.student import student_copy
from spd_lightning.finetuning.trained_model import set_train_mode, trained_model
from spd_lightning.generation.engine import generate_batch
from spd_lightning.generation.requests import Generation, Request
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.embedded import EMBEDDED_MODEL
from spd_lightning.model.load import load_tokenizer
from spd_lightning.model.packed_linear import packed_linears, packs_in_training
from spd_lightning.model.source import model_fingerprint
from spd_lightning.options import check_options
from spd_lightning.seeds import seed_of


class SPDFineTuningModule(LightningModule):
    """Train the student: AdamW on the raw corpus, cosine schedule with a short warm-up.

    The batches come from the data module (`batching.make_train_loader`). Only trainable weights enter checkpoints.

    Args:
        model_name_or_path: Base model: hub id, folder, .gguf file, smollm2-135m-instruct or gemma3-270m.
        lora_r: Rank of the LoRA adapter; null trains all weights.
        lora_alpha: LoRA scale; the update is multiplied by lora_alpha / lora_r.
        lora_dropout: Dropout probability on the adapter's input. The base model's own dropout is always off.
        target_modules: Ends of the module paths that get an adapter; null takes the attention's query, key, value and
            output projections (or the fused ones the architecture has), and those of recurrent layers.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay, on matrices only (not on norms and biases).
        warmup_epochs: Linear warm-up before the cosine, in epochs.
        batch_size: Texts per optimiser step, over all processes and trainer.accumulate_grad_batches.
        max_length: Prompt and completion together, tokens; longer texts lose their end.
        loss_on: Tokens that are learned: all (the published choice), question (question and completion, but not the
            solved examples that every prompt begins with), or the completion alone.
        packing: Put several texts into one row, each with its own positions and attention. Pays on GPUs with short
            texts; batches are grouped by length anyway. Refused beyond a sliding window, for ALiBi, recurrent layers.
        gradient_checkpointing: Keep one activation per layer and recompute the rest, and on a CPU no packed copies of
            the weights: less memory, more time.
        rounds: Times that extract, generate and train are repeated, each from the student before (1 is the published
            method).
        seed: Of the adapter's initial weights, the order of the texts and dropout.
    """

    _predicting: PreTrainedModel | None

    def __init__(
        self,
        model_name_or_path: str = EMBEDDED_MODEL,
        lora_r: int | None = 8,
        lora_alpha: int = 8,
        lora_dropout: float = 0.05,
        target_modules: list[str] | None = None,
        learning_rate: float = 1e-5,
        weight_decay: float = 0.01,
        warmup_epochs: float = 0.5,
        batch_size: int = BATCH_SIZE,
        max_length: int = MAX_LENGTH,
        loss_on: LossOn = "all",
        packing: bool = False,
        gradient_checkpointing: bool = False,
        rounds: int = 1,
        seed: int = 42,
    ) -> None:
        super().__init__()
        check_options(SPDFineTuningModule, locals(), "model")
        self.save_hyperparameters()
        self._options: Any = self.hparams
        lowest = {"rounds": 1, "batch_size": 1, "max_length": 2, "lora_alpha": 1, "warmup_epochs": 0, "weight_decay": 0}
        for name, least in lowest.items():
            if (value := self.hparams[name]) < least:
                raise UserError(f"{name}={value} is too small. Set --model.{name} to {least} or more.")
        if learning_rate <= 0:
            raise UserError(f"learning_rate={learning_rate} is not above 0. Set --model.learning_rate.")
        self.strict_loading = False  # checkpoints hold trainable weights alone; on_load_checkpoint compares the names
        self.model: PreTrainedModel | PeftModel | None = None
        self.val_loss = MeanMetric()
        self._fingerprint: str | None = None
        self.key: dict[str, Any] | None = None  # what this student depends on, for checkpoints; the pipeline knows
        self._resume: tuple[int, dict[str, int]] | None = None  # optimiser step of a checkpoint, state of its loader
        self._step_loss = torch.zeros((), dtype=torch.float32)
        self._pace = Pace()
        self.read: dict[str, int] = {}  # as `training_health` takes it, once a fit has begun
        self.trained_tokens = 0  # of this fit, on all processes, once it has ended
        self._packed = contextlib.ExitStack()
        object.__setattr__(self, "_predicting", None)

    # -- the model ---------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Make `trained_model`, once, and spread it over the processes under fsdp."""
        if self.model is not None:
            return
        precision = self._trainer.precision if self._trainer is not None else "32-true"
        self.model = trained_model(self._options, str(precision))
        set_train_mode(self.model)
        if self.device_mesh is not None:  # strategy fsdp
            mixed = torch.bfloat16 if precision == "bf16-mixed" else None
            shard(self.model, self.device_mesh["data_parallel"], mixed)
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")  # on purpose, see there

    @property
    def _model(self) -> Any:
        if self.model is None:
            self.configure_model()
        assert self.model is not None
        return self.model

    def to(self, *args: Any, **kwargs: Any) -> SPDFineTuningModule:
        """Move to a device. A dtype is not taken over: `configure_model` chose one for each weight.

        (Lightning's bf16-true would round the adapter's weights and the rotary frequencies.)
        """
        where = args[0] if args else kwargs.get("device", kwargs.get("tensor"))
        where = where.device if isinstance(where, Tensor) else where
        return self if where is None or isinstance(where, torch.dtype) else super().to(where)

    # -- training ----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """AdamW, and a cosine schedule by optimiser step."""
        h = self._options
        optimiser = make_optimiser(self._model, h.learning_rate, h.weight_decay)
        total = finite_steps(self.trainer.estimated_stepping_batches, self.trainer.max_epochs)
        if not math.isfinite(self.trainer.num_training_batches):  # max_steps alone: Lightning has not looked yet
            self.trainer.fit_loop.setup_data()
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        schedule = make_schedule(optimiser, h.warmup_epochs, per_epoch, total)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Check that the data fits the model and the trainer, and say where training starts."""
        loader: Any = self.trainer.train_dataloader
        loader.check(self.trainer.accumulate_grad_batches, self._model, self._options.model_name_or_path)
        if loader.packing:
            check_packing(self._model, max(len(row.input_ids) for row in loader.rows))
        trained = sum(p.numel() for p in self._model.parameters() if p.requires_grad)
        step = self.trainer.global_step
        # Lightning loses the loader's state here: the schedule asks for the number of batches, which makes the loader
        # before the loops are restored.
        if self._resume is not None and step == self._resume[0] > 0:
            loader.load_state_dict(self._resume[1])
        loader.set_epoch(self.current_epoch)
        self._resume = None
        self.read = loader.figures(self.trainer.num_training_batches)
        dropped = f", {loader.num_without_loss} without a token to learn left out" if loader.num_without_loss else ""
        rank_zero_info(
            f"Training on {counted(len(loader.rows), 'text')}, {loader.num_truncated} of them cut at "
            f"max_length={loader.max_length} tokens{dropped}."
        )
        rank_zero_info(
            f"{'Continuing from' if step else 'Starting at'} optimiser step {step} of "
            f"{self.trainer.estimated_stepping_batches} (epoch {self.current_epoch}); {trained:,} trained weights of "
            f"norm {self._norm(p for p in self._model.parameters() if p.requires_grad):.6g}."
        )
        rank_zero_info(adapted_blocks(self._model))
        self._packed.close()
        checkpointing = self._options.gradient_checkpointing
        if packs_in_training(self.trainer.precision, is_sharded(self._model), checkpointing):
            self._packed.enter_context(packed_linears(self._model))
        self._pace = Pace()

    def on_train_end(self) -> None:
        """Give the memory of the packed weights back, and say how fast it went."""
        self._packed.close()
        real = torch.tensor(float(self._pace.real), dtype=torch.float64, device=self.device)
        self.trained_tokens = round(float(self.trainer.strategy.reduce(real, reduce_op="sum")))
        speed, padding = self.trained_tokens / self._pace.seconds(), self._pace.padding()
        rank_zero_info(f"Trained on {speed:.0f} real tokens/s; {padding:.1%} of the positions computed were padding.")

    def on_train_epoch_start(self) -> None:
        """Choose the order of this epoch's texts."""
        self.trainer.train_dataloader.set_epoch(self.current_epoch)  # type: ignore[union-attr]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of a micro-batch, scaled so that its gradients sum to those of the global batch's token mean.

        Lightning divides by the accumulation steps and DDP by the processes; both are undone here.
        """
        step = self.trainer.global_step
        torch.manual_seed(seed_of("dropout", self._options.seed, step, batch["micro"], self.global_rank))
        share = token_loss_sum(self._model, batch) / batch["global_loss_tokens"]
        self._step_loss = self._step_loss.to(share.device) + share.detach()
        self._pace.add(batch["num_tokens"], batch["num_padded"])
        return share * (self.trainer.world_size * self.trainer.accumulate_grad_batches)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the step, before clipping; stop where loss or gradient is not a number, before weights are spoilt."""
        norm = self._norm(p.grad for p in self._model.parameters() if p.grad is not None)
        loss = self.trainer.strategy.reduce(self._step_loss, reduce_op="sum")
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise UserError(
                f"train/loss is {float(loss)} and the gradient norm {float(norm)} at optimiser step "
                f"{self.trainer.global_step} (epoch {self.current_epoch}); the weights were not changed. Last good "
                f"checkpoint: {last_checkpoint(self.trainer.checkpoint_callbacks)}. Lower "
                f"learning_rate={self._options.learning_rate} (--model.learning_rate), or set precision=32-true "
                "(--trainer.precision)."
            )
        speed, padding = self._pace.end_step()
        values = {
            "train/loss": loss,
            "train/grad_norm": norm,
            "train/lr": optimizer.param_groups[0]["lr"],
            "train/tokens_per_second": self.trainer.world_size * speed,
            "train/padding_share": padding,
        }
        self.log_dict(values, prog_bar=True, batch_size=self._options.batch_size)
        self._step_loss = 0 * loss

    def _norm(self, tensors: Iterator[Tensor]) -> Tensor:
        return whole(nn.utils.get_total_norm(list(tensors)))

    # -- validation, test, predict -----------------------------------------------------------------------------------

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add a batch to ``val/loss``: nats per token of the held-out texts, over all processes."""
        count = int((batch["labels"][:, 1:] != -100).sum())
        total = token_loss_sum(self._model, batch)  # also where there is nothing to count: sharded layers gather in it
        if count:
            self.val_loss.update(total / count, weight=count)
        self.log("val/loss", self.val_loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=max(count, 1))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: benchmarks are run by BenchmarkCallback."""

    def predict_step(self, batch: list[Request], batch_idx: int) -> list[Generation]:
        """The student's completions, sampled as the corpus of the data module was, if there is one."""
        recipe = getattr(getattr(self.trainer, "datamodule", None), "recipe", None)
        params = SamplingParams(seed=self._options.seed) if recipe is None else recipe.sampling
        model = self._predicting or self._model
        return generate_batch(model, load_tokenizer(self._options.model_name_or_path), batch, params)

    def on_predict_start(self) -> None:
        """Sample from the student as it is scored: its adapter beside the base, not behind a rounded output."""
        if isinstance(self._model, PeftModel):
            copy = student_copy(self._options.model_name_or_path, self._model, self._model.dtype, self.device)
            object.__setattr__(self, "_predicting", copy)  # not a part of this module

    def on_predict_end(self) -> None:
        """Give its memory back."""
        object.__setattr__(self, "_predicting", None)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The trainable weights alone."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        return {name: value for name, value in super().state_dict(*args, **kwargs).items() if name in trained}

    def _made_of(self) -> dict[str, Any]:
        if self._fingerprint is None:
            self._fingerprint = model_fingerprint(self._options.model_name_or_path)
        return made_of(self._model, self._fingerprint, self.hparams)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the base, the adapter's shape and the place in the data."""
        checkpoint["spd"] = {**self._made_of(), "model_name_or_path": self._options.model_name_or_path}
        if self.key is not None:
            checkpoint["spd"]["recipe"] = json.dumps(self.key)  # the name that checkpoints have had
        checkpoint["spd"]["read"] = self.read  # a fit that has nothing left to do reads no texts
        if isinstance(self.trainer.train_dataloader, TextLoader):
            checkpoint["spd"]["loader"] = self.trainer.train_dataloader.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another base, adapter shape or set of weights.

        Raises:
            UserError: With the name of what differs, there and here.
        """
        saved: Any = checkpoint.get("spd")
        refuse_other(saved, self._made_of(), self._options.model_name_or_path)
        refuse_other_weights(self, checkpoint.get("state_dict"))
        for line in keep_typed_rates(checkpoint, self.hparams):
            rank_zero_info(line)
        self.read = dict(saved.get("read", {}))
        if "loader" in saved:
            self._resume = (checkpoint["global_step"], saved["loader"])
