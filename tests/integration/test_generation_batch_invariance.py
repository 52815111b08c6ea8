"""In float32 a corpus does not depend on the batch size, thanks to the tie rule, even under noise in the logits."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from spd_lightning.generation import engine
from spd_lightning.generation.engine import EngineStats, generate
from spd_lightning.generation.requests import Request, build_requests
from spd_lightning.generation.sampling import SamplingParams
from tests.conftest import tiny_model


def add_noise(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    """Every batched logit moves by up to ``size``, differently in every forward."""
    batched = engine._batched_logits

    def noisy(*args: object) -> Tensor:
        logits = batched(*args)
        return logits + size * (2 * torch.rand_like(logits) - 1)

    monkeypatch.setattr(engine, "_batched_logits", noisy)


def corpora(model, tokenizer, requests: list[Request], params: SamplingParams):  # type: ignore[no-untyped-def]
    """The corpus and the counts for each of the batch sizes 64, 7 and 1."""
    for size in (64, 7, 1):
        stats = EngineStats()
        done = generate(model, tokenizer, requests, params, size, stats=stats)
        rows = {(g.id, g.sample): json.dumps(g.record()) for g in done}
        yield [rows[r.id, r.sample] for r in requests], stats


def trained_like(model):  # type: ignore[no-untyped-def]
    """Logits of a spread that language models have (a fresh model's are all alike)."""
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    return model


def prompts(n: int) -> list[tuple[str, str]]:
    return [(f"train/{i}", "Question " + "abcdefgh"[i % 8] * (i % 23)) for i in range(n)]


def test_tie_rule_makes_coarse_noise_harmless(tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Noise and margin are a hundred times larger than in use, so that few draws show what many would."""
    model = trained_like(tiny_model(tie_word_embeddings=False))
    requests, _ = build_requests(tokenizer, prompts(16))
    add_noise(monkeypatch, 2e-2)
    settings = {"max_new_tokens": 16, "temperature": 0.7, "top_p": 0.9}
    (first, stats), *others = corpora(model, tokenizer, requests, SamplingParams(**settings, tie_margin=0.1))
    assert all(rows == first for rows, _ in others)
    assert 0 < stats.redecided < 0.3 * stats.draws
    (first, stats), *others = corpora(model, tokenizer, requests, SamplingParams(**settings, tie_margin=0.0))
    assert stats.redecided == 0
    assert any(rows != first for rows, _ in others), (
        "without the rule the noise must show, else this test shows nothing"
    )


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 2e-4])
def test_256_prompts_of_128_tokens(noise: float, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    model = trained_like(tiny_model(tie_word_embeddings=False))
    requests, _ = build_requests(tokenizer, prompts(256))
    add_noise(monkeypatch, noise)
    params = SamplingParams(max_new_tokens=128, temperature=0.7, top_p=0.9)
    (first, stats), *others = corpora(model, tokenizer, requests, params)
    assert all(rows == first for rows, _ in others)
    assert stats.draws > 10000 and stats.redecided < 1e-3 * stats.draws


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 2e-4])
def test_pretrained_model(noise: float, pretrained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from spd_lightning.model.load import load_model, load_tokenizer

    model, tokenizer = load_model(pretrained, torch.float32), load_tokenizer(pretrained)
    texts = [(str(i), f"Question: Tom has {i} apples and eats {i % 3}. How many are left?\nAnswer:") for i in range(24)]
    requests, _ = build_requests(tokenizer, texts)
    add_noise(monkeypatch, noise)
    params = SamplingParams(max_new_tokens=32, temperature=0.7, top_p=0.9)
    (first, stats), *others = corpora(model, tokenizer, requests, params)
    assert all(rows == first for rows, _ in others)
    assert stats.redecided <= max(3, 2e-3 * stats.draws)
