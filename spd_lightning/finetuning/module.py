"""Stage 3: fine-tune the base model on its own projected generations, with LoRA, projection off.

Reference: arXiv:2605.22675, section 3 and eq. 14 (next-token loss over prompt and completion of the raw corpus).
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from peft import PeftModel
from torch import Tensor, nn
from torchmetrics import MeanMetric
from transformers import PreTrainedModel

from spd_lightning.errors import UserError
from spd_lightning.finetuning.batching import BATCH_SIZE, MAX_LENGTH, LossOn, TextLoader
from spd_lightning.finetuning.checkpointing import recompute_layers, recomputes
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.loss import check_packing, token_loss_sum
from spd_lightning.finetuning.sharding import is_sharded, shard, whole
from spd_lightning.finetuning.student import student_copy
from spd_lightning.model.load import load_model, load_tokenizer
from spd_lightning.model.packed_linear import packed_linears, packs_in_training
from spd_lightning.model.source import EMBEDDED_MODEL, model_fingerprint
from spd_lightning.seeds import seed_of

if TYPE_CHECKING:
    from spd_lightning.generation.requests import Generation, Request
from spd_lightning.finetuning.optimiser import cosine_factor

log = logging.getLogger(__name__)
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")


class SPDFineTuningModule(LightningModule):
    """Train the student: AdamW on the raw corpus, cosine schedule with a short warm-up.

    The batches come from the data module (`batching.make_train_loader`). Only trainable weights enter checkpoints.

    Args:
        model_name_or_path: Base model: hub id, folder, .gguf file or smollm2-135m-instruct.
        lora_r: Rank of the LoRA adapter; null trains all weights.
        lora_alpha: LoRA scale; the update is multiplied by lora_alpha / lora_r.
        lora_dropout: Dropout probability on the adapter's input. The base model's own dropout is always off.
        target_modules: Ends of the module paths that get an adapter; null takes the attention's query, key, value and
            output projections (or the fused ones the architecture has).
        learning_rate: Peak learning rate.
        weight_decay: Weight decay, on matrices only (not on norms and biases).
        warmup_epochs: Linear warm-up before the cosine, in epochs.
        batch_size: Texts per optimiser step, over all processes and trainer.accumulate_grad_batches.
        max_length: Prompt and completion together, tokens; longer texts lose their end.
        loss_on: Tokens that are learned: all (the published choice) or the completion alone.
        packing: Put several texts into one row, each with its own positions and attention. Pays on GPUs with short
            texts; batches are grouped by length anyway. Refused for texts beyond a sliding window, and with ALiBi.
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
        for name, value, least in (("rounds", rounds, 1), ("batch_size", batch_size, 1), ("max_length", max_length, 2)):
            if value < least:
                raise UserError(f"{name}={value} is too small. Set --model.{name} to {least} or more.")
        if learning_rate <= 0:
            raise UserError(f"learning_rate={learning_rate} is not above 0. Set --model.learning_rate.")
        self.save_hyperparameters()
        self._options: Any = self.hparams
        self.strict_loading = False  # checkpoints hold trainable weights alone; on_load_checkpoint compares the names
        self.model: PreTrainedModel | PeftModel | None = None
        self.val_loss = MeanMetric()
        self._fingerprint: str | None = None
        self.recipe: dict[str, Any] | None = None  # what this student depends on, for checkpoints; the pipeline knows
        self._resume: tuple[int, dict[str, int]] | None = None  # optimiser step of a checkpoint, state of its loader
        self._step_loss = torch.zeros((), dtype=torch.float32)
        self._step_tokens = self._step_padded = 0
        self._real_tokens = self._all_tokens = 0  # of this fit, on this process, without and with padding
        self.trained_tokens = 0  # of this fit, on all processes, once it has ended
        self._step_start = self._fit_start = 0.0
        self._packed = contextlib.ExitStack()
        object.__setattr__(self, "_predicting", None)

    # -- the model ---------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Load the base and wrap it, once. Trainable weights are float32; a frozen base is bf16 under bf16-true."""
        if self.model is not None:
            return
        h = self._options
        precision = self._trainer.precision if self._trainer is not None else "32-true"
        if precision not in PRECISIONS:
            raise UserError(f"trainer.precision={precision} is not supported. Set it to {', '.join(PRECISIONS)}.")
        if precision == "bf16-true" and h.lora_r is None:
            raise UserError(
                "trainer.precision=bf16-true with lora_r=null would keep the trained weights in bf16, where a step of "
                f"{h.learning_rate} vanishes by rounding. Set --trainer.precision=bf16-mixed, or a --model.lora_r."
            )
        dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
        base = load_model(h.model_name_or_path, dtype, merged=h.lora_r is None)
        if h.gradient_checkpointing:
            recompute_layers(base)
        if h.lora_r is None:
            self.model = base.requires_grad_(True)
        else:
            self.model = add_lora(
                base, h.lora_r, h.lora_alpha, h.lora_dropout, h.target_modules, h.seed, h.model_name_or_path
            )
        self.set_train_mode()
        if self.device_mesh is not None:  # strategy fsdp
            mixed = torch.bfloat16 if precision == "bf16-mixed" else None
            shard(self.model, self.device_mesh["data_parallel"], mixed)
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")  # on purpose, see there

    def set_train_mode(self) -> None:
        """Dropout of the base off, of the adapter on; layers that are recomputed get the flag too, for that alone."""
        for name, module in self._model.named_modules():
            module.training = "lora_dropout" in name or recomputes(module)

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
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        return self if device is None else super().to(device)

    # -- training ----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """AdamW, and a cosine schedule by optimiser step."""
        h = self._options
        weights = [p for p in self._model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.ndim >= 2], "weight_decay": h.weight_decay},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=h.learning_rate)
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise UserError(
                f"The cosine schedule needs an end, and trainer.max_epochs={self.trainer.max_epochs} has none. "
                "Set --trainer.max_epochs or --trainer.max_steps."
            )
        if not math.isfinite(self.trainer.num_training_batches):  # max_steps alone: Lightning has not looked yet
            self.trainer.fit_loop.setup_data()
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        warmup = min(round(h.warmup_epochs * per_epoch), int(total))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_factor(step, warmup, int(total)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Check that the data fits the model and the trainer, and say where training starts."""
        loader: Any = self.trainer.train_dataloader
        accumulate = self.trainer.accumulate_grad_batches
        if loader.accumulate != accumulate:
            raise UserError(
                f"The training batches were made for accumulate={loader.accumulate}, but "
                f"trainer.accumulate_grad_batches={accumulate}. Pass the trainer's value to make_train_loader."
            )
        rows = self._model.get_input_embeddings().num_embeddings
        if loader.max_token_id >= rows:
            raise UserError(
                f"The corpus holds token id {loader.max_token_id}, but the vocabulary of "
                f"{self._options.model_name_or_path} has {rows} rows: corpus and model do not belong together. "
                "Set --subspace.model_name_or_path to the model that generated the corpus."
            )
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
        dropped = f", {loader.num_without_loss} without a token to learn left out" if loader.num_without_loss else ""
        rank_zero_info(
            f"Training on {len(loader.rows)} texts, {loader.num_truncated} of them cut at "
            f"max_length={loader.max_length} tokens{dropped}."
        )
        rank_zero_info(
            f"{'Continuing from' if step else 'Starting at'} optimiser step {step} of "
            f"{self.trainer.estimated_stepping_batches} (epoch {self.current_epoch}); {trained:,} trained weights of "
            f"norm {self._norm(p for p in self._model.parameters() if p.requires_grad):.6g}."
        )
        self._packed.close()
        checkpointing = self._options.gradient_checkpointing
        if packs_in_training(self.trainer.precision, is_sharded(self._model), checkpointing):
            self._packed.enter_context(packed_linears(self._model))
        self._real_tokens = self._all_tokens = 0
        self._step_start = self._fit_start = time.perf_counter()

    def on_train_end(self) -> None:
        """Give the memory of the packed weights back, and say how fast it went."""
        self._packed.close()
        real = torch.tensor(float(self._real_tokens), dtype=torch.float64, device=self.device)
        self.trained_tokens = round(float(self.trainer.strategy.reduce(real, reduce_op="sum")))
        speed = self.trained_tokens / (time.perf_counter() - self._fit_start)
        padding = 1 - self._real_tokens / max(self._all_tokens, 1)
        rank_zero_info(f"Trained on {speed:.0f} real tokens/s; {padding:.1%} of the positions computed were padding.")

    def on_train_epoch_start(self) -> None:
        """Choose the order of this epoch's texts."""
        loader: Any = self.trainer.train_dataloader
        loader.set_epoch(self.current_epoch)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of a micro-batch, scaled so that its gradients sum to those of the global batch's token mean.

        Lightning divides by the accumulation steps and DDP by the processes; both are undone here.
        """
        step = self.trainer.global_step
        torch.manual_seed(seed_of("dropout", self._options.seed, step, batch["micro"], self.global_rank))
        share = token_loss_sum(self._model, batch) / batch["global_loss_tokens"]
        self._step_loss = self._step_loss.to(share.device) + share.detach()
        self._step_tokens += batch["num_tokens"]
        self._step_padded += batch["num_padded"]
        return share * (self.trainer.world_size * self.trainer.accumulate_grad_batches)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the step, before clipping; stop where loss or gradient is not a number, before weights are spoilt."""
        norm = self._norm(p.grad for p in self._model.parameters() if p.grad is not None)
        loss = self.trainer.strategy.reduce(self._step_loss, reduce_op="sum")
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise UserError(
                f"train/loss is {float(loss)} and the gradient norm {float(norm)} at optimiser step "
                f"{self.trainer.global_step} (epoch {self.current_epoch}); the weights were not changed. Last good "
                f"checkpoint: {self._last_checkpoint()}. Lower --model.learning_rate (now "
                f"{self._options.learning_rate}), or set --trainer.precision=32-true."
            )
        now = time.perf_counter()
        values = {
            "train/loss": loss,
            "train/grad_norm": norm,
            "train/lr": optimizer.param_groups[0]["lr"],
            "train/tokens_per_second": self.trainer.world_size * self._step_tokens / (now - self._step_start),
            "train/padding_share": 1 - self._step_tokens / max(self._step_padded, 1),
        }
        self.log_dict(values, prog_bar=True, batch_size=self._options.batch_size)
        self._real_tokens += self._step_tokens
        self._all_tokens += self._step_padded
        self._step_loss, self._step_tokens, self._step_padded, self._step_start = 0 * loss, 0, 0, now

    def _norm(self, tensors: Iterator[Tensor]) -> Tensor:
        return whole(nn.utils.get_total_norm(list(tensors)))

    def _last_checkpoint(self) -> str:
        paths = [
            path
            for callback in self.trainer.checkpoint_callbacks
            for path in (getattr(callback, "last_model_path", ""), getattr(callback, "best_model_path", ""))
            if path
        ]
        return paths[0] if paths else "none was written yet"

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
        """The student's completions, sampled under the data module's ``sampling_params`` if it has any."""
        from spd_lightning.generation.engine import generate_batch
        from spd_lightning.generation.sampling import SamplingParams

        params = getattr(getattr(self.trainer, "datamodule", None), "sampling_params", None) or SamplingParams(
            seed=self._options.seed
        )
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
        """What a checkpoint's weights only fit onto."""
        if self._fingerprint is None:
            self._fingerprint = model_fingerprint(self._options.model_name_or_path)
        targets = sorted(self._model.peft_config["default"].target_modules) if self._options.lora_r else None
        return {
            "base": self._fingerprint,
            "lora_r": self._options.lora_r,
            "lora_alpha": self._options.lora_alpha if self._options.lora_r else None,
            "target_modules": targets,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the base, the adapter's shape and the place in the data."""
        checkpoint["spd"] = {**self._made_of(), "model_name_or_path": self._options.model_name_or_path}
        if self.recipe is not None:
            checkpoint["spd"]["recipe"] = json.dumps(self.recipe)
        if isinstance(self.trainer.train_dataloader, TextLoader):
            checkpoint["spd"]["loader"] = self.trainer.train_dataloader.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another base, adapter shape or set of weights.

        Raises:
            UserError: With the name of what differs, there and here.
        """
        saved = checkpoint.get("spd")
        if saved is None:
            raise UserError("The checkpoint was not written by SPDFineTuningModule. Set --ckpt_path to one of its own.")
        for name, here in self._made_of().items():
            if saved[name] != here:
                there = saved["model_name_or_path"] if name == "base" else saved[name]
                here = self._options.model_name_or_path if name == "base" else here
                option = "--subspace.model_name_or_path" if name == "base" else f"--model.{name}"
                raise UserError(
                    f"The checkpoint was made with {name}={there}, this run has {name}={here} (of other content). "
                    f"Set {option} to what it was made with, or start without --ckpt_path."
                )
        expected = {name: tuple(p.shape) for name, p in self.named_parameters() if p.requires_grad}
        weights = checkpoint.get("state_dict")  # gone where the strategy has spread it over the processes already
        found = expected if weights is None else {name: tuple(value.shape) for name, value in weights.items()}
        if expected != found:
            wrong = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
            raise UserError(
                f"The checkpoint does not hold this run's {len(expected)} trained weights; {len(wrong)} differ, first "
                f"{wrong[0]}. Start without --ckpt_path."
            )
        self._keep_typed_rates(checkpoint)
        if "loader" in saved:
            self._resume = (checkpoint["global_step"], saved["loader"])

    def _keep_typed_rates(self, checkpoint: dict[str, Any]) -> None:
        """Where learning rate or weight decay differ from the checkpoint's, put this run's into its optimiser state."""
        there, here = checkpoint["hyper_parameters"], self._options
        for name in ("learning_rate", "weight_decay"):
            if there[name] == here[name]:
                continue
            rank_zero_info(f"{name}: {there[name]} in the checkpoint, {here[name]} now; {here[name]} is used.")
            for group in (g for state in checkpoint["optimizer_states"] for g in state["param_groups"]):
                if name == "weight_decay":
                    group[name] = here[name] if group[name] else 0.0
                else:
                    group["initial_lr"], group["lr"] = here[name], group["lr"] * here[name] / there[name]
            if name == "learning_rate":
                for state in checkpoint["lr_schedulers"]:
                    state["base_lrs"] = [here[name]] * len(state["base_lrs"])
