"""Sampling: filters equal transformers', draws follow the distribution, hang on the row alone, know when close."""

from __future__ import annotations

import math
import re

import pytest
import torch
from scipy import stats
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from spd_lightning.errors import UserError
from spd_lightning.generation import sampling
from spd_lightning.generation.sampling import SamplingParams, choose_tokens, gumbel_noise, row_key, step_keys

FILTERS = [
    {"top_p": 0.9},
    {"top_p": 0.3},
    {"top_p": 1e-6},
    {"top_k": 5},
    {"top_k": 1},
    {"min_p": 0.1},
    {"top_k": 20, "top_p": 0.8},
    {"top_k": 300, "top_p": 0.95, "min_p": 0.01},
]


def warped(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Logits as transformers' own warpers leave them."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        warpers.append(MinPLogitsWarper(params.min_p))
    return warpers(torch.zeros(len(logits), 1, dtype=torch.long), logits.clone())


def keys_for(rows: int, step: int = 0, seed: int = 1) -> torch.Tensor:
    return step_keys([row_key(seed, f"train/{i}", 0) for i in range(rows)], step)


@pytest.mark.parametrize("settings", FILTERS, ids=str)
@pytest.mark.parametrize("spread", [0.05, 1.0, 6.0])  # flat (the filter reaches beyond the candidates) to peaked
def test_draw_is_the_noisy_argmax_over_the_tokens_that_transformers_keeps(settings: dict, spread: float) -> None:
    params = SamplingParams(temperature=0.7, **settings)
    logits = torch.randn(24, 3000, generator=torch.Generator().manual_seed(3)).mul(spread)
    keys = keys_for(24)
    expected = (warped(logits, params) + gumbel_noise(keys, None, 3000)).argmax(-1)
    tokens, close = choose_tokens(logits, params, keys)
    assert torch.equal(tokens, expected)
    assert not close.any(), "without a margin nothing is close"
    assert torch.equal(choose_tokens(logits, params, keys, margin=1e-3)[0], expected)


def test_unfiltered_draw_is_the_noisy_argmax_over_the_vocabulary() -> None:
    logits = torch.randn(300, 1000) * 2
    keys = keys_for(300)
    expected = (logits / 1.3 + gumbel_noise(keys, None, 1000)).argmax(-1)
    assert torch.equal(choose_tokens(logits, SamplingParams(temperature=1.3), keys)[0], expected)


@pytest.mark.parametrize("penalty", [0.5, 1.05, 1.3, 10.0])
@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {}, {"top_k": 20, "top_p": 0.8}], ids=str)
def test_repetition_penalty_is_that_of_transformers(penalty: float, settings: dict) -> None:
    """Before the temperature, in greedy decoding too; a token that stands there three times is penalised once."""
    params = SamplingParams(**{"temperature": 0.7, **settings}, repetition_penalty=penalty)
    generator = torch.Generator().manual_seed(11)
    logits = torch.randn(200, 300, generator=generator) * 2
    history = torch.randint(0, 300, (200, 90), generator=generator)
    history[:, 80:] = history[:, :1]  # filled up with a token of the row
    keys = keys_for(200)
    penalised = RepetitionPenaltyLogitsProcessor(penalty)(history[:, :80], logits.clone())
    if params.temperature == 0:
        expected = penalised.argmax(-1)
    else:
        expected = (warped(penalised, params) + gumbel_noise(keys, None, 300)).argmax(-1)
    before = logits.clone()
    tokens, _ = choose_tokens(logits, params, keys, history=history)
    assert torch.equal(tokens, expected) and torch.equal(logits, before)
    without, _ = choose_tokens(logits, SamplingParams(**{"temperature": 0.7, **settings}), keys)
    assert not torch.equal(tokens, without), "the penalty changed nothing, so the test shows nothing"
    with pytest.raises(ValueError, match="needs the history"):
        choose_tokens(logits, params, keys)


def test_greedy_takes_the_largest_logit_without_noise() -> None:
    logits = torch.randn(5, 50)
    assert torch.equal(choose_tokens(logits, SamplingParams(temperature=0.0), keys_for(5))[0], logits.argmax(-1))


def test_one_token_vocabulary() -> None:
    tokens, close = choose_tokens(torch.zeros(2, 1), SamplingParams(temperature=0.0), keys_for(2), 1e-3)
    assert tokens.tolist() == [0, 0] and not close.any()


