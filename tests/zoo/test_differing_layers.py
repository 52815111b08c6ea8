"""Models whose layers differ: what is chosen, said, counted and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from spd_lightning.cost.shape import model_shape
from spd_lightning.errors import UserError
from spd_lightning.finetuning.cross_entropy import logits_or_hidden
from spd_lightning.finetuning.lora import adapted_blocks, add_lora, lora_targets
from spd_lightning.finetuning.loss import check_packing
from spd_lightning.generation.cache import empty_cache, shares_beginning
from spd_lightning.model.anatomy import cache_layers, context_of, resolve_layers, text_decoder
from spd_lightning.subspace.calibration import target_sites, where
from spd_lightning.subspace.capture import Batch, capture_gradients, for_moments
from spd_lightning.subspace.sites import kv_sites
from tests.zoo.families import FAMILIES, config_of, random_model, save


def sites_of(family: str, folder: Path, sides: str = "kv") -> list[tuple[int, str]]:
    return list(target_sites(save(family, folder), "middle_last", sides, "half"))  # type: ignore[arg-type]


def test_middle_and_last_are_counted_among_the_layers_with_keys_and_values() -> None:
    assert resolve_layers("middle_last", 12) == [6, 11]
    assert resolve_layers("middle_last", 12, [3, 7, 11]) == [7, 11]
    assert resolve_layers("middle_last", 12, range(8)) == [4, 7]  # the last four borrow
    assert resolve_layers("all", 12, [3, 7, 11]) == [3, 7, 11]
    assert resolve_layers([-1], 12, [3, 7]) == [11]


def test_a_layer_without_them_is_refused_and_those_with_them_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"under layer 2 of Qwen3_5.*Layers that have them: 1, 3\..*--subspace.layers"):
        target_sites(save("qwen3_5", tmp_path), [2], "kv", "half")


def test_linear_attention_has_no_site_whatever_its_projections_are_called(tmp_path: Path) -> None:
    """Those of OLMo Hybrid are called q_proj, k_proj and v_proj, as attention's are."""
    assert sites_of("olmo_hybrid", tmp_path) == [(3, "k"), (3, "v")]
    assert list(kv_sites(random_model("olmo_hybrid"))) == [(i, side) for i in (1, 3) for side in ("k", "v")]


def test_a_module_around_a_projection_is_none() -> None:
    model: Any = random_model("llama")
    attention = model.model.layers[1].self_attn
    attention.k_proj = nn.Sequential(attention.k_proj)  # as Moshi's
    assert (1, "k") not in kv_sites(model)
    with pytest.raises(UserError, match=r"No K/V projection known under layer 1 of Llama.*self_attn\.k_proj\.0"):
        kv_sites(model, [1])


@pytest.mark.parametrize("passed_over", [True, False])
def test_a_site_that_has_no_part_in_the_loss_is_told(passed_over: bool) -> None:
    """As layers for pictures are passed over without one, and HRM runs its first cycles without gradients."""
    model: Any = random_model("llama")
    block = model.model.layers[2]
    block.forward = (lambda hidden, *_, **__: hidden) if passed_over else torch.no_grad()(block.forward)
    ids = torch.arange(3, 12)[None]
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(9)[None] > 6)
    with pytest.raises(UserError, match=r"LlamaForCausalLM has no gradient at every site.*--subspace\.layers"):
        capture_gradients(model, batch, kv_sites(model, [2]))


def test_the_context_of_a_model_is_found_under_each_name() -> None:
    assert (context_of(config_of("llama")), context_of(config_of("gpt2"))) == (4096, 2048)
    assert context_of(transformers.MptConfig(max_seq_len=32)) == 32  # its ALiBi biases are made for so many
    assert context_of(transformers.BloomConfig()) is None


def test_chunked_attention_is_a_window_that_packing_would_lose() -> None:
    model = random_model("llama4")
    model.config.get_text_config().attention_chunk_size = 16
    check_packing(model, 16)
    with pytest.raises(UserError, match="packing=True would lose the sliding window of 16 tokens"):
        check_packing(model, 17)


def test_one_projection_for_both_is_one_site(tmp_path: Path) -> None:
    assert sites_of("gemma4_keqv", tmp_path) == [(2, "k"), (2, "v"), (3, "k")]
    model = random_model("gemma4_keqv")
    sites = kv_sites(model, [2, 3])
    assert where(model, sites) == "keys and values of layers 2, 3 of 4; one projection makes both in layer 3"
    for side in ("k", "v"):
        with pytest.raises(UserError, match=rf"sides='{side}' cannot be projected alone in layer 3.*sides to kv"):
            sites_of("gemma4_keqv", tmp_path, side)


