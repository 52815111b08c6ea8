"""Layouts of fused projections, against the model's own cache; and the check that finds a wrong one."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
import transformers

from spd_lightning.errors import UserError
from spd_lightning.subspace import layouts
from spd_lightning.subspace.layout_check import check_layout
from spd_lightning.subspace.layouts import LAYOUTS
from spd_lightning.subspace.sites import kv_sites
from tests.conftest import tiny_model
from tests.unit.subspace.test_sites import ARCHITECTURES, make

FUSED = [name for name in ARCHITECTURES if name not in ("llama", "qwen2", "qwen3", "mistral", "smollm3", "olmo2")]
FUSED = [name for name in FUSED if not name.startswith("gemma")]


@pytest.mark.parametrize("architecture", FUSED)
def test_slices_are_the_keys_and_values_of_the_models_own_cache(architecture: str) -> None:
    """Keys at position 0, where a rotation turns nothing."""
    model, kv_dim = make(architecture)
    sites = kv_sites(model)
    outputs = {}
    handles = [
        site.module.register_forward_hook(lambda m, a, output, site=site: outputs.update({site.name: output}))
        for site in sites.values()
    ]
    with torch.no_grad():
        cache = model(input_ids=torch.randint(2, 40, (1, 6)), use_cache=True).past_key_values
    for handle in handles:
        handle.remove()
    for (layer, side), site in sites.items():
        cached = cache.layers[layer].keys if side == "k" else cache.layers[layer].values
        heads = kv_dim // cached.shape[-1]
        own = cached[:, :: cached.shape[1] // heads].transpose(1, 2).flatten(2)  # some repeat a head for each query
        found = site.select(outputs[site.name])
        assert found.shape == (1, 6, kv_dim)
        first = slice(0, 1) if side == "k" else slice(None)
        expected = own[:, first]
        if architecture == "persimmon" and side == "k":  # it holds them after their norm
            norm = model.get_submodule(site.name.rpartition(".")[0]).k_layernorm
            found = norm(found.unflatten(2, (heads, -1))).flatten(2)
        torch.testing.assert_close(found[:, first], expected, rtol=1e-5, atol=1e-6, check_dtype=False)


def test_every_layout_is_tested() -> None:
    tested = {getattr(transformers, ARCHITECTURES[name][0])().model_type for name in FUSED if name != "dbrx"}
    tested |= {"dbrx", "phi4_multimodal", "openai-gpt"}  # as Phi-3 and as GPT-2
    assert set(LAYOUTS) <= tested


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "gpt_oss"])
def test_the_check_passes_and_leaves_the_model_as_it_was(architecture: str) -> None:
    if architecture == "gpt_oss":
        settings = {**ARCHITECTURES["llama"][1], "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
        model = transformers.AutoModelForCausalLM.from_config(transformers.GptOssConfig(**settings))
    else:
        model, _ = make(architecture)
    before = model.config._attn_implementation
    hooks = sum(len(m._forward_hooks) for m in model.modules())
    model.train()
    assert check_layout(model, kv_sites(model))
    assert model.config._attn_implementation == before and all(m.training for m in model.modules())
    assert sum(len(m._forward_hooks) for m in model.modules()) == hooks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("architecture", "wrong", "message"),
    [
        ("codegen", layouts._phi3, "taken for keys, but act as"),  # fits by its shape: one head of four is right
        ("gpt_neox", layouts._thirds, "taken for keys, but act as values"),
        ("gpt2", layouts._by_head, "taken for keys, but act as queries"),
        ("phi3", lambda config: (*layouts._phi3(config)[1::-1], 64), "taken for keys, but act as values"),
        ("mpt", lambda config: (torch.arange(32), torch.arange(64, 96), 96), "taken for keys, but act as queries"),
        ("bloom", lambda config: (layouts._by_head(config)[0],) * 2 + (96,), "taken for values, but act as keys"),
    ],
)
def test_a_wrong_layout_is_refused(architecture, wrong, message, dtype, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    model, _ = make(architecture)
    name = LAYOUTS[model.config.model_type][0]
    monkeypatch.setitem(LAYOUTS, model.config.model_type, (name, wrong))
    with pytest.raises(UserError, match=message):
        check_layout(model.to(dtype), kv_sites(model))


def test_one_wrong_head_among_many_is_found() -> None:
    model, _ = make("gpt_neox")
    sites = kv_sites(model)
    index = sites[0, "v"].index.clone()
    index[-8:] = torch.arange(72, 80)  # queries of the last head
    sites[0, "v"] = dataclasses.replace(sites[0, "v"], index=index)
    with pytest.raises(UserError, match=r"Output features 72 to 79 of .* are taken for values, but act as queries"):
        check_layout(model, sites)


def test_a_layer_without_weights_is_said_to_be_unchecked(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(lambda m, a, output: (output[0], None))
    with caplog.at_level(logging.WARNING, "spd_lightning"):
        assert not check_layout(model, kv_sites(model))
    assert "stands unchecked: LlamaAttention gives no weights" in caplog.text
