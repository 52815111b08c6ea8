"""Estimates against what is really there: weights, counted operations, kept activations, files."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from spd_lightning.cost.formulas import (
    RECORD_BYTES,
    StageEstimate,
    duration,
    estimate_extract,
    estimate_fine_tune,
    estimate_generate,
    estimate_likelihood,
    forward_flops,
    size,
)
from spd_lightning.cost.machine import Machine, measure_machine
from spd_lightning.cost.shape import model_shape
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.loss import token_loss_sum
from spd_lightning.finetuning.student import save_adapter
from spd_lightning.generation.cache import empty_cache
from spd_lightning.subspace.capture import Batch, capture_gradients
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.sites import kv_sites
from tests.conftest import TINY, tiny_model

WIDE = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4}
KINDS = ("llama", "qwen2", "gpt2")


def model_of(kind: str):  # type: ignore[no-untyped-def]
    """A tiny model whose attention is computed as whole matrices, so that every operation is counted."""
    if kind != "gpt2":
        return tiny_model(kind, **WIDE, attn_implementation="eager")
    config = transformers.GPT2Config(  # type: ignore[call-arg]
        n_embd=64, n_layer=4, n_head=4, vocab_size=258, n_positions=512, attn_implementation="eager"
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def counted(work) -> int:  # type: ignore[no-untyped-def]
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", KINDS)
def test_shape_counts_what_the_model_has(kind: str) -> None:
    model = model_of(kind)
    shape = model_shape(model.config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.num_layers == 4 and shape.vocab_size == 258 and shape.q_dim == 64
    assert shape.kv_dim == next(iter(kv_sites(model).values())).kv_dim
    wrapped = add_lora(model, 3, 3, 0.0, None, 0, "x")
    assert shape.lora_parameters(3) == sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert shape.lora_parameters(None) == shape.parameters


@pytest.mark.parametrize("kind", KINDS)
def test_forward_operations(kind: str) -> None:
    model, ids = model_of(kind), torch.arange(120).view(2, 60)
    with torch.no_grad():
        found = counted(lambda: model(input_ids=ids))
    assert forward_flops(model_shape(model.config), 120, 2 * 60**2, 120) == pytest.approx(found, rel=0.01)


def test_a_mixture_of_experts_computes_with_some_and_reads_all() -> None:
    config = transformers.Qwen3MoeConfig(  # type: ignore[call-arg]
        hidden_size=64,
        intermediate_size=160,
        moe_intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=8,
        num_experts_per_tok=2,
        vocab_size=258,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    shape = model_shape(config)
    with torch.no_grad():
        found = counted(lambda: model(input_ids=torch.arange(120).view(2, 60)))
    assert forward_flops(shape, 120, 2 * 60**2, 120) == pytest.approx(found, rel=0.01)
    idle = 6 * 3 * 64 * 32  # six experts of a layer, three matrices each
    assert shape.layer_weights - shape.layer_products == idle
    assert shape.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_extraction_operations_and_memory(kind: str) -> None:
    model = model_of(kind).requires_grad_(False)
    ids, mask = torch.arange(244).view(4, 61), torch.zeros(4, 61, dtype=torch.bool)
    mask[:, -5:] = True  # the last token is predicted, not read: 60 are run
    batch, sites = Batch(ids, torch.ones_like(mask), mask), kv_sites(model, [1, 3])
    saved: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        found = counted(lambda: capture_gradients(model, batch, sites))
    shape = model_shape(model.config)
    estimate = estimate_extract(shape, [60] * 4, 20, [1, 3], 2, 4, torch.float32, 240)
    moments = 4 * 4 * shape.kv_dim**2 * 240
    assert estimate.flops - moments == pytest.approx(found, rel=0.15)
    rest = shape.parameters * 4 + 8 * 4 * (shape.kv_dim**2 + shape.kv_dim + 1)
    assert 0.4 <= (estimate.memory - rest) / sum(saved.values()) <= 2.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora_r", [4, None])
def test_fine_tuning_operations(kind: str, lora_r: int | None) -> None:
    model = model_of(kind).requires_grad_(lora_r is None)
    shape = model_shape(model.config)
    student = model if lora_r is None else add_lora(model, lora_r, 4, 0.0, None, 0, "x")
    ids = torch.arange(240).view(4, 60)
    batch = {"input_ids": ids, "labels": ids}
    found = counted(lambda: token_loss_sum(student, batch).backward())
    estimate = estimate_fine_tune(shape, [60] * 4, 1, lora_r, 4, torch.float32, torch.float32)
    assert estimate.flops == pytest.approx(found, rel=0.15)
    twice = estimate_fine_tune(shape, [60] * 4, 2, lora_r, 4, torch.float32, torch.float32, processes=2)
    assert twice.flops == estimate.flops and estimate.exchanged == 0
    assert twice.exchanged == 2 * 4 * shape.lora_parameters(lora_r)  # two steps, (G-1)/G of 2 x 4 bytes a weight
    spread = estimate_fine_tune(shape, [60] * 4, 2, lora_r, 4, torch.float32, torch.float32, processes=4, sharded=True)
    assert spread.memory < estimate.memory and spread.exchanged > twice.exchanged
    again = estimate_fine_tune(shape, [60] * 4, 1, lora_r, 4, torch.float32, torch.float32, checkpointing=True)
    assert again.memory < estimate.memory and again.flops > 1.2 * estimate.flops


class Peak(TorchDispatchMode):
    """Bytes of the tensors that operators made and that are alive, and the most of them at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage())._cdata not in self.alive:
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata)
        self.most = max(self.most, sum(self.alive.values()))
        return made


