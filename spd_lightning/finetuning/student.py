"""Stage 3, its result: a student written so that plain PEFT opens it, copied to be scored, or merged."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from spd_lightning.artifacts.files import whole_folder
from spd_lightning.finetuning.sharding import is_sharded, trained_weights
from spd_lightning.model.adapter_beside import Beside, is_adapter, load_adapter, read_record, write_record
from spd_lightning.model.anatomy import cast_weights
from spd_lightning.model.load import load_model, load_student, save_tokenizer
from spd_lightning.model.source import model_fingerprint
from spd_lightning.model.student_base import check_base_of
from spd_lightning.model.written import list_files


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
    live: PeftModel,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    device_map: Literal["auto"] | None = None,
) -> PreTrainedModel:
    """A copy of a student amid its training, to score or to sample from, as `load_student` loads a saved one.

    Args:
        model_name_or_path: The base.
        live: The adapted model; left alone.
        dtype: Of the copy.
        device: Of the copy.
        device_map: ``auto`` spreads the copy over all devices of this process instead.

    Ranks:
        Collective where the live model is sharded; every process gets a copy.
    """
    with tempfile.TemporaryDirectory() as folder:
        weights = trained_weights(live) if is_sharded(live) else None
        return load_student(model_name_or_path, save_adapter(live, folder, weights), dtype, device, device_map)


def merged_copy(
    model_name_or_path: str, adapter: str | Path | PeftModel, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A plain transformers model with the adapter in its weights, for other tools; `load_student` is what is scored.

    Args:
        model_name_or_path: The base.
        adapter: A PEFT folder, a folder with a whole checkpoint (taken as it is), or a live PEFT model (left alone).
        dtype: Of the result: merged in float32, then cast; small updates are lost by that (`share_kept`).

    Raises:
        UserError: If it is a student of another base.
    """
    if isinstance(adapter, PeftModel):
        with tempfile.TemporaryDirectory() as folder:
            weights = trained_weights(adapter) if is_sharded(adapter) else None
            return merged_copy(model_name_or_path, save_adapter(adapter, folder, weights), dtype)
    check_base_of(adapter, model_name_or_path)
    if not is_adapter(adapter) and (Path(adapter) / "config.json").is_file():
        return load_model(str(adapter), dtype, merged=True)
    wrapped = load_adapter(load_model(model_name_or_path, torch.float32, merged=True), adapter)
    merged = wrapped.merge_and_unload(safe_merge=True)
    cast_weights(merged, dtype)
    return merged.requires_grad_(False).eval()


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
    with whole_folder(folder, replace=True) as aside:  # what stands there has no record, of an earlier version
        merged_copy(model_name_or_path, adapter).save_pretrained(aside)
        save_tokenizer(model_name_or_path, aside)
        made_of = read_record(model_name_or_path)
        if made_of is None or not made_of.adapters:
            made_of = Beside(model_name_or_path, model_fingerprint(model_name_or_path), ())
        added = (Path(adapter),) if is_adapter(adapter) else ()
        write_record(aside, replace(made_of, adapters=made_of.adapters + added if added else ()))
        list_files(aside)
    return folder
