"""Stage 3: which layers of a base model LoRA adapts, and the model with the adapter around them."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from spd_lightning.errors import UserError
from spd_lightning.model.anatomy import decoder_layers, is_conv1d, is_linear, text_decoder
from spd_lightning.model.checkpoint_files import split_revision
from spd_lightning.model.source import loadable_name
from spd_lightning.seeds import seed_of

# Query, key, value and output projections by the names that architectures give them; those that exist are used.
ATTENTION_PROJECTIONS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "qkv_proj",
    "query_key_value",
    "c_attn",
    "Wqkv",
    "kv_proj",
    "attn.c_proj",
    "attn.out_proj",
    "attn.Wo",
    "attention.dense",
    "attention.out_proj",
    "self_attention.dense",
    "self_attn.out_proj",
    "self_attn.dense",
)

# Projections of what stands in a block for attention or beside it: linear attention, gated convolution, Mamba. The
# output projection of a Mamba is left alone: its fused kernels read the weight past the layer, and so past an adapter.
MIXER_PROJECTIONS = (
    "mamba.in_proj",
    "mixer.in_proj",
    *(f"linear_attn.in_proj_{part}" for part in ("qkv", "qkvz", "z", "ba", "a", "b")),
    "linear_attn.out_proj",
    "conv.in_proj",
    "conv.out_proj",
)


def lora_targets(model: nn.Module, target_modules: list[str] | None = None) -> list[str]:
    """The names of the projections that get an adapter, sorted.

    Args:
        model: The base model.
        target_modules: Ends of module paths, as in PEFT; None takes the attention's query, key, value and output
            projections (or the fused ones) that the model has, and those of recurrent layers and convolutions.

    Layers that share their weights (Zamba2's attention) get none by default: merged, it would be that of all of them.

    Raises:
        UserError: If a name matches no linear layer, or one that shares its weights; the message lists what exists.
    """
    linear = {name: module for name, module in decoder_layers(model).named_modules() if is_linear(module)}
    paths = list(linear)
    owners = Counter(id(module.weight) for module in linear.values())
    shared = [path for path, module in linear.items() if owners[id(module.weight)] > 1]
    names = [*ATTENTION_PROJECTIONS, *MIXER_PROJECTIONS] if target_modules is None else list(target_modules)
    found = sorted({n for n in names if any(p.endswith(f".{n}") or p == n for p in paths)})
    lent = [n for n in found if any(p.endswith(f".{n}") or p == n for p in shared)]
    if lent and target_modules is not None:
        raise UserError(
            f"target_modules: {', '.join(lent)} share their weights between layers of {type(model).__name__}, so an "
            "adapter on one of them cannot be merged. Leave them out of --model.target_modules."
        )
    found = [n for n in found if n not in lent]
    missing = [] if target_modules is None else [n for n in names if n not in found]
    if missing or not found:
        exist = sorted({re.sub(r"^\d+\.", "", path) for path in paths})
        wrong = ", ".join(missing) or ("its attention projections" if target_modules is None else "[]")
        raise UserError(
            f"target_modules: {wrong} matches no linear layer of {type(model).__name__}. Found: {', '.join(exist)}. "
            "Set --model.target_modules to some of these."
        )
    return found


def check_lora(lora_r: int, lora_dropout: float) -> None:
    """Refuse a rank below 1, or a dropout that is no probability below 1."""
    if lora_r < 1:
        raise UserError(
            f"lora_r={lora_r} is not a rank. Set --model.lora_r to 1 or more, or null to train all weights."
        )
    if not 0 <= lora_dropout < 1:
        raise UserError(f"lora_dropout={lora_dropout} is not a probability below 1. Set --model.lora_dropout.")


def add_lora(
    model: PreTrainedModel,
    lora_r: int,
    lora_alpha: int,
    lora_dropout: float,
    target_modules: list[str] | None,
    seed: int,
    name: str,
) -> PeftModel:
    """Wrap a frozen base model with a fresh LoRA adapter; its output does not change until the adapter is trained.

    The base stays in eval mode (its own dropout off), the adapter's dropout follows train mode. Adapter weights are
    float32 whatever the base's dtype, and drawn from ``seed`` without touching the random state of the process.

    Args:
        model: Base model; changed in place.
        lora_r: Rank of the adapter.
        lora_alpha: Scale; the update is multiplied by ``lora_alpha / lora_r``.
        lora_dropout: Dropout probability on the adapter's input.
        target_modules: See `lora_targets`.
        seed: Of the initial weights.
        name: What the user calls the base; recorded in the adapter.
    """
    check_lora(lora_r, lora_dropout)
    config = LoraConfig(
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=lora_targets(model, target_modules),
        exclude_modules=_beside_the_text(model),
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(is_conv1d(m) for m in model.modules()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("lora weights", seed))
        wrapped = get_peft_model(model, config)
    for module in wrapped.modules():
        if isinstance(module, LoraLayer) and lora_dropout > 0:
            module.lora_dropout["default"] = AdapterDropout(lora_dropout)
    base, revision = split_revision(name)
    wrapped.peft_config["default"].base_model_name_or_path = loadable_name(base)
    wrapped.peft_config["default"].revision = revision
    return wrapped


def _beside_the_text(model: PreTrainedModel) -> str | None:
    """What names modules outside the text part of a multimodal model, for PEFT; None where there are none."""
    path, _ = text_decoder(model)
    return rf"(?!{re.escape(path)}\.).*" if path else None


def adapted_blocks(model: nn.Module) -> str:
    """How many decoder layers have an adapter, which have none, and where it is."""
    if not isinstance(model, PeftModel):
        return "All weights are trained; there is no adapter."
    blocks = decoder_layers(model)
    without = [i for i, block in enumerate(blocks) if not any(isinstance(m, LoraLayer) for m in block.modules())]
    text = f"LoRA adapts {len(blocks) - len(without)} of {len(blocks)} blocks"
    if without:
        text += f" (not {', '.join(map(str, without))}, which have none of these)"
    config: Any = model.peft_config["default"]
    return f"{text}: {', '.join(sorted(config.target_modules))}."


class AdapterDropout(nn.Dropout):
    """Dropout whose mask is cheaper on a CPU: four 16-bit draws from each 64 random bits.

    The probability is rounded to 1 / 65536. Every adapted projection draws one mask a step.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zero entries at random in train mode and scale the rest up by 1 / (1 - p)."""
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        threshold = round(self.p * 65536) - 32768
        keep = (bits.view(torch.int16)[: x.numel()] >= threshold).view(x.shape)
        return x * keep.to(x.dtype).mul_(1 / (1 - self.p))
