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
from spd_lightning.generation import noise as noises
from spd_lightning.generation import sampling
from spd_lightning.generation.noise import gumbel_noise, row_key, step_keys
from spd_lightning.generation.sampling import SamplingParams, choose_tokens

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


def words_of(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers 0 to 2^32 - 1 as words: from the smallest one up."""
    return (numbers - 2**31).to(torch.int32)


def noise_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The map from words to noise; both numbers 0 to 2^32 - 1, int64."""
    tail = noises.tail_noise(words_of(first), second.to(torch.int32))
    return torch.where(first < noises.FINE, tail, noises.body_noise(words_of(first), torch.empty(first.shape)))


def former_noise(words: torch.Tensor) -> torch.Tensor:
    """Noise as it was before it had a tail: one word, rounded to the steps of float32 around a half."""
    uniform = words.to(torch.float32).mul_(2.0**-32).add_(0.5 + 2.0**-33).clamp_(2.0**-33, 1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def test_the_map_from_words_to_noise_falls_everywhere() -> None:
    generator = torch.Generator().manual_seed(1)
    edges = torch.tensor([0, 1, 2**7, noises.SMALL, noises.FINE, 2**24, 2**31, 2**32 - 1])
    near = (edges[:, None] + torch.arange(-300, 301)).flatten().clamp(0, 2**32 - 1)
    spread = torch.exp2(torch.rand(200_000, generator=generator, dtype=torch.float64) * 32).to(torch.int64) - 1
    first = torch.cat([near, spread]).clamp(0, 2**32 - 1).unique().repeat_interleave(2)
    second = torch.tensor([0, 2**32 - 1]).repeat(len(first) // 2)
    noise = noise_of(first, second)
    assert (noise.diff() <= 0).all() and torch.isfinite(noise).all()
    assert noise[0] > 45 and noise[-1] < -2.8


@pytest.mark.parametrize("limit", [-2.0, 0.0, 1.0, 10.0, 11.0, 13.8, 13.9, 17.5, 20.0, 24.0, 30.0])
def test_the_share_of_words_above_a_limit_is_that_of_a_gumbel_variable(limit: float) -> None:
    low, high = -1, 2**64  # noise falls with the number: the first `low + 1` of all 2^64 are above the limit
    while high - low > 1:
        middle = (low + high) // 2
        noise = noise_of(torch.tensor([middle >> 32]), torch.tensor([middle & 0xFFFFFFFF]))
        low, high = (middle, high) if float(noise) > limit else (low, middle)
    expected = -math.expm1(-math.exp(-limit))
    assert (low + 1) / 2**64 == pytest.approx(expected, rel=1e-3)


def test_noise_away_from_the_tail_is_what_it_was() -> None:
    """So filtered draws keep their tokens."""
    keys = keys_for(300)
    hashed = noises._vocabulary_hash(20_000, keys.device)
    words = noises.first_words(hashed, keys, torch.empty(2, 300, 20_000, dtype=torch.int32))
    body = words >= noises.FINE - 2**31
    before, noise = former_noise(words), gumbel_noise(keys, None, 20_000)
    assert torch.allclose(noise[body], before[body], rtol=0, atol=1e-6)
    assert 250 < int((~body).sum()) < 500 and (noise[~body] > 9.7).all()
    second = torch.stack([noises.second_words(hashed, key.expand(20_000, 2)) for key in keys])
    assert torch.equal(noise, noise_of(words.to(torch.int64) + 2**31, second.to(torch.int64) & 0xFFFFFFFF))


def test_small_first_words_are_as_many_as_they_should_be_and_their_second_words_uniform() -> None:
    """Of 100 million draws."""
    vocab_size, rows = 500_000, 200
    keys = keys_for(rows, step=3, seed=9)
    hashed = noises._vocabulary_hash(vocab_size, keys.device)
    room = torch.empty(2, 1, vocab_size, dtype=torch.int32)
    first, second = [], []
    for key in keys.split(1):
        words = noises.first_words(hashed, key, room)[0]
        rare = (words < noises.FINE - 2**31).nonzero().flatten()
        first.append(words[rare].to(torch.int64) + 2**31)
        second.append(noises.second_words(hashed[rare], key.expand(len(rare), 2)).to(torch.int64) & 0xFFFFFFFF)
    numbers, more = torch.cat(first), torch.cat(second)
    for limit in (noises.SMALL, noises.FINE):  # 95 and 6104 expected
        below = numbers < limit
        expected = vocab_size * rows * limit / 2**32
        assert 1e-3 < stats.poisson.cdf(int(below.sum()), expected) < 1 - 1e-3
        assert stats.kstest((more[below] / 2**32).numpy(), "uniform").pvalue > 1e-3
    for shift in (0, 8, 16, 24):  # every byte of the second words
        seen = torch.bincount((more >> shift & 0xFF) // 8, minlength=32)
        assert stats.chisquare(seen.numpy()).pvalue > 1e-3
    ranks = stats.spearmanr(numbers.numpy(), more.numpy())
    assert ranks.pvalue > 1e-3, "the second word tells nothing of the first"


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
