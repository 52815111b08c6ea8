"""Hooks and folded weights are the same model, and both leave nothing behind."""

import pytest
import torch
import transformers

from spd_lightning.errors import UserError
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.projection import fold_into, fold_projection, project, project_kv
from spd_lightning.subspace.sites import kv_sites, weights_digest
from tests.conftest import tiny_model
from tests.unit.subspace.forward_by_hand import forward
from tests.unit.subspace.test_sites import ARCHITECTURES, make

IDS = torch.tensor([[5, 9, 17, 33, 2, 30, 11]])


def subspace_of(model, rank="half", **options):
    sites = kv_sites(model)
    moments = Moments(metadata={"model": "tiny", "weights_digest": weights_digest(sites)})
    for key, site in sites.items():
        moments.update({key: torch.randn(50, site.kv_dim) * torch.linspace(2, 1, site.kv_dim)})
    return subspace_from_moments(moments, rank=rank, **options)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_untouched(model, before):
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folded_equals_hooks_for_every_architecture(architecture, strength):
    model, _ = make(architecture)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_()
    subspace = subspace_of(model, strength=strength)
    before, plain = state(model), logits(model)
    with project_kv(model, subspace) as projected:
        assert projected is model
        by_hooks = logits(model)
    with fold_projection(model, subspace) as folded:
        assert folded is model
        by_weights = logits(model)
    assert (by_hooks - plain).abs().max() > 1e-2
    assert torch.allclose(by_hooks, by_weights, atol=1e-4)
    assert_untouched(model, before)
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_both_forms_equal_a_forward_written_by_hand(kind, strength):
    """K~ = K P and V~ = V P on every token, before key norm and rotary positions."""
    model = tiny_model(kind)
    for name, weight in model.named_parameters():
        weight.data = torch.randn_like(weight) * 0.3 + ("norm" in name)
    subspace = subspace_of(model, strength=strength)
    projectors = {}
    for key in subspace.sites:
        basis = subspace.bases[key].double()
        projectors[key] = (1 - strength) * torch.eye(len(basis), dtype=torch.float64) + strength * basis @ basis.T
    plain, wanted = (forward(model, IDS[0].tolist(), p) for p in ({}, projectors))
    assert (plain - wanted).abs().max() > 0.1
    torch.testing.assert_close(logits(model)[0].double(), plain, rtol=1e-4, atol=1e-4)
    for context in (project_kv, fold_projection):
        with context(model, subspace):
            torch.testing.assert_close(logits(model)[0].double(), wanted, rtol=1e-4, atol=1e-4)


def test_projection_is_applied_to_the_output_of_the_site_and_to_nothing_else():
    model, _ = make("phi3")
    subspace, seen = subspace_of(model), {}
    module = model.model.layers[1].self_attn.qkv_proj
    handle = module.register_forward_hook(lambda m, a, out: seen.update(plain=out.clone()))
    with project_kv(model, subspace):
        late = module.register_forward_hook(lambda m, a, out: seen.update(projected=out))
        logits(model)
        late.remove()
    handle.remove()
    x, y = seen["plain"], seen["projected"]
    assert torch.equal(x[..., :32], y[..., :32])  # queries
    assert torch.allclose(y[..., 32:48], x[..., 32:48] @ subspace.projector(1, "k"), atol=1e-6)
    assert torch.allclose(y[..., 48:], x[..., 48:] @ subspace.projector(1, "v"), atol=1e-6)


def test_full_rank_and_zero_strength_are_the_identity():
    model = tiny_model("qwen2")
    plain = logits(model)
    for options in ({"rank": 16}, {"strength": 0.0}):
        subspace = subspace_of(model, **options)
        for context in (project_kv, fold_projection):
            with context(model, subspace):
                assert torch.allclose(logits(model), plain, atol=1e-5)
                tokens = model.generate(IDS, max_new_tokens=12, do_sample=False, pad_token_id=256)
            assert torch.equal(tokens, model.generate(IDS, max_new_tokens=12, do_sample=False, pad_token_id=256))


