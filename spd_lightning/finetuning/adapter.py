"""Stage 3, results: a LoRA adapter on a base model, saved so that plain PEFT opens it, and merged."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from spd_lightning.adapter_beside import (
    Beside,
    is_adapter,
    load_adapter,
    put_beside,
    read_record,
    write_record,
)
from spd_lightning.errors import UserError
from spd_lightning.finetuning.sharding import is_sharded, trained_weights
from spd_lightning.model import (
    EMBEDDED_HUB_ID,
    EMBEDDED_MODEL,
    decoder_layers,
    load_model,
    model_fingerprint,
    save_tokenizer,
    spread,
)
from spd_lightning.seeds import seed_of
from spd_lightning.source import split_revision

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
    "attention.dense",
    "attention.out_proj",
    "self_attention.dense",
    "self_attn.out_proj",
    "self_attn.dense",
)


def lora_targets(model: nn.Module, target_modules: list[str] | None = None) -> list[str]:
    """The names of the projections that get an adapter, sorted.

    Args:
        model: The base model.
        target_modules: Ends of module paths, as in PEFT; None takes the attention's query, key, value and output
            projections (or the fused ones) that the model has.

    Raises:
        UserError: If a name matches no linear layer; the message lists what exists.
    """
    paths = [name for name, module in decoder_layers(model).named_modules() if _is_linear(module)]
    names = list(ATTENTION_PROJECTIONS) if target_modules is None else list(target_modules)
    found = sorted({n for n in names if any(p.endswith(f".{n}") or p == n for p in paths)})
    missing = [] if target_modules is None else [n for n in names if n not in found]
    if missing or not found:
        exist = sorted({re.sub(r"^\d+\.", "", path) for path in paths})
        wrong = ", ".join(missing) or "its attention projections"
        raise UserError(
            f"target_modules: {wrong} matches no linear layer of {type(model).__name__}. Found: {', '.join(exist)}. "
            "Set --model.target_modules to some of these."
        )
    return found


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Conv1D))


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
    if lora_r < 1:
        raise UserError(
            f"lora_r={lora_r} is not a rank. Set --model.lora_r to 1 or more, or null to train all weights."
        )
    if not 0 <= lora_dropout < 1:
        raise UserError(f"lora_dropout={lora_dropout} is not a probability below 1. Set --model.lora_dropout.")
    config = LoraConfig(
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=lora_targets(model, target_modules),
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("lora weights", seed))
        wrapped = get_peft_model(model, config)
    for module in wrapped.modules():
        if isinstance(module, LoraLayer) and lora_dropout > 0:
            module.lora_dropout["default"] = AdapterDropout(lora_dropout)
    base, revision = split_revision(name)
    wrapped.peft_config["default"].base_model_name_or_path = _loadable_name(base)
    wrapped.peft_config["default"].revision = revision
    return wrapped


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


def _loadable_name(name: str) -> str:
    """A base name that other programs can load too."""
    return EMBEDDED_HUB_ID if name == EMBEDDED_MODEL else name


def save_student(
    model: nn.Module, folder: str | Path, model_name_or_path: str, weights: dict[str, Tensor] | None = None
) -> Path:
    """Write a trained model: a PEFT adapter folder, or an ordinary checkpoint where all weights were trained.

    Args:
        model: The model.
        folder: Where to.
        model_name_or_path: Base model, for its tokenizer.
        weights: Its trained weights if the processes hold parts of them (`sharding.trained_weights`); else None.
    """
    if isinstance(model, PeftModel):
        return save_adapter(model, folder, weights)
    model.save_pretrained(folder, state_dict=weights)  # type: ignore[operator]
    save_tokenizer(model_name_or_path, folder)
    return Path(folder)


def save_adapter(model: PeftModel, folder: str | Path, weights: dict[str, Tensor] | None = None) -> Path:
    """Write an adapter as plain PEFT reads it; equal adapters give equal bytes (PEFT keeps the targets as a set).

    Args:
        model: The adapted model.
        folder: Where to.
        weights: See `save_student`.
    """
    config: Any = model.peft_config["default"]
    targets, inference = config.target_modules, config.inference_mode
    config.target_modules = sorted(targets)
    try:
        model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights)
    finally:
        config.target_modules, config.inference_mode = targets, inference
    (Path(folder) / "README.md").unlink(missing_ok=True)  # a template with empty fields
    return Path(folder)


def student_copy(
    model_name_or_path: str,
    student: str | Path | PeftModel,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    device_map: str | None = None,
) -> PreTrainedModel:
    """A student to score or to sample from: its base with the adapter beside the weights (`adapter_beside`).

    Args:
        model_name_or_path: The base.
        student: A PEFT folder, a folder with a whole checkpoint, or a live PEFT model (left alone).
        dtype: Of the result; a whole checkpoint is cast to it.
        device: Of the result.
        device_map: ``auto`` spreads the result over all devices of this process instead.

    Raises:
        UserError: If there is neither, or the adapter cannot stand beside its base.

    Ranks:
        Collective where a live model is sharded; every process gets a copy.
    """
    if isinstance(student, PeftModel):
        with tempfile.TemporaryDirectory() as folder:
            weights = trained_weights(student) if is_sharded(student) else None
            return student_copy(model_name_or_path, save_adapter(student, folder, weights), dtype, device, device_map)
    if not is_adapter(student) and (Path(student) / "config.json").is_file():
        return load_model(str(student), dtype, device, device_map)
    model = put_beside(load_model(model_name_or_path, dtype), student)
    return model.to(device) if device_map is None else spread(model, device_map)  # type: ignore[arg-type]


def merged_copy(
    model_name_or_path: str, adapter: str | Path | PeftModel, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A plain transformers model with the adapter in its weights, for other tools; `student_copy` is what is scored.

    Args:
        model_name_or_path: The base.
        adapter: A PEFT folder, a folder with a whole checkpoint (taken as it is), or a live PEFT model (left alone).
        dtype: Of the result: merged in float32, then cast; small updates are lost by that (`share_kept`).
    """
    if isinstance(adapter, PeftModel):
        with tempfile.TemporaryDirectory() as folder:
            weights = trained_weights(adapter) if is_sharded(adapter) else None
            return merged_copy(model_name_or_path, save_adapter(adapter, folder, weights), dtype)
    if not is_adapter(adapter) and (Path(adapter) / "config.json").is_file():
        return load_model(str(adapter), dtype, merged=True)
    wrapped = load_adapter(load_model(model_name_or_path, torch.float32, merged=True), adapter)
    merged = wrapped.merge_and_unload(safe_merge=True)
    return merged.requires_grad_(False).to(dtype).eval()