def test_layers_with_the_weights_of_another_are_one_site_with_the_rows_of_all() -> None:
    model = random_model("zamba2")
    sites = kv_sites(model)
    assert list(sites) == [(1, "k"), (1, "v")] and len(sites[1, "k"].modules) == 2
    assert "later layers have the weights of layer 1" in where(model, sites)
    ids = torch.arange(3, 12)[None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    batch = Batch(ids, mask, torch.arange(9)[None] > 6)
    rows, counts, (half, half_counts) = for_moments(capture_gradients(model, batch, sites), batch, 0)
    assert rows[1, "k"].shape[0] == 2 * 8 and counts == {key: 18 for key in sites} == half_counts
    assert torch.equal(half[1, "k"], rows[1, "k"])
    for name in ("q_proj", "k_proj"):
        with pytest.raises(UserError, match=f"target_modules: {name} share their weights between layers"):
            lora_targets(model, [name])


@pytest.mark.parametrize(("family", "said"), [("qwen3_5", "4 of 4 blocks"), ("nemotron_h", "3 of 4 blocks (not 2,")])
def test_the_log_says_how_many_blocks_are_adapted(family: str, said: str) -> None:
    assert said in adapted_blocks(add_lora(random_model(family), 2, 2, 0.0, None, 0, family))


@pytest.mark.parametrize("family", ["qwen3_5", "lfm2", "falcon_h1"])
def test_what_recurrent_layers_carry_is_not_shared_between_texts(family: str) -> None:
    model = random_model(family)
    assert not shares_beginning(model)
    with pytest.raises(UserError, match=r"packing=True would leak the texts of a row into each other: \d layers"):
        check_packing(model, 10)
    assert shares_beginning(random_model("llama"))


@pytest.mark.parametrize("family", ["mamba", "recurrent_gemma"])
def test_a_cache_that_rows_cannot_leave_is_refused(family: str) -> None:
    with pytest.raises(UserError, match=rf"Model type '{family}' cannot generate here: "):
        empty_cache(random_model(family), 8)


def test_positions_that_know_no_padding_are_refused() -> None:
    """TrOCR counts them from the cache: a padded row's logits were off by half of the largest."""
    with pytest.raises(UserError, match=r"Model type 'trocr' cannot generate here: .*positions know no padding"):
        cache_layers(transformers.TrOCRConfig())


def test_a_cache_of_a_kind_that_is_not_known_is_refused() -> None:
    config = config_of("llama")
    config.layer_types = ["full_attention", "full_attention", "full_attention", "minimax_m3_sparse"]
    with pytest.raises(UserError, match="cannot generate here"):
        empty_cache(transformers.LlamaForCausalLM(config), 8)


def test_the_estimate_counts_what_each_layer_has() -> None:
    for family, q_dim, kv_width, layers in (
        ("llama", 64, 256, (0, 1, 2, 3)),
        ("qwen3_5", 32, 128, (1, 3)),  # two layers of four
        ("gemma4_keqv", 96, 384, (0, 1, 2, 3)),  # heads of 16 and 32
        ("gemma4_shared", 96, 192, (0, 1)),  # four layers attend, two of them to what others keep
        ("zamba2", 64, 512, (1,)),  # its weights run twice, and both keep
    ):
        shape = model_shape(config_of(family))
        assert (shape.q_dim, shape.kv_width, shape.kv_layers) == (q_dim, kv_width, layers), family
        cache = empty_cache(model := random_model(family), 5)
        model(input_ids=torch.arange(3, 8)[None], past_key_values=cache, use_cache=True)
        held = sum(layer.keys.numel() + layer.values.numel() for _, layer in cache.attention)
        assert held == 5 * kv_width, family


@pytest.mark.parametrize("family", ["llama", "gpt2", "granite", "cohere", "gemma2", "nemotron_h", "qwen3_vl", "jetmoe"])
def test_what_becomes_of_logits_is_told_without_weights(family: str) -> None:
    inputs = {"input_ids": torch.arange(3, 8)[None], "use_cache": False}
    told = model_shape(config_of(family)).changes_logits
    assert told == (logits_or_hidden(random_model(family).bfloat16(), inputs)[1] is None)
    assert told == (family in ("granite", "cohere", "gemma2", "nemotron_h"))


def test_adapters_stay_in_the_text_part_of_a_multimodal_model() -> None:
    model = random_model("gemma3_vl")
    path, decoder = text_decoder(model)
    assert decoder is model.get_submodule(path) and path.endswith("language_model")
    wrapped = add_lora(model, 2, 2, 0.0, None, 0, "x")
    adapted = [name for name, _ in wrapped.named_modules() if name.endswith("lora_A")]
    assert adapted and all(f"{path}." in name for name in adapted)
    assert text_decoder(wrapped)[1] is decoder


def test_every_family_of_the_list_has_a_class() -> None:
    assert all(hasattr(transformers, entry["config"]) for entry in FAMILIES.values())
