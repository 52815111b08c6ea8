"""Log-likelihoods against a plain loop that runs one text at a time and reads all logits."""

from __future__ import annotations

import pytest
import torch
from tokenizers import AddedToken, processors

from spd_lightning.evaluation.continuations import LikelihoodItem
from spd_lightning.evaluation.likelihood import score_choices
from tests.conftest import byte_tokenizer, tiny_model
from tests.text_tokenizers import sentencepiece_tokenizer

SHOTS = {g: f"About {g}.\n" + "".join(f"{g} {i}?\nAnswer: A\n\n" for i in range(4)) for g in ("cats", "dogs")}


def items(choices: tuple[str, ...] = (" A", " B", " C", " D")) -> list[LikelihoodItem]:
    return [
        LikelihoodItem(f"{g}/{i}", f"{shots}{g} {'very ' * (i * 3 % 5)}{i}?\nAnswer:", choices, shots)
        for g, shots in SHOTS.items()
        for i in range(7)
    ]


def plain_loop(model, tokenizer, item: LikelihoodItem) -> list[float]:  # type: ignore[no-untyped-def]
    found = []
    prompt = tokenizer(item.prompt)["input_ids"]
    for choice in item.choices:
        ids = torch.tensor([tokenizer(item.prompt + choice)["input_ids"]])
        with torch.no_grad():
            log_probs = model(ids).logits[0].log_softmax(-1)
        found.append(float(sum(log_probs[t - 1, ids[0, t]] for t in range(len(prompt), ids.shape[1]))))
    return found


def one_token_letters():  # type: ignore[no-untyped-def]
    """The byte tokenizer with " A" to " D" as tokens of their own, as in real vocabularies."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(f" {letter}", special=False) for letter in "ABCD"])
    return tokenizer


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_several_tokens_equal_the_plain_loop(kind: str, tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(kind)
    for item, score in zip(items(), _in_order(score_choices(model, tokenizer, items()))):
        assert score.id == item.id
        assert score.num_tokens == (2, 2, 2, 2)  # a space and a letter: bytes
        assert score.log_likelihoods == pytest.approx(plain_loop(model, tokenizer, item), abs=1e-4)
        assert len(set(score.log_likelihoods)) == 4, "equal likelihoods would mean that nothing was compared"


def test_single_tokens_equal_the_plain_loop_and_take_one_row() -> None:
    letters = one_token_letters()
    model = tiny_model(vocab_size=len(letters))
    seen = []
    handle = model.register_forward_pre_hook(lambda m, a, k: seen.append(tuple(k["input_ids"].shape)), with_kwargs=True)
    scores = _in_order(score_choices(model, letters, items()))
    handle.remove()
    assert sum(rows for rows, _ in seen) == 14 + 2, "one row a question and one for each of two shared prefixes"
    assert max(width for rows, width in seen if rows > 1) < 40, "the shared prefix must not be run again"
    for item, score in zip(items(), scores):
        assert score.num_tokens == (1, 1, 1, 1)
        assert score.log_likelihoods == pytest.approx(plain_loop(model, letters, item), abs=1e-4)


@pytest.mark.parametrize(("batch_size", "budget"), [(1, 4096), (3, 4096), (None, 100), (None, 1)])
def test_batches_do_not_change_the_scores(tokenizer, batch_size: int | None, budget: int) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    whole = _in_order(score_choices(model, tokenizer, items()))
    parts = _in_order(score_choices(model, tokenizer, items(), batch_size=batch_size, token_budget=budget))
    for a, b in zip(whole, parts, strict=True):
        assert a.log_likelihoods == pytest.approx(b.log_likelihoods, abs=1e-4)


def test_two_ranks_do_exactly_what_one_does(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    one = score_choices(model, tokenizer, items(), batch_size=2)
    two = [score_choices(model, tokenizer, items(), batch_size=2, rank=r, world_size=2) for r in range(2)]
    assert _in_order(one) == _in_order(two[0] + two[1])
    assert two[0] and two[1]


def test_bf16_letters_are_told_apart_by_a_float32_vocabulary_projection() -> None:
    letters = one_token_letters()
    model = tiny_model(vocab_size=len(letters), tie_word_embeddings=False).to(torch.bfloat16)
    with torch.no_grad():  # letters that differ by one step of one weight, under logits whose own steps are larger
        row = (model.lm_head.weight[-4] * 100).clone()
        model.lm_head.weight[-4:] = row
        for k in range(4):
            model.lm_head.weight[k - 4, k] *= 1 + 2**-7
    batch = [LikelihoodItem(str(i), f"Question {i}?\nAnswer:", (" A", " B", " C", " D")) for i in range(9)]
    ties = 0
    for item, score in zip(batch, _in_order(score_choices(model, letters, batch, batch_size=1)), strict=True):
        ids = torch.tensor([letters(item.prompt)["input_ids"]])
        with torch.inference_mode():
            hidden = model.model(ids).last_hidden_state[0, -1]
            coarse = model(ids).logits[0, -1, -4:]
        precise = (model.lm_head.weight.float() @ hidden.float()).log_softmax(-1)[-4:]
        assert score.log_likelihoods == pytest.approx(precise.tolist(), abs=0.02)
        assert len(set(score.log_likelihoods)) == 4
        ties += len(set(coarse.tolist())) < 4
    assert ties > 4, "the model's own logits cannot tell these letters apart"
    assert not model.lm_head._forward_hooks


def test_a_target_of_many_tokens_and_items_without_a_group(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    targets = [LikelihoodItem(str(i), "Code:" * (i + 1), (" print(1)" * (3 - i),)) for i in range(3)]
    for item, score in zip(targets, _in_order(score_choices(model, tokenizer, targets))):
        assert score.num_tokens == (len(item.choices[0]),)
        assert score.log_likelihoods == pytest.approx(plain_loop(model, tokenizer, item), rel=1e-4)


def test_a_text_beyond_the_context_loses_the_middle_of_its_prompt(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(max_position_embeddings=32)
    item = LikelihoodItem("x", "a" * 15 + "c" * 100 + "b" * 16, (" A", " B"), "g")
    short = LikelihoodItem("y", "a" * 15 + "b" * 16, (" A", " B"))
    long, kept = score_choices(model, tokenizer, [item], max_length=32), score_choices(model, tokenizer, [short])
    assert long[0].truncated and not kept[0].truncated
    assert long[0].log_likelihoods == pytest.approx(kept[0].log_likelihoods, abs=1e-5)
    target = LikelihoodItem("z", "abc", ("d" * 100,))  # longer than the context by itself
    (found,) = score_choices(model, tokenizer, [target], max_length=32)
    assert found.truncated and found.num_tokens == (32,)


@pytest.mark.parametrize("append_eos", [False, True])
def test_special_tokens_stay_before_a_long_text_and_are_not_scored_behind_it(append_eos: bool) -> None:
    tokenizer, model = sentencepiece_tokenizer(append_eos), tiny_model(vocab_size=512)
    item = LikelihoodItem("x", "Q: " + "12" * 40 + " Answer:", (" A", " 7\n"))
    (found,) = score_choices(model, tokenizer, [item], max_length=20)
    plain = sentencepiece_tokenizer()
    for choice, value, count in zip(item.choices, found.log_likelihoods, found.num_tokens):
        ids = plain(item.prompt + choice)["input_ids"]
        scored = len(ids) - len(plain(item.prompt)["input_ids"])
        room = 21 - 1 - scored
        cut = ids[:1] + ids[1:][: room // 2] + ids[-scored - (room - room // 2) :]
        assert cut[0] == plain.bos_token_id and len(cut) == 21 and count == scored
        with torch.no_grad():
            log_probs = model(torch.tensor([cut])).logits[0].log_softmax(-1)
        expected = sum(float(log_probs[len(cut) - k - 1, cut[len(cut) - k]]) for k in range(1, scored + 1))
        assert value == pytest.approx(expected, abs=1e-4)


def test_white_space_at_the_end_of_a_target_is_scored() -> None:
    """Roberta's way of offsets leaves white space out of them: a token of white space alone has no characters."""
    trimming, model = byte_tokenizer(), tiny_model()
    trimming.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    item = LikelihoodItem("x", "Code:", (" a ",))
    found, plain = (score_choices(model, t, [item])[0] for t in (trimming, byte_tokenizer()))
    assert found == plain and found.num_tokens == (3,)


