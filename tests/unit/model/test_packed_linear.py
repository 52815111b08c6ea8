"""Packed layers compute the same function, give the same gradients, and leave the model as it was."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spd_lightning.model import packed_linear
from spd_lightning.model.packed_linear import packed_linears, packs_in_training
from tests.conftest import tiny_model


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 48), (3, 5, 48), (2, 300, 48), (1, 1, 48)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_values_and_gradients_are_those_of_float64(dtype, tolerance: float, shape: tuple, bias: bool) -> None:  # type: ignore[no-untyped-def]
    layer = nn.Linear(48, 32, bias=bias).to(dtype).requires_grad_(False)
    exact = nn.Linear(48, 32, bias=bias).double()
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(shape).to(dtype)
    y, x64 = x.clone().requires_grad_(), x.double().requires_grad_()
    with packed_linears(layer):
        plain = layer(x)
        out = layer(y)
        assert torch.equal(plain, out.detach())
        out.float().pow(2).sum().backward()
    exact(x64).pow(2).sum().backward()
    assert out.dtype == y.grad.dtype == dtype and out.shape == (*shape[:-1], 32)
    assert torch.allclose(out.double(), exact(x64), atol=tolerance, rtol=tolerance)
    assert torch.allclose(y.grad.double(), x64.grad, atol=4 * tolerance, rtol=4 * tolerance)
    with torch.autocast("cpu", torch.bfloat16), packed_linears(layer):
        assert torch.allclose(layer(x).double(), exact(x64), atol=2e-2, rtol=2e-2)


def test_a_model_is_the_same_model_and_is_given_back_also_after_an_error() -> None:
    model = tiny_model("qwen2").requires_grad_(False)
    ids = torch.tensor([[5, 9, 17, 33, 2], [1, 2, 3, 4, 5]])
    plain = model(ids).logits
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ZeroDivisionError), packed_linears(model) as packed:
        assert packed is model
        with packed_linears(model):
            inner = model(ids).logits
        assert torch.equal(model(ids).logits, inner), "the inner context changed or ended something"
        assert torch.allclose(inner, plain, atol=1e-5)
        raise ZeroDivisionError
    assert torch.equal(model(ids).logits, plain)
    assert not any("forward" in m.__dict__ for m in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_hooks_still_run() -> None:
    layer, seen = nn.Linear(4, 4).requires_grad_(False), []
    layer.register_forward_hook(lambda m, args, out: seen.append(out))
    with packed_linears(layer):
        layer(torch.ones(1, 4))
    assert len(seen) == 1


def test_what_cannot_be_packed_is_left_alone() -> None:
    trained, replaced = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)
    wide = nn.Linear(4, 4).double().requires_grad_(False)
    replaced.forward = lambda x: x  # type: ignore[method-assign,assignment]
    model = nn.ModuleList([trained, replaced, wide])
    with packed_linears(model):
        assert "forward" not in trained.__dict__ and "forward" not in wide.__dict__
        assert torch.equal(replaced(torch.ones(1, 4)), torch.ones(1, 4))
        with torch.no_grad(), packed_linears(model):
            assert "forward" in trained.__dict__, "what cannot be trained meanwhile is packed"
        assert "forward" not in trained.__dict__
    assert "forward" in replaced.__dict__, "another library's forward was removed"


@pytest.mark.parametrize("missing", ["_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported"])
def test_a_build_of_torch_without_the_operators_computes_as_before(monkeypatch, missing: str) -> None:  # type: ignore[no-untyped-def]
    present = {name: None for name in packed_linear.OPERATORS if name != missing}
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**present), raising=False)
    layer, x = nn.Linear(4, 4).requires_grad_(False), torch.ones(1, 4)
    plain = layer(x)
    with packed_linears(layer):
        assert "forward" not in layer.__dict__ and torch.equal(layer(x), plain)


def test_training_packs_only_where_layers_compute_as_they_are_held():
    assert packs_in_training("32-true", sharded=False, checkpointing=False)
    assert packs_in_training("bf16-true", sharded=False, checkpointing=False)
    assert not packs_in_training("bf16-mixed", sharded=False, checkpointing=False)
    assert not packs_in_training(None, sharded=True, checkpointing=False)
    assert not packs_in_training(None, sharded=False, checkpointing=True)
