"""Stage 3, exports: what is left of a student's update once its merged weights are cast to a dtype."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spd_lightning.model.adapter_beside import is_adapter, load_adapter, lora_parts, read_record
from spd_lightning.model.anatomy import is_conv1d
from spd_lightning.model.load import load_model

LOW = 0.99  # below this share an export warns


def share_kept(model_name_or_path: str, student: str | Path, dtype: torch.dtype) -> float:
    """What share of a student's update is left when its merged weights are cast to ``dtype``.

    The update dW of every trained weight against what the cast makes of it, q(W + dW) - q(W), in one least-squares
    slope over all of them: 1 if all of it is there, 0 if nothing is.

    Args:
        model_name_or_path: The base; if that is a student of earlier rounds, their adapters count as well.
        student: A PEFT folder (dW is s B A), or a folder with a whole checkpoint (dW is its difference from the base).
        dtype: Of the merged weights.
    """
    updates = _lora_updates if is_adapter(student) else _whole_updates
    kept = size = 0.0
    for weight, update in updates(model_name_or_path, student):
        merged = (weight + update.to(weight.dtype)).to(dtype)
        left = merged.double() - weight.to(dtype).double()
        kept += float((left * update).sum())
        size += float((update * update).sum())
    return kept / size if size else 1.0


def _lora_updates(name: str, student: str | Path) -> Iterator[tuple[Tensor, Tensor]]:
    made_of = read_record(name)
    earlier = made_of.adapters if made_of is not None else ()
    base = load_model(made_of.base if made_of is not None and earlier else name, torch.float32, merged=True)
    factors: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for adapter in (*earlier, student):
        wrapped = load_adapter(base, adapter)
        for path, part in lora_parts(wrapped, adapter).items():
            factors.setdefault(path, []).append(part)
        base = wrapped.unload()
    for path, parts in factors.items():
        layer: Any = base.get_submodule(path)
        update = sum(outer.double() @ inner.double() for inner, outer in parts)
        yield layer.weight.T if is_conv1d(layer) else layer.weight, update  # type: ignore[misc]


def _whole_updates(name: str, student: str | Path) -> Iterator[tuple[Tensor, Tensor]]:
    weights = dict(load_model(name, torch.float32, merged=True).named_parameters())
    for key, trained in load_model(str(student), torch.float32, merged=True).named_parameters():
        yield weights[key], trained.double() - weights[key].double()
