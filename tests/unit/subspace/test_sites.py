"""K/V sites of every architecture, against plain perturbation: the captured gradient is that of the slice."""

import pytest
import torch
import transformers
from torch import nn

from spd_lightning.errors import UserError
from spd_lightning.subspace.capture import Batch, capture_gradients, collate
from spd_lightning.subspace.correctness import EncodedExample
from spd_lightning.subspace.sites import kv_sites, split_sides, weights_digest
from tests.conftest import TINY, tiny_model

GENERIC = {
    **TINY,
    "vocab_size": 40,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "max_position_embeddings": 32,
}
FUSED = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 1}
HIDDEN = {**FUSED, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}

GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
DBRX = {
    **FUSED,
    **{"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 32},
    "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
    "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 2, "moe_top_k": 2},
}
JETMOE = {
    **{"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_key_value_heads": 2, "kv_channels": 8},
    **{"num_local_experts": 2, "num_experts_per_tok": 2, "max_position_embeddings": 32},
}

# architecture -> (config class, settings, kv_dim)
ARCHITECTURES = {
    "llama": ("LlamaConfig", GENERIC, 16),
    "qwen2": ("Qwen2Config", GENERIC, 16),
    "qwen3": ("Qwen3Config", {**GENERIC, "head_dim": 8}, 16),
    "mistral": ("MistralConfig", GENERIC, 16),
    "gemma2": ("Gemma2Config", {**GENERIC, "head_dim": 8, "final_logit_softcapping": 0.5}, 16),
    "gemma3": ("Gemma3TextConfig", {**GENERIC, "head_dim": 8}, 16),
    "smollm3": ("SmolLM3Config", GENERIC, 16),
    "olmo2": ("Olmo2Config", GENERIC, 16),
    "phi3": ("Phi3Config", GENERIC, 16),
    "phi4_mini": ("Phi3Config", {**GENERIC, "head_dim": 16}, 32),
    "gpt2": ("GPT2Config", {**FUSED, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}, 32),
    "gpt_neox": ("GPTNeoXConfig", {**HIDDEN, "intermediate_size": 64, "max_position_embeddings": 32}, 32),
    "bloom": ("BloomConfig", {**FUSED, "hidden_size": 32, "n_layer": 2, "n_head": 4}, 32),
    "falcon_multi_query": ("FalconConfig", {**HIDDEN, "multi_query": True}, 8),
    "falcon_multi_head": ("FalconConfig", {**HIDDEN, "multi_query": False}, 32),
    "falcon_new": ("FalconConfig", {**HIDDEN, "new_decoder_architecture": True, "num_kv_heads": 2}, 16),
    "codegen": ("CodeGenConfig", {**FUSED, **GPT, "n_head": 8, "rotary_dim": 4}, 32),
    "gpt_bigcode_multi_query": ("GPTBigCodeConfig", {**FUSED, **GPT}, 8),
    "gpt_bigcode_multi_head": ("GPTBigCodeConfig", {**FUSED, **GPT, "multi_query": False}, 32),
    "mpt": ("MptConfig", {**FUSED, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 32}, 32),
    "dbrx": ("DbrxConfig", DBRX, 16),
    "persimmon": ("PersimmonConfig", {**HIDDEN, "intermediate_size": 64, "max_position_embeddings": 32}, 32),
    "gpt_neox_japanese": ("GPTNeoXJapaneseConfig", {**HIDDEN, "max_position_embeddings": 32}, 32),
    "jetmoe": ("JetMoeConfig", {**JETMOE, **FUSED}, 16),
}


def make(architecture):
    config_class, settings, kv_dim = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**settings, initializer_range=0.2)  # gradients that can be measured
    model = transformers.AutoModelForCausalLM.from_config(config).double().eval().requires_grad_(False)
    return model, kv_dim


def loss_of(model, input_ids, site, shift):
    """-log p of the last token, with ``shift`` ``[s, kv_dim]`` added to one site."""

    def hook(module, args, output):
        output = output.clone()
        output[0, :, slice(None) if site.index is None else site.index] += shift
        return output

    handle = site.module.register_forward_hook(hook)
    try:
        with torch.no_grad():
            logits = model(input_ids=input_ids, use_cache=False).logits
    finally:
        handle.remove()
    return float(-logits[0, -2].log_softmax(-1)[input_ids[0, -1]])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_captured_gradient_equals_that_of_perturbing_the_slice(architecture):
    model, kv_dim = make(architecture)
    sites = kv_sites(model)
    assert list(sites) == [(0, "k"), (0, "v"), (1, "k"), (1, "v")]
    assert {site.kv_dim for site in sites.values()} == {kv_dim}
    input_ids = torch.randint(2, 40, (1, 6))
    mask = torch.zeros(1, 6, dtype=torch.bool)
    mask[0, 5] = True
    gradients = capture_gradients(model, Batch(input_ids, torch.ones_like(mask), mask), sites)
    for key, site in sites.items():
        assert gradients[key].shape == (5, kv_dim)
        for _ in range(4):
            direction = torch.randn(6, kv_dim, dtype=torch.float64) * (torch.rand(6, kv_dim) < 0.3)
            step = 2e-3 * direction
            difference = (loss_of(model, input_ids, site, step) - loss_of(model, input_ids, site, -step)) / 4e-3
            expected = float((gradients[key] * direction[:5]).sum())
            # norms and rotations compute in float32 whatever the dtype, hence the tolerance
            assert difference == pytest.approx(expected, rel=2e-3, abs=3e-4), key


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_padded_batch_equals_its_rows_alone(architecture):
    """Positions, sliding windows and the like do not mind that no attention mask is given."""
    model, _ = make(architecture)
    sites = kv_sites(model)
    rows = [torch.randint(2, 40, (n,)).tolist() for n in (9, 5, 7)]
    examples = [EncodedExample(str(n), tuple(row), (*[False] * (len(row) - 1), True)) for n, row in enumerate(rows)]
    together = capture_gradients(model, collate(examples), sites)
    apart = [capture_gradients(model, collate([example]), sites) for example in examples]
    for key, found in together.items():
        expected = torch.cat([gradients[key] for gradients in apart])
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7), key


