"""Attention over short rows against PyTorch's own in float32, and left alone wherever it does not apply."""

import pytest
import torch
import torch.nn.functional as F

import spd_lightning.model.short_attention as short
from spd_lightning.generation.engine import generate_batch
from spd_lightning.generation.requests import Request
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.short_attention import LONGEST_ROW, short_attention
from tests.conftest import byte_tokenizer, tiny_model


@pytest.fixture
def calls(monkeypatch):
    """One entry for each call that was replaced."""
    seen, original = [], short._attention
    monkeypatch.setattr(short, "_attention", lambda *args, **kwargs: (seen.append(args), original(*args, **kwargs))[1])
    return seen


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(("s", "t", "scale"), [(9, 9, None), (4, 9, 0.3)])
def test_values_and_gradients_equal_those_of_float32(calls, causal, groups, s, t, scale):
    shapes = ((2, 6, s, 8), (2, groups, t, 8), (2, groups, t, 8))
    inputs = [torch.randn(shape).bfloat16() for shape in shapes]
    options = {"is_causal": causal, "scale": scale, "enable_gqa": True}
    weights = torch.randn(2, 6, s, 8)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        with short_attention():
            out = F.scaled_dot_product_attention(*leaves, **options)
        results.append([out, *torch.autograd.grad((out.float() * weights).sum(), leaves)])
    assert len(calls) == 1
    for exact, found in zip(*results, strict=True):
        assert found.dtype == torch.bfloat16 and found.shape == exact.shape
        assert (found.float() - exact).norm() < 0.01 * exact.norm()


def test_left_alone_where_it_does_not_apply(calls):
    x = torch.randn(1, 1, 4, 8).bfloat16()
    long = torch.randn(1, 1, LONGEST_ROW + 1, 8).bfloat16()
    with short_attention():
        F.scaled_dot_product_attention(x.float(), x.float(), x.float())
        F.scaled_dot_product_attention(x[0], x[0], x[0])
        F.scaled_dot_product_attention(x, x, x, torch.ones(4, 4, dtype=torch.bool))
        F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)
        F.scaled_dot_product_attention(long, long, long)
    F.scaled_dot_product_attention(x, x, x)  # the context is over
    assert calls == []


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_model_within_is_as_close_to_float32_as_without(calls, kind):
    model = tiny_model(kind).requires_grad_(False)
    ids = torch.randint(0, 250, (3, 20))
    with torch.no_grad():
        exact = model(input_ids=ids).logits
        model.bfloat16()
        plain = model(input_ids=ids).logits
        with short_attention():
            found = model(input_ids=ids).logits
    assert len(calls) == 2
    assert (found - exact).norm() < 1.5 * (plain - exact).norm()


def test_the_context_ends_when_the_model_fails(calls):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), short_attention():
        torch.randn(2, 3) @ torch.randn(2, 3)
    x = torch.randn(1, 1, 4, 8).bfloat16()
    F.scaled_dot_product_attention(x, x, x)
    assert calls == []


@pytest.mark.parametrize("enabled", [True, False])
def test_no_attention_of_ours_makes_plans_and_the_setting_is_put_back(monkeypatch, enabled):
    found = []
    model = tiny_model()
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda *a, **k: (found.append(torch.backends.cuda.cudnn_sdp_enabled()), forward(*a, **k))[1]
    )
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(enabled)
    try:
        generate_batch(model, byte_tokenizer(), [Request("a", "ab", (97, 98))], SamplingParams(max_new_tokens=3))
        with short_attention():
            model(input_ids=torch.tensor([[1, 2]]))
        assert found == [False] * 4
        assert torch.backends.cuda.cudnn_sdp_enabled() is enabled
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
