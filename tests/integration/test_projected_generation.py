"""Hooks and folded weights choose the same greedy tokens; folded generation runs the operators of plain generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from spd_lightning.generation.engine import generate, generate_batch
from spd_lightning.generation.requests import build_requests
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.projection import fold_projection, project_kv
from spd_lightning.subspace.sites import kv_sites, weights_digest
from spd_lightning.subspace.subspace import CapabilitySubspace
from tests.conftest import tiny_model
from tests.unit.generation.test_engine import model_of

NEAR_TIE = 1e-3  # logit units
PROMPTS = [
    (
        f"p{i}",
        f"Question: Tom has {i} apples{', then some more' * (i % 4)} and eats {i % 3}. How many are left?\nAnswer:",
    )
    for i in range(32)
]


def random_subspace(model: Any, rank: Any = "half") -> CapabilitySubspace:
    """Of random activations at the middle and the last layer."""
    last = model.config.num_hidden_layers - 1
    sites = kv_sites(model, sorted({(last + 1) // 2, last}))
    moments = Moments(metadata={"model": "any", "weights_digest": weights_digest(sites)})
    generator = torch.Generator().manual_seed(0)
    for key, site in sites.items():
        moments.update({key: torch.randn(400, site.kv_dim, generator=generator)})
    return subspace_from_moments(moments, rank=rank)


def compare_forms(model: Any, tokenizer: Any, new_tokens: int) -> dict[str, Any]:
    """Decode greedily under hooks; at every step of that path, what would folded weights have done?

    Returns:
        Number of steps, those where another token leads (with the gap of the two best logits under hooks), the largest
        difference of logits and the largest logit.
    """
    subspace = random_subspace(model)
    requests, _ = build_requests(tokenizer, PROMPTS)
    params = SamplingParams(max_new_tokens=new_tokens, temperature=0.0, tie_margin=0.0)
    with project_kv(model, subspace):
        paths = {g.id: g.token_ids for g in generate(model, tokenizer, requests, params, 32)}
    steps, different, moved, largest, effect = 0, [], 0.0, 0.0, 0.0
    for request in requests:
        ids, first = torch.tensor([[*request.prompt_ids, *paths[request.id]]]), len(request.prompt_ids) - 1
        with torch.inference_mode():
            plain = model(ids, use_cache=False).logits[0, first:-1]
            with project_kv(model, subspace):
                by_hooks = model(ids, use_cache=False).logits[0, first:-1]
            with fold_projection(model, subspace):
                by_weights = model(ids, use_cache=False).logits[0, first:-1]
        gaps = by_hooks.topk(2).values.diff().neg()[:, 0]
        apart = by_hooks.argmax(-1) != by_weights.argmax(-1)
        different += [(request.id, int(i), float(gaps[i])) for i in apart.nonzero().flatten()]
        steps += len(by_hooks)
        moved = max(moved, float((by_hooks - by_weights).abs().max()))
        largest = max(largest, float(by_hooks.abs().max()))
        effect = max(effect, float((by_hooks - plain).abs().max()))
    assert effect > 1e-2, "the projection must show, else this test shows nothing"
    return {"steps": steps, "different": different, "moved": moved, "largest": largest}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2"])
def test_hooks_and_folded_weights_choose_the_same_greedy_tokens(kind: str, tokenizer: Any) -> None:
    model = model_of(kind)
    with torch.no_grad():  # logits of a usual size, so that a bound on their difference means something
        model.get_output_embeddings().weight.div_(9)
    seen = compare_forms(model, tokenizer, 24)
    assert seen["steps"] > 300
    assert all(gap < NEAR_TIE for *_, gap in seen["different"]), seen["different"]
    assert len(seen["different"]) <= seen["steps"] / 1000, seen["different"]
    assert seen["moved"] < 1e-5, seen


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hooks_and_folded_weights_choose_the_same_greedy_tokens_on_a_pretrained_model(
    dtype: torch.dtype, pretrained: str
) -> None:
    from spd_lightning.model.load import load_model, load_tokenizer

    seen = compare_forms(load_model(pretrained, dtype), load_tokenizer(pretrained), 32)
    print(seen)
    assert seen["steps"] > 500
    assert all(gap < NEAR_TIE for *_, gap in seen["different"]), seen["different"]
    assert len(seen["different"]) <= seen["steps"] / 1000, seen["different"]
    bound = (
        1e-5 * max(1.0, seen["largest"]) if dtype == torch.float32 else 1e-9
    )  # float64 shows that the rest is rounding
    assert seen["moved"] < bound, seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_folded_generation_runs_not_one_operator_more(dtype: torch.dtype, tokenizer: Any) -> None:
    model = tiny_model("qwen2").to(dtype).requires_grad_(False)
    requests, _ = build_requests(tokenizer, PROMPTS[:4])
    params = SamplingParams(max_new_tokens=4, temperature=0.7, top_p=0.9, tie_margin=0.0)

    def operators() -> dict[str, int]:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            done = generate_batch(model, tokenizer, requests, params)
        assert all(g.num_tokens == 4 for g in done)
        return {event.key: event.count for event in profiler.key_averages()}

    operators()  # what is made on first use
    plain = operators()
    subspace = random_subspace(model)
    with fold_projection(model, subspace):
        assert operators() == plain
    with project_kv(model, subspace):
        assert sum(operators().values()) > sum(plain.values()), "hooks must show, else this test shows nothing"