@pytest.mark.parametrize("architecture", ["phi3", "gpt2", "gpt_neox", "falcon_new", "codegen", "dbrx"])
def test_value_slice_of_a_fused_projection_is_what_attention_mixes(architecture):
    """Zeroing the V slice of a layer makes its attention output constant: no other slice does."""
    model, _ = make(architecture)
    site = kv_sites(model)[1, "v"]
    outputs = []

    def zero(module, args, output):
        output = output.clone()
        output[..., site.index] = 0
        return output

    block = model.get_submodule(site.name.rsplit(".", 1)[0])
    handles = [site.module.register_forward_hook(zero)]
    handles.append(block.register_forward_hook(lambda module, args, output: outputs.append(output[0].detach())))
    model(input_ids=torch.randint(2, 40, (1, 6)), use_cache=False)
    for handle in handles:
        handle.remove()
    spread = (outputs[0] - outputs[0][:, :1]).abs().max()
    assert float(spread) < 1e-6


def test_interleaved_index_takes_the_same_features_as_the_model():
    model, _ = make("gpt_neox")
    site = kv_sites(model)[0, "k"]
    assert site.index[:10].tolist() == [8, 9, 10, 11, 12, 13, 14, 15, 32, 33]


def test_sites_of_a_peft_wrapped_model_are_the_lora_layers():
    import peft

    model = tiny_model()
    bare = kv_sites(model)
    digest = weights_digest(bare)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["k_proj", "q_proj"], r=2))
    sites = kv_sites(wrapped)
    assert hasattr(sites[0, "k"].module, "lora_A") and not hasattr(sites[0, "v"].module, "lora_A")
    assert sites[0, "k"].name.endswith("layers.0.self_attn.k_proj")
    assert {k: s.kv_dim for k, s in sites.items()} == {k: s.kv_dim for k, s in bare.items()}
    assert weights_digest(sites) == digest


def test_digest_is_the_same_in_bf16_and_differs_for_other_weights():
    model = tiny_model("qwen2")
    digest = weights_digest(kv_sites(model))
    assert weights_digest(kv_sites(tiny_model("qwen2", seed=1))) != digest
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.bias[0] += 1
    assert weights_digest(kv_sites(model)) != digest
    assert weights_digest(kv_sites(tiny_model("qwen2").bfloat16())) == digest


def test_only_wanted_layers_are_returned():
    assert list(kv_sites(tiny_model(), [1])) == [(1, "k"), (1, "v")]


def test_unknown_architecture_lists_the_projections_found():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            block = nn.ModuleDict({"in_proj": nn.Linear(4, 8), "out_proj": nn.Linear(8, 4)})
            self.layers = nn.ModuleList([block, block])
            self.config = transformers.LlamaConfig()

    with pytest.raises(UserError, match=r"under layer 0 of Odd .found: in_proj, out_proj.*Known: separate k_proj"):
        kv_sites(Odd())


def test_fused_projection_of_unknown_layout_is_refused():
    model, _ = make("gpt_neox")
    model.config.model_type = "somebody_elses"
    for layers in (None, [1]):
        with pytest.raises(UserError, match=r"type 'somebody_elses' has a fused projection, query_key_value.*LAYOUTS"):
            kv_sites(model, layers)


def test_projection_of_another_width_than_its_type_has_is_refused():
    model, _ = make("phi3")
    model.config.num_key_value_heads = 4
    with pytest.raises(
        UserError, match=r"qkv_proj of a model of type 'phi3' should have 96 output features.*but has 64"
    ):
        kv_sites(model)


def test_a_hybrid_keeps_the_layers_that_are_known():
    """MiniMax: linear attention with a fused projection of its own beside layers with keys and values."""
    settings = {**GENERIC, "num_local_experts": 2, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}
    model = transformers.AutoModelForCausalLM.from_config(transformers.MiniMaxConfig(**settings))
    assert list(kv_sites(model)) == [(1, "k"), (1, "v")]
    with pytest.raises(UserError, match=r"under layer 0 of MiniMax.*qkv_proj.*Layers that have them: 1\."):
        kv_sites(model, [0])


def test_sides():
    assert split_sides("kv") == ("k", "v") and split_sides("v") == ("v",)
    with pytest.raises(UserError, match="sides='q' is not known"):
        split_sides("q")
