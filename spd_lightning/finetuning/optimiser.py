"""Stage 3: AdamW over the trained weights, and the cosine schedule with a short warm-up."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from spd_lightning.errors import UserError


def weight_groups(weights: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of the trained weights: matrices decay, norms and biases do not; no group is empty."""
    trained = [p for p in weights if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimiser(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the trained weights of a model."""
    return torch.optim.AdamW(weight_groups(model.parameters(), weight_decay), lr=learning_rate)


def finite_steps(total: float, max_epochs: int | None) -> int:
    """Optimiser steps of the whole training, as the trainer counts them.

    Raises:
        UserError: If it has no end.
    """
    if not math.isfinite(total):
        raise UserError(
            f"The cosine schedule needs an end, and max_epochs={max_epochs} has none. Set --trainer.max_epochs "
            "or max_steps (--trainer.max_steps)."
        )
    return int(total)


def make_schedule(
    optimiser: torch.optim.Optimizer, warmup_epochs: float, steps_per_epoch: int, total_steps: int
) -> LambdaLR:
    """`cosine_factor` by optimiser step.

    Args:
        optimiser: Whose learning rate is scheduled.
        warmup_epochs: Linear warm-up, in epochs.
        steps_per_epoch: Optimiser steps of an epoch.
        total_steps: Optimiser steps of the whole training.
    """
    warmup = min(round(warmup_epochs * steps_per_epoch), total_steps)
    return LambdaLR(optimiser, lambda step: cosine_factor(step, warmup, total_steps))


def cosine_factor(step: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate at an optimiser step: linear from 0 over ``warmup`` steps, then cosine to 0."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(total - warmup, 1), 1.0)))