def test_noise_is_gumbel() -> None:
    noise = gumbel_noise(keys_for(200), None, 1000).double().flatten()
    assert stats.kstest(noise.numpy(), "gumbel_r").pvalue > 1e-3
    assert torch.isfinite(noise).all()


@pytest.mark.parametrize("axis", ["token", "step", "row", "sample", "seed"])
def test_noise_of_neighbours_is_independent(axis: str) -> None:
    key = row_key(1, "a", 0)
    a = gumbel_noise(step_keys([key], 0), None, 40000).flatten()
    b = {
        "token": lambda: a.roll(1),
        "step": lambda: gumbel_noise(step_keys([key], 1), None, 40000).flatten(),
        "row": lambda: gumbel_noise(step_keys([row_key(1, "b", 0)], 0), None, 40000).flatten(),
        "sample": lambda: gumbel_noise(step_keys([row_key(1, "a", 1)], 0), None, 40000).flatten(),
        "seed": lambda: gumbel_noise(step_keys([row_key(2, "a", 0)], 0), None, 40000).flatten(),
    }[axis]()
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / math.sqrt(40000)


def test_noise_of_a_token_does_not_depend_on_what_else_is_asked() -> None:
    keys = keys_for(3)
    whole = gumbel_noise(keys, None, 500)
    some = torch.tensor([[499, 3], [0, 17], [250, 250]])
    assert torch.equal(gumbel_noise(keys, some, 500), whole.gather(1, some))
    assert torch.equal(gumbel_noise(keys[1:2], None, 500), whole[1:2])


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.8}, {"top_k": 4}, {"min_p": 0.2}], ids=str)
def test_draws_follow_the_filtered_distribution(settings: dict) -> None:
    params = SamplingParams(temperature=0.7, **settings)
    logits = torch.tensor([[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5, 0.7, 1.2]])
    probability = torch.softmax(warped(logits, params)[0].double(), -1)
    draws = 20000
    key = row_key(7, "x", 0)
    keys = torch.cat([step_keys([key], step) for step in range(draws)])
    tokens, _ = choose_tokens(logits.expand(draws, -1), params, keys)
    seen = torch.bincount(tokens, minlength=10)
    allowed = probability > 0
    assert seen[~allowed].sum() == 0
    test = stats.chisquare(seen[allowed].numpy(), (probability[allowed] * draws).numpy())
    assert test.pvalue > 1e-3, (seen, probability * draws)


PENALTIES = [{"repetition_penalty": p, **more} for p in (0.6, 1.8) for more in ({"temperature": 0.0}, {"top_p": 0.9})]


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {}, *FILTERS, *PENALTIES], ids=str)
def test_logits_moved_by_half_a_margin_change_only_close_draws(settings: dict) -> None:
    params = SamplingParams(**{"temperature": 0.7, **settings})
    margin = 0.05  # large, so that many draws are close; most are not
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(400, 200, generator=generator) * 2
    keys = keys_for(400)
    history = torch.randint(0, 200, (400, 60), generator=generator)
    tokens, close = choose_tokens(logits, params, keys, margin, history)
    changed = torch.zeros(400, dtype=torch.bool)
    for _ in range(30):
        sign = torch.randint(0, 2, logits.shape, generator=generator) * 2 - 1
        moved, _ = choose_tokens(logits + sign * margin * 0.499, params, keys, history=history)
        changed |= moved != tokens
    assert not (changed & ~close).any(), "a draw that was not called close has changed"
    assert close.float().mean() < 0.35
    if settings not in ({"top_k": 1}, {"top_p": 1e-6}):
        assert changed.any(), "the test moved nothing, so it shows nothing"


def test_margin_in_force() -> None:
    assert SamplingParams().margin(torch.float32) == sampling.TIE_MARGIN == 1e-3
    assert SamplingParams().margin(torch.bfloat16) == 0
    assert SamplingParams(tie_margin=0.2).margin(torch.bfloat16) == 0.2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.5),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -3),
        ("min_p", 1.01),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.nan),
        ("tie_margin", -1e-3),
        ("stop", ("",)),
        ("stop", "Question:"),
    ],
)
def test_settings_out_of_range(name: str, value: object) -> None:
    with pytest.raises(UserError, match=re.escape(f"{name}={value!r}")):
        SamplingParams(**{name: value})