@pytest.mark.parametrize(("kind", "lora_r"), [("Llama", 4), ("Llama", None), ("Granite", 4), ("Gemma2", 4)])
def test_fine_tuning_memory_with_a_large_vocabulary(kind: str, lora_r: int | None) -> None:
    """The logits of all tokens count where they are held: a trained projection, scaled ones (Granite), capped ones."""
    config = getattr(transformers, f"{kind}Config")(
        **{**TINY, **WIDE, "vocab_size": 2**16, "head_dim": 16, "attn_implementation": "eager"}
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(lora_r is None)
    shape = model_shape(config)
    student = model if lora_r is None else add_lora(model, lora_r, 4, 0.0, None, 0, "x")
    ids = torch.arange(800).view(4, 200)
    estimate = estimate_fine_tune(shape, [200] * 4, 1, lora_r, 4, torch.float32, torch.float32)
    with Peak() as peak:
        token_loss_sum(student, {"input_ids": ids, "labels": ids}).backward()
    there = 4 * shape.parameters * (1 if lora_r is not None else 3)  # weights, and two moments of each
    assert 0.8 <= estimate.memory / (peak.most + there) <= 1.5
    all_logits = 4 * 800 * 2**16
    assert (peak.most > 2 * all_logits) == (lora_r is None or kind != "Llama") == (estimate.memory > 2 * all_logits)


def test_decoding_operations_and_cache() -> None:
    model = model_of("llama")
    shape = model_shape(model.config)
    one = estimate_generate(shape, [50] * 3, 1, torch.float32, 3)
    two = estimate_generate(shape, [50] * 3, 2, torch.float32, 3)
    cache = empty_cache(model, 51)
    with torch.no_grad():
        model(input_ids=torch.arange(150).view(3, 50), past_key_values=cache, use_cache=True)
        step = counted(lambda: model(input_ids=torch.ones(3, 1).long(), past_key_values=cache, use_cache=True))
    assert two.flops - one.flops == pytest.approx(step, rel=0.03)
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    assert two.memory - one.memory == pytest.approx(held / 51)
    assert two.exchanged == 0 and two.traffic > one.traffic
    assert estimate_generate(shape, [50] * 6, 1, torch.float32, 3, processes=2).flops == pytest.approx(one.flops)


def test_likelihoods_are_one_forward() -> None:
    shape = model_shape(model_of("llama").config)
    found = estimate_likelihood(shape, 100, 10, 5, torch.float32)
    assert found.flops == forward_flops(shape, 100, 1000, 5) and found.stage == "evaluate"


def test_files_are_as_large_as_estimated(tmp_path: Path) -> None:
    model = model_of("llama").requires_grad_(False)
    shape = model_shape(model.config)
    moments = Moments()
    moments.update({key: torch.randn(40, site.kv_dim) for key, site in kv_sites(model, [1, 3]).items()})
    written = moments.save(tmp_path / "moments").stat().st_size
    written += subspace_from_moments(moments, 4).save(tmp_path / "subspace").stat().st_size
    estimate = estimate_extract(shape, [60], 5, [1, 3], 2, 4, torch.float32, 240)
    assert estimate.disk == pytest.approx(written, abs=4000)  # two headers
    save_adapter(add_lora(model, 8, 8, 0.0, None, 0, "x"), tmp_path / "adapter")
    adapter = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    tuned = estimate_fine_tune(shape, [60], 1, 8, 4, torch.float32, torch.float32)
    assert tuned.disk / 4 == pytest.approx(adapter, rel=0.2)  # and three times that in the checkpoint
    assert estimate_generate(shape, [10], 5, torch.float32, 1).disk == RECORD_BYTES * 15 + 150


def test_exchange_of_stage_1_is_the_moments_whatever_the_tokens() -> None:
    shape = model_shape(model_of("llama").config)
    few, many = (estimate_extract(shape, [60] * n, n, [3], 2, 4, torch.float32, 240, processes=2) for n in (4, 400))
    assert few.exchanged == many.exchanged == 8 * 2 * (shape.kv_dim**2 + shape.kv_dim + 1)


def test_time_is_the_binding_limit_over_the_share() -> None:
    machine = Machine({torch.float32: 100.0}, 10.0, link=5.0, overhead=7)
    row = StageEstimate(stage="generate", what="", flops=1000.0, traffic=20.0, memory=3.0, disk=0.0, exchanged=10.0)
    assert row.timed(machine, torch.float32).seconds == pytest.approx(10 / 0.4 + 2)
    assert row.timed(machine, torch.float32).memory == 10
    assert "about 27 s" in row.timed(machine, torch.float32).line()
    assert size(3 * 2**30) == "3.0 GiB" and duration(7300) == "2.0 h" and duration(0.2) == "1 s"


def test_the_machine_is_measured_in_about_a_second() -> None:
    import time

    start = time.perf_counter()
    machine = measure_machine("cpu", [torch.float32, torch.float32])
    assert time.perf_counter() - start < 10  # a shared machine; alone it takes half a second
    assert list(machine.flops) == [torch.float32] and machine.flops[torch.float32] > 1e8
    assert machine.bandwidth > 1e8 and machine.overhead > 2**24
