"""Stage 3, its beginning: the model that is trained, a frozen base with an adapter or a base with all its weights."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from spd_lightning.errors import UserError
from spd_lightning.finetuning.lora import add_lora, check_lora, lora_targets
from spd_lightning.finetuning.loss import check_packing
from spd_lightning.finetuning.recomputing import recompute_layers, recomputes
from spd_lightning.model.load import load_config, load_model
from spd_lightning.model.text_part import skeleton

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")


def trained_model(options: Any, precision: str) -> PreTrainedModel | PeftModel:
    """Load the base and wrap it. Trainable weights are float32; a frozen base is bf16 under bf16-true.

    Args:
        options: Of `SPDFineTuningModule`.
        precision: The trainer's.

    Raises:
        UserError: For a precision that is not supported, or that would round the trained weights.
    """
    check_precision(options, precision)
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    base = load_model(options.model_name_or_path, dtype, merged=options.lora_r is None)
    if options.gradient_checkpointing:
        recompute_layers(base)
    if options.lora_r is None:
        return base.requires_grad_(True)
    return add_lora(
        base,
        options.lora_r,
        options.lora_alpha,
        options.lora_dropout,
        options.target_modules,
        options.seed,
        options.model_name_or_path,
    )


def check_student(options: Any, precision: str) -> None:
    """Refuse what `trained_model` would refuse, from the model's skeleton alone: no weights are loaded.

    Args:
        options: Of `SPDFineTuningModule`.
        precision: The trainer's.

    Raises:
        UserError: For a precision, rank, dropout or modules that cannot be trained, or texts that cannot be packed.
    """
    check_precision(options, precision)
    model = skeleton(load_config(options.model_name_or_path))
    if options.lora_r is not None:
        check_lora(options.lora_r, options.lora_dropout)
        lora_targets(model, options.target_modules)
    if options.packing:
        check_packing(model, options.max_length)


def check_precision(options: Any, precision: str) -> None:
    """Refuse a precision that is not supported, or that would round the trained weights."""
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision} is not supported. Set --trainer.precision to {', '.join(PRECISIONS)}.")
    if precision == "bf16-true" and options.lora_r is None:
        raise UserError(
            "precision=bf16-true with lora_r=null would keep the trained weights in bf16, where a step of "
            f"{options.learning_rate} vanishes by rounding. Set --trainer.precision=bf16-mixed, or a --model.lora_r."
        )


def set_train_mode(model: nn.Module) -> None:
    """Dropout of the base off, of the adapter on; layers that are recomputed get the flag too, for that alone."""
    for name, module in model.named_modules():
        module.training = "lora_dropout" in name or recomputes(module)
