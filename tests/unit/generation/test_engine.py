"""Decoding: greedy equals transformers' generate, rows leave, stop strings, prompts, batches, modes."""

from __future__ import annotations

import re

import pytest
import scipy.stats
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from spd_lightning.errors import UserError
from spd_lightning.generation import engine
from spd_lightning.generation.cache import leaving_moves, shared_length
from spd_lightning.generation.engine import EngineStats, generate, generate_batch
from spd_lightning.generation.requests import Request, build_requests, form_batches
from spd_lightning.generation.sampling import SamplingParams
from tests.conftest import TINY, tiny_model

PROMPTS = [
    ("a", "Question: 3 plus 4?\nAnswer:"),
    ("b", "2"),
    ("c", "A longer one, é and 你 too: " * 3),
    ("d", "Hello there"),
    ("e", "Question: how many legs have two dogs?\nAnswer:"),
]


def model_of(kind: str):  # type: ignore[no-untyped-def]
    if kind == "gpt2":
        config = GPT2Config(
            n_embd=32, n_layer=2, n_head=4, vocab_size=258, n_positions=512, bos_token_id=None, eos_token_id=257
        )
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config).eval()
    elif kind == "mistral":  # a sliding window shorter than the texts
        from transformers import AutoModelForCausalLM, MistralConfig

        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(MistralConfig(**TINY, sliding_window=16)).eval()
    else:
        model = tiny_model(kind)
    with torch.no_grad():  # spread the logits, so that greedy tokens vary and rows end at different steps
        for parameter in model.parameters():
            parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)
    return model


def plain_generate(model, tokenizer, ids: tuple[int, ...], n: int, **more: float) -> list[int]:  # type: ignore[no-untyped-def]
    """transformers' own greedy generation of one row."""
    prompt = torch.tensor([ids])
    options = {"do_sample": False, "max_new_tokens": n, "eos_token_id": 257, "pad_token_id": 256, **more}
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    return out[0, len(ids) :].tolist()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2", "mistral"])
def test_greedy_equals_transformers(kind: str, tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = model_of(kind)
    requests, _ = build_requests(tokenizer, PROMPTS)
    out = generate(model, tokenizer, requests, SamplingParams(max_new_tokens=40, temperature=0.0), batch_size=5)
    assert [g.id for g in out] == ["b", "d", "a", "e", "c"]
    ids = {r.id: r.prompt_ids for r in requests}
    for g in out:
        assert list(g.token_ids) == plain_generate(model, tokenizer, ids[g.id], 40), g.id


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "mistral"])
def test_prompts_that_begin_alike_run_their_beginning_once(kind: str, tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = model_of(kind)
    shots = "Question: 1 plus 1?\nAnswer: 2\n\n" * 3
    requests, _ = build_requests(tokenizer, [(i, shots + prompt) for i, prompt in PROMPTS] + [("only", shots + "2")])
    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda m, a, k: seen.append(tuple(k["input_ids"].shape)), with_kwargs=True)
    out = generate(model, tokenizer, requests, SamplingParams(max_new_tokens=30, temperature=0.0), batch_size=6)
    assert seen[:2] == [(1, len(shots)), (6, max(len(r.prompt_ids) for r in requests) - len(shots))]
    ids = {r.id: r.prompt_ids for r in requests}
    for g in out:
        assert list(g.token_ids) == plain_generate(model, tokenizer, ids[g.id], 30), g.id
    alone = generate(model, tokenizer, requests[:1], SamplingParams(max_new_tokens=30, temperature=0.0))
    assert alone[0].token_ids == next(g.token_ids for g in out if g.id == alone[0].id)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("shots", ["", "Question: 1 plus 1?\nAnswer: 2\n\n" * 3], ids=["alone", "shared"])
def test_repetition_penalty_equals_transformers(kind: str, shots: str, tokenizer) -> None:  # type: ignore[no-untyped-def]
    """Rows of unlike length share a batch and a beginning, and leave at different steps; padding is never counted."""
    model = model_of(kind)
    requests, _ = build_requests(tokenizer, [(i, shots + prompt) for i, prompt in PROMPTS])
    params = SamplingParams(max_new_tokens=40, temperature=0.0, repetition_penalty=1.3, stop=("\x00",))
    out = generate(model, tokenizer, requests, params, batch_size=5)
    free = generate(model, tokenizer, requests, SamplingParams(max_new_tokens=40, temperature=0.0), batch_size=5)
    ids = {r.id: r.prompt_ids for r in requests}
    for g in out:
        expected = plain_generate(model, tokenizer, ids[g.id], 40, repetition_penalty=1.3)
        assert list(g.token_ids) == expected[: g.num_tokens], g.id
        assert g.num_tokens == len(expected) or "\x00" in tokenizer.decode(g.token_ids)
    assert [g.token_ids for g in out] != [g.token_ids for g in free]


