"""Stage 4: the models that are scored, as sources: how each is loaded, and what its scores depend on in the store.

``base`` is the frozen model, ``projected`` the same under the projection, untrained, and ``student`` what was trained:
an adapter folder, a checkpoint folder, or the live model of a training. All three are loaded in one dtype.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.artifacts.files import file_sha256, weights_sha256
from spd_lightning.errors import UserError
from spd_lightning.finetuning.sharding import is_sharded
from spd_lightning.finetuning.share_kept import share_kept
from spd_lightning.finetuning.student import student_copy, whole_copy
from spd_lightning.model.adapter_beside import all_weights_trained
from spd_lightning.model.anatomy import dtype_name
from spd_lightning.model.load import Dtype, load_model, load_student, load_tokenizer, resolve_dtype
from spd_lightning.model.source import model_fingerprint
from spd_lightning.subspace.projection import fold_projection
from spd_lightning.subspace.subspace import CapabilitySubspace

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class Base:
    """The model that all others are measured against, and how each of them is loaded.

    Attributes:
        name: Hub id or folder.
        dtype: Of every model that is scored.
        device: Where they are scored.
        device_map: ``auto`` spreads them over all devices of the one process.
    """

    name: str
    dtype: torch.dtype
    device: torch.device
    device_map: Literal["auto"] | None = None

    def load(self) -> PreTrainedModel:
        """The frozen model."""
        return load_model(self.name, self.dtype, self.device, self.device_map)

    def key(self, **more: str) -> dict[str, Any]:
        """What scores depend on beside the benchmark."""
        return {"model": model_fingerprint(self.name), "dtype": dtype_name(self.dtype), **more}


@dataclass(frozen=True)
class Source:
    """A model to score.

    Attributes:
        load: Gives model and tokenizer; enters on the stack what has to last while it is scored, and adds facts that
            are kept with the scores.
        key: What its scores depend on beside the benchmark; None for a model that is never seen again.
    """

    load: Callable[[ExitStack, dict[str, Any]], Loaded]
    key: Callable[[], dict[str, Any]] | None


def base_source(base: Base) -> Source:
    """The frozen model."""
    return Source(lambda stack, notes: (base.load(), load_tokenizer(base.name)), base.key)


def projected_source(base: Base, subspace: str | Path | CapabilitySubspace) -> Source:
    """The frozen model under the projection.

    Args:
        base: The frozen model.
        subspace: A file, or a subspace that has none and whose scores are not kept.
    """
    if isinstance(subspace, CapabilitySubspace):
        projected, key = subspace, None
    else:
        file = Path(subspace)
        projected = CapabilitySubspace.load(subspace)
        key = lambda: base.key(subspace=file_sha256(file))  # noqa: E731

    def load(stack: ExitStack, notes: dict[str, Any]) -> Loaded:
        model = base.load()
        stack.enter_context(fold_projection(model, projected))
        return model, load_tokenizer(base.name)

    return Source(load, key)


def student_source(base: Base, adapter: str | Path | None, live: Any = None) -> Source:
    """The trained model: the adapter folder if one is given, else the live model of a training.

    An adapter stands beside its base in one product (`adapter_beside`), so that bf16 swallows nothing of it. Where all
    weights were trained there is no beside: see `base_of`.

    Args:
        base: The model that was trained.
        adapter: PEFT folder or checkpoint folder.
        live: What a module trains; its scores are not kept.
    """

    def load(stack: ExitStack, notes: dict[str, Any]) -> Loaded:
        if adapter is not None:
            model = load_student(base.name, adapter, base.dtype, base.device, base.device_map)
        elif isinstance(live, PeftModel):
            model = student_copy(base.name, live, base.dtype, base.device, base.device_map)
        elif live is not None and is_sharded(live):
            model = whole_copy(base.name, live, base.dtype, base.device)
        elif live is not None:
            model = copy.deepcopy(live).to(device=base.device, dtype=base.dtype).eval()
        else:
            raise UserError(
                "There is no trained model to score. Set adapter (--evaluation.adapter) to an adapter folder."
            )
        if adapter is not None and model.dtype != torch.float32 and all_weights_trained(adapter):
            notes["update_kept"] = share_kept(base.name, adapter, model.dtype)
        return model, load_tokenizer(base.name)

    return Source(load, None if adapter is None else lambda: base.key(adapter=weights_sha256(Path(adapter))))


def base_of(
    name: str | None,
    wanted: Dtype,
    device: torch.device,
    device_map: Literal["auto"] | None,
    *,
    adapter: str | Path | None,
    hparams: Mapping[str, Any] | None,
    say: Callable[[str], None],
) -> Base:
    """The base of what is scored, and the one dtype of all: float32 under ``auto`` where all weights were trained.

    There the student has no adapter, and the cast to bf16 would drop what its weights learned.

    Args:
        name: Hub id or folder; None takes that of the module.
        wanted: See `resolve_dtype`.
        device: Where models are scored.
        device_map: See `Base`.
        adapter: Folder of the student, if it is in one.
        hparams: Of the module that trains; None without one.
        say: Told why float32 was taken.

    Raises:
        UserError: If no base is known.
    """
    if name is None and hparams is not None:
        name = hparams.get("model_name_or_path")
    if name is None:
        raise UserError(
            "The base model is not known. Set model_name_or_path (--subspace.model_name_or_path), or give a module "
            "that has that "
            "hyperparameter."
        )
    dtype = resolve_dtype(wanted, device)
    if adapter is not None:
        whole = all_weights_trained(adapter)
    else:
        whole = hparams is not None and hparams.get("lora_r", 0) is None
    if wanted == "auto" and dtype != torch.float32 and whole:
        say("[evaluate] all weights were trained: every model is scored in float32 (dtype: auto)")
        dtype = torch.float32
    return Base(name, dtype, device, device_map)