def test_an_empty_continuation_is_refused(tokenizer) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"'x'.*'' has no tokens"):
        score_choices(tiny_model(), tokenizer, [LikelihoodItem("x", "prompt", ("",))])


def test_no_hook_stays_behind_even_after_an_error() -> None:
    model, larger = tiny_model(), byte_tokenizer()
    larger.add_tokens(["<new>"])  # a token that the model does not know: its embedding raises inside the forward
    before = model(torch.tensor([[1, 2, 3]])).logits
    with pytest.raises(IndexError):
        score_choices(model, larger, [LikelihoodItem("x", "<new>" * 3, (" A",))])
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert torch.equal(before, model(torch.tensor([[1, 2, 3]])).logits)


def _in_order(scores):  # type: ignore[no-untyped-def]
    return sorted(scores, key=lambda s: s.id)


@pytest.mark.slow
def test_pretrained_models_on_mmlu_equal_the_plain_loop(pretrained: str, data_dir: str) -> None:
    """Five solved examples, the letters as single tokens: within 1e-3 in float32, and the same letter."""
    from spd_lightning.model.load import load_model, load_tokenizer
    from spd_lightning.tasks import load_task

    model, tokenizer = load_model(pretrained, torch.float32), load_tokenizer(pretrained)
    examples = load_task("mmlu", data_dir).benchmark(limit=3).examples
    questions = [LikelihoodItem(e.id, e.full_prompt(), e.choices, e.full_prompt()[: -len(e.prompt)]) for e in examples]
    for item, score in zip(questions, _in_order(score_choices(model, tokenizer, questions)), strict=True):
        plain = plain_loop(model, tokenizer, item)
        assert score.num_tokens == (1, 1, 1, 1)
        assert score.log_likelihoods == pytest.approx(plain, abs=1e-3)
        assert plain.index(max(plain)) == score.log_likelihoods.index(max(score.log_likelihoods))
