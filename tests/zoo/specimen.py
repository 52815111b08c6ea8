"""A family's checkpoint in a folder, with what is made of it once; and the measure: the uncached definition."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.student import save_adapter
from spd_lightning.model.load import load_model
from spd_lightning.model.source import model_fingerprint
from spd_lightning.subspace.calibration import target_sites
from spd_lightning.subspace.capture import capture_gradients, collate
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.correctness import EncodedExample
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.sites import KVSite, SiteKey, kv_sites, weights_digest
from spd_lightning.subspace.subspace import CapabilitySubspace
from tests.zoo.families import VOCABULARY, save, tokenizer

CLOSE = 1e-3  # of the largest logit: float32 rounding over a few layers is 1e-5, a leak of padding 1e-2


def rows_of(seed: int, lengths: tuple[int, ...], shared: int = 0) -> list[tuple[int, ...]]:
    """Random texts that begin alike in ``shared`` tokens and have so many more each."""
    draw = torch.Generator().manual_seed(seed)
    first = torch.randint(3, VOCABULARY, (shared,), generator=draw).tolist()
    return [(*first, *torch.randint(3, VOCABULARY, (n,), generator=draw).tolist()) for n in lengths]


def logits_alone(model: PreTrainedModel, ids: tuple[int, ...]) -> Tensor:
    """The definition: logits ``[s, v]`` of one row."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


@dataclass
class Specimen:
    """A family's checkpoint in a folder, with what the columns share."""

    family: str
    folder: Path
    seen: dict[str, Any] = field(default_factory=dict)  # for the table

    @cached_property
    def path(self) -> str:
        return save(self.family, self.folder / "model")

    @cached_property
    def model(self) -> PreTrainedModel:
        return load_model(self.path, torch.float32)

    @cached_property
    def sites(self) -> dict[SiteKey, KVSite]:
        wanted = target_sites(self.path, "middle_last", "kv", "half")
        found = kv_sites(self.model, sorted({layer for layer, _ in wanted}))
        return {key: site for key, site in found.items() if key in wanted}

    @cached_property
    def subspace(self) -> CapabilitySubspace:
        return self.subspace_of(0)

    def subspace_of(self, seed: int) -> CapabilitySubspace:
        """Of rank 3, from random texts."""
        rows = rows_of(seed, (9, 14, 6, 20, 17))
        examples = [EncodedExample(str(i), r, tuple(t > len(r) - 4 for t in range(len(r)))) for i, r in enumerate(rows)]
        batch = collate(examples)
        moments = Moments()
        moments.update(capture_gradients(self.model, batch, self.sites), count=batch.num_tokens)
        moments.check("float32")
        moments.metadata = {"fingerprint": model_fingerprint(self.path), "weights_digest": weights_digest(self.sites)}
        return subspace_from_moments(moments, rank=3)

    @cached_property
    def adapter(self) -> Path:
        """A default LoRA adapter with an update that can be seen."""
        return save_adapter(self.adapted(load_model(self.path, torch.float32)), self.folder / "adapter")

    def adapted(self, model: PreTrainedModel) -> PeftModel:
        wrapped = add_lora(model, 4, 8, 0.0, None, 0, self.path)
        draw = torch.Generator().manual_seed(1)
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.data = 0.1 * torch.randn(weight.shape, generator=draw, dtype=torch.float32).to(weight)
        return wrapped.eval()


def alike(found: float, expected: float, bound: float, what: str) -> None:
    assert abs(found - expected) <= bound, f"{what}: {found:.6g} instead of {expected:.6g}"


def same(found: PreTrainedModel, expected: Any, one: Specimen, what: str) -> None:
    for ids in rows_of(6, (11, 3)):
        a, b = logits_alone(found, ids), logits_alone(expected, ids)
        off = float((a - b).abs().max() / b.abs().max())
        assert off < CLOSE, f"{what}: logits are off by {off:.1e}"


def in_float64(model: Any) -> Any:
    """The model in float64, where the grouped products of experts are not implemented: they go one by one."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    with contextlib.suppress(ValueError):
        base.set_experts_implementation("eager")
    return model.double()


def greedy(model: Any, prompt: str) -> list[str]:
    """Up to four tokens, each the largest logit of a forward without a cache."""
    ids = list(tokenizer()(prompt).input_ids)
    start = len(ids)
    while len(ids) < start + 4 and ids[-1] != tokenizer().eos_token_id:
        ids.append(int(logits_alone(model, tuple(ids))[-1].argmax()))
    return [str(tokenizer().decode(ids[start:], skip_special_tokens=True))]