def whole_copy(
    model_name_or_path: str, live: nn.Module, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """A plain copy of a model all of whose weights are trained while they are spread over processes.

    Args:
        model_name_or_path: The base it started from.
        live: The sharded model; left alone.
        dtype: Of the copy.
        device: Of the copy.

    Ranks:
        Collective; every process gets a copy.
    """
    model: Any = load_model(model_name_or_path, torch.float32, merged=True)
    model.load_state_dict(trained_weights(live), strict=False)  # tied weights are there once
    return model.to(device=device, dtype=dtype)


def write_merged(model_name_or_path: str, adapter: str | Path, folder: Path) -> Path:
    """Write a student as an ordinary float32 checkpoint with its tokenizer; the folder appears when it is whole.

    The base and the adapters it is made of stand beside it (`adapter_beside.RECORD`), and `load_model` loads those: the
    merged weights are for other tools and are never cast. Where all weights were trained, `load_model` keeps float32.
    """
    partial = folder.with_name(f".{folder.name}-new")
    shutil.rmtree(partial, ignore_errors=True)
    merged_copy(model_name_or_path, adapter).save_pretrained(partial)
    save_tokenizer(model_name_or_path, partial)
    made_of = read_record(model_name_or_path)
    if made_of is None or not made_of.adapters:
        made_of = Beside(model_name_or_path, model_fingerprint(model_name_or_path), ())
    added = (Path(adapter),) if is_adapter(adapter) else ()
    write_record(partial, replace(made_of, adapters=made_of.adapters + added if added else ()))
    shutil.rmtree(folder, ignore_errors=True)  # one without a record, of an earlier version
    partial.rename(folder)
    return folder