@pytest.mark.parametrize("context", [project_kv, fold_projection])
def test_everything_is_restored_after_an_exception(context):
    model = tiny_model("qwen2")
    subspace, before = subspace_of(model), state(model)
    with pytest.raises(ZeroDivisionError), context(model, subspace):
        raise ZeroDivisionError
    assert_untouched(model, before)


@pytest.mark.parametrize("lora_bias", [False, True])
@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "phi3"])
def test_lora_wrapped_projections_fold_base_and_adapter(architecture, lora_bias):
    import peft

    model, _ = make(architecture)
    subspace = subspace_of(model)
    targets = {"qwen2": ["q_proj", "k_proj", "v_proj"], "gpt2": ["c_attn"], "phi3": ["qkv_proj"]}[architecture]
    config = peft.LoraConfig(target_modules=targets, r=4, lora_bias=lora_bias, fan_in_fan_out=architecture == "gpt2")
    wrapped = peft.get_peft_model(model, config).eval()
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter.data) * 0.3
    before, plain = state(wrapped), logits(wrapped)
    with project_kv(wrapped, subspace):
        by_hooks = logits(wrapped)
    with fold_projection(wrapped, subspace):
        assert torch.allclose(logits(wrapped), by_hooks, atol=1e-3)
    assert (plain - by_hooks).abs().max() > 1e-2
    assert_untouched(wrapped, before)


def test_folded_for_good_is_an_ordinary_checkpoint(tmp_path):
    model = tiny_model("qwen2")
    subspace = subspace_of(model)
    with project_kv(model, subspace):
        by_hooks = logits(model)
    fold_into(model, subspace).save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert torch.allclose(logits(loaded), by_hooks, atol=1e-5)
    with pytest.raises(UserError, match="or is already projected"):
        fold_into(model, subspace)


def test_bf16_weights_fold_from_a_float32_subspace():
    model = tiny_model("llama")
    subspace = subspace_of(model)
    with project_kv(model, subspace):
        exact = logits(model)
    half = tiny_model("llama").bfloat16()
    before = state(half)
    with fold_projection(half, subspace):
        assert torch.allclose(logits(half).float(), exact, atol=3e-2)
    assert_untouched(half, before)


def test_another_model_is_refused_by_both_and_left_alone():
    subspace, other = subspace_of(tiny_model()), tiny_model(seed=3)
    before = state(other)
    for context in (project_kv, fold_projection):
        with pytest.raises(UserError, match="belongs to tiny "), context(other, subspace):
            pass
    assert_untouched(other, before)


def test_weights_that_cannot_be_folded():
    import peft

    model = tiny_model()
    subspace = subspace_of(model)
    config = peft.LoraConfig(target_modules=["k_proj"], r=2, use_dora=True)
    wrapped = peft.get_peft_model(tiny_model(), config)
    with (
        pytest.raises(UserError, match=r"layers.0.self_attn.k_proj carries a DoRA"),
        fold_projection(wrapped, subspace),
    ):
        pass
    module = model.model.layers[0].self_attn.k_proj
    for dtype in (torch.int8, torch.float8_e4m3fn):
        module.weight = torch.nn.Parameter(torch.zeros(16, 32, dtype=dtype), requires_grad=False)
        subspace.metadata["weights_digest"] = weights_digest(kv_sites(model))
        with pytest.raises(UserError, match=f"k_proj holds weights of {dtype}"), fold_projection(model, subspace):
            pass


def test_project_keeps_shape_and_dtype():
    basis = torch.linalg.qr(torch.randn(8, 3)).Q
    x = torch.randn(2, 5, 8)
    assert torch.allclose(project(x, basis), x @ basis @ basis.T, atol=1e-6)
    assert torch.allclose(project(x, basis, 0.25), 0.75 * x + 0.25 * (x @ basis @ basis.T), atol=1e-6)
    assert torch.allclose(project(project(x, basis), basis), project(x, basis), atol=1e-6)
    half = project(x.bfloat16(), basis)
    assert half.dtype == torch.bfloat16 and half.shape == x.shape
    assert project(x.double(), basis).dtype == torch.float64