def test_repetition_penalty_makes_draws_that_do_not_depend_on_the_batch(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = ending_model()
    requests, _ = build_requests(tokenizer, PROMPTS, num_generations=3)
    params = SamplingParams(max_new_tokens=30, temperature=1.0, repetition_penalty=1.2, tie_margin=0.05)
    stats = EngineStats()
    whole = {(g.id, g.sample): g for g in generate(model, tokenizer, requests, params, 15, stats=stats)}
    assert stats.redecided > 5, "draws that the row decides alone know its history too"
    assert len({g.num_tokens for g in whole.values()}) > 3, "rows leave at different steps"
    for size in (1, 4):
        assert {(g.id, g.sample): g for g in generate(model, tokenizer, requests, params, size)} == whole


def test_what_rows_share_leaves_each_a_token_of_its_own() -> None:
    long = (1,) * 70
    assert shared_length([long, long]) == 69
    assert shared_length([(*long, 2), (*long, 3, 4)]) == 70
    assert shared_length([long]) == 0, "a single row shares with nobody"
    assert shared_length([(1,) * 60 + (2,), (1,) * 60 + (3,)]) == 0, "too short to be worth a forward"


def ending_model(kind: str = "llama"):  # type: ignore[no-untyped-def]
    """A model that often ends a sequence, so that rows leave at many different steps."""
    model = tiny_model(kind, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
        model.lm_head.weight[257] *= 2.0
    return model


def test_rows_leave_when_they_end(tokenizer, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    model = ending_model()
    widths = []
    batched = engine._batched_logits
    monkeypatch.setattr(
        engine, "_batched_logits", lambda m, ids, *rest: (widths.append(len(ids)), batched(m, ids, *rest))[1]
    )
    requests, _ = build_requests(tokenizer, [(str(i), "x" * (1 + i % 5)) for i in range(20)])
    stats = EngineStats()
    out = generate(model, tokenizer, requests, SamplingParams(max_new_tokens=60, temperature=1.0), 20, stats=stats)
    assert widths == sorted(widths, reverse=True) and widths[0] == 20 and len(set(widths)) > 3
    assert sum(widths) == stats.draws == stats.tokens == sum(g.num_tokens for g in out)
    for g in out:
        assert (g.token_ids[-1] == 257) == (g.finish_reason == "stop")
        assert 257 not in g.token_ids[:-1] and "<eos>" not in g.completion
        assert g.num_tokens == 60 or g.finish_reason == "stop"


def test_leaving_moves_keep_every_open_row_once() -> None:
    for bits in range(2**6):
        alive = [bool(bits >> i & 1) for i in range(6)]
        moves, order = leaving_moves(alive)
        rows = list(range(6))
        for source, target in moves:
            rows[target] = rows[source]
        assert rows[: len(order)] == order
        assert sorted(order) == [i for i in range(6) if alive[i]]


def test_stop_string_is_cut_and_its_tokens_are_kept(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = model_of("llama")
    request = build_requests(tokenizer, PROMPTS[:1])[0]
    free = generate_batch(model, tokenizer, request, SamplingParams(max_new_tokens=60, temperature=0.9))[0]
    stop = re.findall(r"[ -~]{2}", free.completion[10:])[0]  # two characters of one byte each, from the middle
    params = SamplingParams(max_new_tokens=60, temperature=0.9, stop=("never this", stop))
    cut = generate_batch(model, tokenizer, request, params)[0]
    assert cut.completion == free.completion[: free.completion.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.token_ids == free.token_ids[: cut.num_tokens] and cut.num_tokens < free.num_tokens
    assert tokenizer.decode(cut.token_ids).endswith(stop)


def test_sampled_rows_do_not_depend_on_their_neighbours_or_processes(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = ending_model("qwen2")
    requests, _ = build_requests(tokenizer, PROMPTS, num_generations=3)
    params = SamplingParams(max_new_tokens=30, temperature=0.8, top_p=0.95)
    whole = {(g.id, g.sample): g for g in generate(model, tokenizer, requests, params, batch_size=15)}
    assert len(whole) == 15
    for size in (1, 4):
        shuffled = list(reversed(requests))
        parts = [generate(model, tokenizer, shuffled, params, size, rank=r, world_size=2) for r in range(2)]
        assert {(g.id, g.sample): g for part in parts for g in part} == whole
    assert len({whole["a", s].token_ids for s in range(3)}) == 3, "samples of a prompt must differ"
    other = generate(model, tokenizer, requests, SamplingParams(**{**params.__dict__, "seed": 1}), batch_size=15)
    assert any(g.token_ids != whole[g.id, g.sample].token_ids for g in other)


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.8}, {"min_p": 0.05}], ids=str)
def test_samples_follow_the_distribution_of_the_model(settings: dict, tokenizer) -> None:  # type: ignore[no-untyped-def]
    model, draws = ending_model(), 3000
    requests, _ = build_requests(tokenizer, PROMPTS[:1], num_generations=draws)
    params = SamplingParams(max_new_tokens=1, temperature=0.7, **settings)
    done = generate(model, tokenizer, requests, params, batch_size=1000)
    with torch.no_grad():
        logits = model(torch.tensor([requests[0].prompt_ids])).logits[0, -1].double() / 0.7
    probability = torch.softmax(logits, -1)
    order = probability.sort(descending=True)
    if "top_p" in settings:
        kept = order.indices[order.values.cumsum(0) - order.values < settings["top_p"]]
    else:
        kept = order.indices[order.values >= settings.get("min_p", 0.0) * order.values[0]]
    expected = torch.zeros(258, dtype=torch.float64)
    expected[kept] = draws * probability[kept] / probability[kept].sum()
    seen = torch.bincount(torch.tensor([g.token_ids[0] for g in done]), minlength=258).double()
    assert seen[expected == 0].sum() == 0
    usual = expected >= 5  # rarer tokens are counted together
    rare = torch.stack([seen[~usual].sum(), expected[~usual].sum()])
    observed, hoped = [*seen[usual].tolist()], [*expected[usual].tolist()]
    if rare[1] > 0:
        observed, hoped = [*observed, float(rare[0])], [*hoped, float(rare[1])]
    assert len(hoped) > 5 and scipy.stats.chisquare(observed, hoped).pvalue > 1e-3


def test_bf16_result_depends_on_the_batch_alone(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = ending_model().to(torch.bfloat16)
    requests, _ = build_requests(tokenizer, PROMPTS, num_generations=2)
    params = SamplingParams(max_new_tokens=30, temperature=0.8, top_p=0.9)
    stats = EngineStats()
    one = generate(model, tokenizer, requests, params, batch_size=3, stats=stats)
    two = [g for r in range(2) for g in generate(model, tokenizer, requests, params, 3, rank=r, world_size=2)]
    assert stats.redecided == 0
    assert sorted(map(repr, one)) == sorted(map(repr, two))


def test_finished_batches_are_skipped_and_begun_ones_done_whole(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    requests, _ = build_requests(tokenizer, PROMPTS)
    params = SamplingParams(max_new_tokens=4)
    batches = []
    done = {("b", 0), ("d", 0), ("a", 0)}  # batches of two: b d | a e | c
    out = generate(model, tokenizer, requests, params, 2, finished=done, on_batch=batches.append)
    assert [[g.id for g in b] for b in batches] == [["a", "e"], ["c"]]
    assert [g for b in batches for g in b] == out


def test_record_has_the_keys_of_the_corpus(tokenizer) -> None:  # type: ignore[no-untyped-def]
    request = build_requests(tokenizer, PROMPTS[:1])[0]
    record = generate_batch(tiny_model(), tokenizer, request, SamplingParams(max_new_tokens=3))[0].record()
    keys = ["id", "sample", "prompt", "completion", "token_ids", "num_tokens", "finish_reason", "seed"]
    assert list(record) == keys
    assert record["token_ids"] == list(record["token_ids"]) and record["num_tokens"] == len(record["token_ids"])


def test_training_mode_and_gradients_are_restored_also_after_an_error(tokenizer, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(attention_dropout=0.5).train()
    model.lm_head.eval()
    request = build_requests(tokenizer, PROMPTS[:1])[0]
    before = {name: module.training for name, module in model.named_modules()}
    params = SamplingParams(max_new_tokens=8)
    assert generate_batch(model, tokenizer, request, params) == generate_batch(model, tokenizer, request, params)
    assert {name: module.training for name, module in model.named_modules()} == before

    def broken(*args: object) -> torch.Tensor:
        raise RuntimeError("broken")

    monkeypatch.setattr(engine, "_batched_logits", broken)
    with pytest.raises(RuntimeError, match="broken"):
        generate_batch(model, tokenizer, request, params)
    assert {name: module.training for name, module in model.named_modules()} == before


def test_long_prompts_lose_their_middle_or_are_rejected(tokenizer) -> None:  # type: ignore[no-untyped-def]
    prompts = [("long", "0123456789"), ("short", "abc")]
    requests, counts = build_requests(tokenizer, prompts, max_prompt_length=4)
    assert tokenizer.decode(requests[0].prompt_ids) == "0189"
    assert counts == {"prompts": 2, "truncated": 1, "rejected": 0, "requests": 2}
    requests, counts = build_requests(tokenizer, prompts, 2, max_prompt_length=4, on_long="reject")
    assert [(r.id, r.sample) for r in requests] == [("short", 0), ("short", 1)]
    assert counts == {"prompts": 2, "truncated": 0, "rejected": 1, "requests": 2}


def test_chat_format_uses_the_template() -> None:
    from tests.conftest import byte_tokenizer

    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"
    requests, _ = build_requests(tokenizer, [("a", "Hi")], prompt_format="chat")
    assert tokenizer.decode(requests[0].prompt_ids) == "[user]Hi[answer]"
    assert requests[0].prompt == "Hi"


def test_batches_are_the_same_for_any_order_and_keep_the_budget() -> None:
    requests = [Request(str(i), "", (0,) * (1 + 7 * i % 13), s) for i in range(30) for s in range(2)]
    batches = form_batches(requests, batch_size=7)
    assert form_batches(requests[::-1], batch_size=7) == batches
    assert [len(b) for b in batches] == [7] * 8 + [4]
    keys = [(len(r.prompt_ids), r.id, r.sample) for b in batches for r in b]
    assert keys == sorted(keys) and len(keys) == 60
    budgeted = form_batches(requests, token_budget=100, max_new_tokens=10)
    assert all(len(b) == 1 or len(b) * (max(len(r.prompt_ids) for r in b) + 10) <= 100 for b in budgeted)
    assert sum(len(b) for b in budgeted) == 60 and len(budgeted[0]) > len(budgeted[-2])
    assert [len(b) for b in form_batches(requests, token_budget=1)] == [1] * 60
    assert [len(b) for b in form_batches(requests)] == [60]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"prompts": []}, "no prompts"),
        ({"prompts": [("x", "a"), ("y", "b"), ("x", "c")]}, "1 example ids occur more than once, e.g. 'x'"),
        ({"prompts": [("x", "")]}, "example 'x' has no tokens"),
        ({"prompts": [("x", "abcdef")], "max_prompt_length": 3, "on_long": "reject"}, "max_prompt_length=3"),
        ({"prompts": [("x", "a")], "on_long": "cut"}, "on_long='cut'"),
        ({"prompts": [("x", "a")], "num_generations": 0}, "num_generations=0"),
        ({"prompts": [("x", "a")], "prompt_format": "alpaca"}, "prompt_format='alpaca'"),
        ({"prompts": [("x", "a")], "prompt_format": "chat"}, "prompt_format='chat', but the tokenizer has no"),
    ],
)
def test_bad_requests(call: dict, message: str, tokenizer) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=re.escape(message)):
        build_requests(tokenizer, **call)


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"token_budget": -1}])
def test_bad_batch_size(bad: dict) -> None:
    (name, value), = bad.items()  # fmt: skip
    with pytest.raises(UserError, match=f"{name}={value}"):
        form_batches([Request("a", "", (1,))], **bad)


def test_prompt_longer_than_the_context(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(max_position_embeddings=20)
    requests, _ = build_requests(tokenizer, [("fits", "x" * 12), ("long", "x" * 13)])
    with pytest.raises(UserError, match=r"'long' has 13 tokens; with max_new_tokens=8 .* context of 20.* to 12 tokens"):
        generate(model, tokenizer, requests, SamplingParams(max_new_tokens=8))
    with pytest.raises(UserError, match="'long' has 13 tokens"):
        generate_batch(model, tokenizer, requests[1:], SamplingParams(max_new_tokens=8))
    assert len(generate(model, tokenizer, requests[:1], SamplingParams(max_new_tokens=8))) == 1
