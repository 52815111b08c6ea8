"""The loss of a projection taken in parts is that of its logits; a model that changes them is asked for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from spd_lightning.finetuning import cross_entropy
from spd_lightning.finetuning.cross_entropy import head_loss_sum, logits_or_hidden, loss_and_gradient
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.loss import token_loss_sum
from spd_lightning.model.packed_linear import packed_linears
from tests.conftest import TINY, tiny_model


@pytest.fixture(params=[1, 3, 100])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows of 50 logits that are held at once; a third of them in float32."""
    monkeypatch.setattr(cross_entropy, "HELD", {"cpu": 50 * request.param})
    monkeypatch.setattr(cross_entropy, "WIDE", {"cpu": 50 * request.param // 3})
    return int(request.param)


@pytest.mark.parametrize("rows", [0, 1, 10])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_it_is_the_loss_of_the_logits(parts: int, rows: int, bias: bool, packed: bool) -> None:
    dtype = torch.float32 if packed else torch.float64
    head = nn.Linear(8, 50, bias=bias, dtype=dtype).requires_grad_(False)
    hidden = torch.randn(rows, 8, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, 50, (rows,))
    expected = F.cross_entropy(head(hidden), targets, reduction="sum")
    (wanted,) = torch.autograd.grad(3 * expected, hidden)
    bound = 1e-5 if packed else 1e-13
    with packed_linears(head) if packed else torch.enable_grad():
        loss = head_loss_sum(head.forward, hidden, targets, 50)
        (found,) = torch.autograd.grad(3 * loss, hidden)
    torch.testing.assert_close(loss, expected, rtol=bound, atol=bound)
    torch.testing.assert_close(found, wanted, rtol=bound, atol=bound)
    with torch.no_grad():
        torch.testing.assert_close(head_loss_sum(head.forward, hidden, targets, 50), loss, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rare_targets_and_sure_ones(dtype: torch.dtype) -> None:
    """A target whose probability is 0 in float32 has its loss all the same; so has one of probability 1."""
    logits = torch.tensor([[300.0, 0.0, -200.0], [300.0, 0.0, -200.0]], dtype=dtype)
    gradient = torch.empty_like(logits)
    assert float(loss_and_gradient(logits, torch.tensor([2, 0]), gradient)) == 500
    assert gradient.tolist() == [[1, 0, -1], [0, 0, 0]]
    logits[1, 0] = float("nan")
    assert torch.isnan(loss_and_gradient(logits, torch.tensor([2, 0]), None))


CAPPED: dict[str, Any] = {"head_dim": 8, "final_logit_softcapping": 3.0, "attn_implementation": "eager"}


@pytest.mark.parametrize(
    ("kind", "more", "bare"),
    [
        ("Llama", {}, True),
        ("Gemma3Text", {"head_dim": 8}, True),
        ("Gemma2", CAPPED, False),
        ("Cohere", {"logit_scale": 0.3}, False),
        ("Granite", {"logits_scaling": 4.0}, False),
    ],
)
@pytest.mark.parametrize("adapter", [False, True])
def test_a_model_that_changes_its_logits_is_asked_for_them(
    kind: str, more: dict[str, Any], bare: bool, adapter: bool
) -> None:
    config = getattr(transformers, f"{kind}Config")(**TINY, **more)
    model: Any = transformers.AutoModelForCausalLM.from_config(config).double().eval().requires_grad_(False)
    if adapter:
        model = add_lora(model, 2, 2, 0.0, None, 0, "base").double()
        for p in model.parameters():
            nn.init.normal_(p, std=0.1) if p.requires_grad else None
    trained = next(p for p in model.parameters() if p.requires_grad) if adapter else model.model.norm.weight
    trained.requires_grad_(True)
    ids = torch.randint(0, 256, (3, 9))
    labels = ids.masked_fill(torch.rand(3, 9) < 0.4, -100)
    logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
    expected = F.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")
    (wanted,) = torch.autograd.grad(expected, trained)
    loss = token_loss_sum(model, {"input_ids": ids, "labels": labels})
    (found,) = torch.autograd.grad(loss, trained)
    bound = 1e-6 if "attn_implementation" in more else 1e-12  # the softmax of eager attention is float32
    torch.testing.assert_close(loss, expected, rtol=bound, atol=0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=bound * float(wanted.abs().max()))
    assert (logits_or_hidden(model, {"input_ids": ids})[1] is not None) is bare
    assert model(input_ids=ids).logits.shape == (3, 9, 258)  # the projection is back


def test_a_projection_that_is_trained_gets_its_gradient() -> None:
    model = tiny_model().requires_grad_(False)
    ids = torch.randint(0, 256, (2, 5))
    assert logits_or_hidden(model, {"input_ids": ids})[1] is not None
    model.requires_grad_(True)
    assert logits_or_hidden(model, {"input_ids": ids})[1] is None
    token_loss_sum(model, {"input_ids": ids, "labels": ids}).backward()
    assert model.get_output_embeddings().weight.grad.any()


def test_a_second_pass_draws_the_same_dropout() -> None:
    """The first time that a model turns out to cap its logits, the step is that of every other time."""
    config = transformers.Gemma2Config(**TINY, **CAPPED)
    model = add_lora(transformers.AutoModelForCausalLM.from_config(config), 4, 4, 0.5, None, 0, "base").train()
    nn.init.normal_(next(p for n, p in model.named_parameters() if "lora_B" in n))
    ids = torch.randint(0, 256, (2, 9))
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(float(token_loss_sum(model, {"input_ids": ids, "labels": ids})))
    assert losses[0] == losses[1]
