"""Stage 3, loss: next-token cross-entropy at the positions that carry a label, and nowhere else.

The vocabulary projection is the largest matrix product of a small model; it runs on labelled positions alone, so
neither padding nor what ``loss_on`` leaves out (the prompt, or its solved examples) costs any. Reference:
arXiv:2605.22675, eq. 14.

Shapes: b rows, s tokens of the longest, n labelled positions, v vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn

from spd_lightning.errors import UserError
from spd_lightning.finetuning.batching import IGNORE_INDEX, packed_mask
from spd_lightning.finetuning.cross_entropy import head_loss_sum, logits_or_hidden, loss_and_gradient
from spd_lightning.model.anatomy import attention_of, head_at, recurrent_layers
from spd_lightning.model.short_attention import short_attention, without_plans


def token_loss_sum(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Sum of the cross-entropies (nats) of all labelled tokens of a micro-batch.

    Args:
        model: A causal language model, with or without an adapter.
        batch: What ``batching.collate`` made. Right padding needs no mask: no real token looks to its right.

    Returns:
        Scalar, float32 (float64 for a float64 model); 0 with a graph where the batch has no label, so that every
        process can take part in backward.
    """
    input_ids, labels = batch["input_ids"], batch["labels"]
    positions = (labels[:, 1:] != IGNORE_INDEX).nonzero(as_tuple=True)
    targets = labels[:, 1:][positions]
    inputs = {"input_ids": input_ids, "use_cache": False, **_packing(model, batch)}
    with _cheap_bf16(model, input_ids.device.type), head_at(model, *positions):
        found, head = logits_or_hidden(model, inputs)
        if head is not None:
            projection: Any = model.get_output_embeddings()  # type: ignore[operator]
            return head_loss_sum(head, found.squeeze(0), targets, projection.out_features)
    logits = found.squeeze(0)  # [n, v]
    return _CrossEntropySum.apply(logits, targets)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _cheap_bf16(model: nn.Module, device_type: str) -> Iterator[None]:
    """In bf16, skip what costs more than the products: casts of every activation, attention in blocks on a CPU.

    On a bf16 base the float32 adapter computes in bf16 too; PEFT would cast every activation up and down.
    """
    with contextlib.ExitStack() as contexts:
        # Under gradient checkpointing the layers run again outside these contexts, so they must not depend on them.
        recompute = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        if not recompute:
            contexts.enter_context(short_attention() if device_type == "cpu" else without_plans())
        if isinstance(model, PeftModel) and model.dtype == torch.bfloat16:
            contexts.enter_context(torch.autocast(device_type, torch.bfloat16))
            if not recompute:
                contexts.enter_context(disable_input_dtype_casting(model))
        yield


def check_packing(model: Any, longest: int) -> None:
    """Refuse to pack for models to which a mask of the texts of a row cannot be given.

    A ready mask takes the place of the model's own, and with it of its sliding window; ALiBi takes none, and what
    recurrent layers and convolutions carry from token to token knows no mask.

    Args:
        model: A causal language model.
        longest: Tokens of the longest text.

    Raises:
        UserError: If a text is longer than the window, positions are told by ALiBi, or layers carry a state.
    """
    config = model.config.get_text_config()
    if recurrent := recurrent_layers(model.config):
        raise UserError(
            f"packing=True would leak the texts of a row into each other: {len(recurrent)} layers of this "
            f"{config.model_type} model carry a state from token to token. Set --model.packing=false."
        )
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    window = next((tokens for tokens in windows if tokens is not None), None)
    if window is not None and longest > window and "flash" not in attention_of(config):
        raise UserError(
            f"packing=True would lose the sliding window of {window} tokens of this {config.model_type} model: the "
            f"longest text has {longest}. Set --model.packing=false, or max_length={window} (--model.max_length)."
        )
    if getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        raise UserError(
            f"packing=True is not possible with the ALiBi positions of this {config.model_type} model. Set "
            "--model.packing=false."
        )


def _packing(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Positions and the block-diagonal mask of packed rows, in the form that the model's attention takes."""
    if "segment_ids" not in batch:
        return {}
    attention = attention_of(model.config)
    if "flash" in attention:  # finds the texts of a row by their positions
        return {"position_ids": batch["position_ids"]}
    mask = packed_mask(batch["segment_ids"])
    if attention == "eager":
        dtype: Any = model.dtype
        lowest = torch.finfo(dtype).min
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest)
    return {"position_ids": batch["position_ids"], "attention_mask": mask}


class _CrossEntropySum(torch.autograd.Function):
    """Sum of cross-entropies whose gradient is made in the same pass, so that no float32 copy of [n, v] is held."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(*([] if gradient is None else [gradient]))
        return loss_and_gradient(logits, targets, gradient)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(grad_output.to(gradient.dtype)), None  # in place: it is as large as the logits
