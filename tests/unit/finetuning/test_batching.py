"""Training texts and batches: what is kept, that nothing is lost or counted twice, that a loader resumes anywhere."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from spd_lightning.errors import UserError
from spd_lightning.finetuning.batching import IGNORE_INDEX, TextLoader, make_train_loader, make_val_loader, packed_mask
from spd_lightning.finetuning.texts import TrainingText, split_validation, texts_from_corpus
from spd_lightning.generation.text import completion_text
from tests.conftest import byte_tokenizer, tiny_model
from tests.text_tokenizers import gluing_tokenizer, sentencepiece_tokenizer


def record(
    id: str, prompt: str, completion: str, ids: list[int], sample: int = 0, reason: str = "stop"
) -> dict[str, Any]:
    words = {"prompt": prompt, "completion": completion, "token_ids": ids, "finish_reason": reason}
    return {"id": id, "sample": sample, **words}


def texts(lengths: list[int], prompt: int = 2) -> list[TrainingText]:
    """Text i has the given number of tokens, all of them 1 + i (so a token tells its text)."""
    return [
        TrainingText(f"t{i}:0", (1 + i,) * prompt, (1 + i,) * (length - prompt)) for i, length in enumerate(lengths)
    ]


LENGTHS = [int(x) for x in torch.randint(3, 40, (101,), generator=torch.Generator().manual_seed(0))]


def loader(
    lengths: list[int] = LENGTHS, batch_size: int = 8, rank: int = 0, world_size: int = 1, **kw: Any
) -> TextLoader:
    return make_train_loader(
        texts(lengths), batch_size, kw.pop("max_length", 64), kw.pop("seed", 1), rank, world_size, 0, **kw
    )


def contents(batch: dict[str, Any]) -> list[int]:
    """Every real token of a batch, sorted: labels, and each text's first token once."""
    return sorted(batch["input_ids"][batch["input_ids"] != 0].tolist())


# -- texts ---------------------------------------------------------------------------------------------------------


def test_texts_hold_the_sampled_ids_with_their_end(tokenizer: Any) -> None:
    rows = [
        record("a", "Hi", " yo", [220, 5, 257]),
        record("a", "Hi", "", [257], 1),
        record("b", "X", "  ", [220, 220]),
    ]
    found, counts = texts_from_corpus(rows, tokenizer, vocab_size=258)
    hi, x = tuple(tokenizer("Hi")["input_ids"]), tuple(tokenizer("X")["input_ids"])
    assert found == [
        TrainingText("a:0", hi, (220, 5, 257)),
        TrainingText("a:1", hi, (257,)),
        TrainingText("b:0", x, (220, 220)),
    ]
    assert counts == {"texts": 3, "empty": 2}, "counted, and trained as the model stopped"
    batches = list(make_train_loader(found, 1, 64, 0, 0, 1, 256, loss_on="completion"))
    assert sorted(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in batches) == [1, 2, 3]


def test_an_engine_that_keeps_the_end_to_itself(tokenizer: Any) -> None:
    found, counts = texts_from_corpus([record("a", "Hi", "", []), record("b", "Hi", "", [], 0, "length")], tokenizer)
    assert [t.completion_ids for t in found] == [(257,), ()] and counts == {"texts": 2, "empty": 2}


@pytest.mark.parametrize("tokenizer_of", [byte_tokenizer, gluing_tokenizer, sentencepiece_tokenizer])
@pytest.mark.parametrize(
    ("completion", "stop"), [(" 7.", "\nQ"), ("    return 1", "\n\n"), (" 你", "好"), ("", " A"), ("  ", "\n")]
)
def test_an_end_of_sequence_takes_the_place_of_a_stop_string(tokenizer_of: Any, completion: str, stop: str) -> None:
    tokenizer = tokenizer_of()
    prompt = tokenizer("Hi:")["input_ids"]
    sampled = tokenizer("Hi:" + completion + stop)["input_ids"][len(prompt) :]
    other = [record("b", "Hi:", "x", [*tokenizer("Hi:x")["input_ids"][len(prompt) :], tokenizer.eos_token_id])]
    other.append(record("c", "Hi:", "x" * 9, sampled, 0, "length"))
    rows = [record("a", "Hi:", completion, sampled), *other]
    found, counts = texts_from_corpus(rows, tokenizer, cut_at_stops=True)
    *before, end = found[0].completion_ids
    assert end == tokenizer.eos_token_id and counts["cut_at_stops"] == 1
    assert completion_text(tokenizer, prompt, before) == completion
    raw, counts = texts_from_corpus(rows, tokenizer)
    assert raw[0].completion_ids == tuple(sampled) and "cut_at_stops" not in counts
    assert raw[1:] == found[1:] and [t.completion_ids for t in raw[1:]] == [tuple(r["token_ids"]) for r in other]


def test_a_tokenizer_without_an_end_cannot_put_one_in_place() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"no end-of-sequence token .* .--data.stop_eos. false"):
        texts_from_corpus([record("a", "Hi", "y", [5])], tokenizer, cut_at_stops=True)


def test_prompt_ids_given_are_taken(tokenizer: Any) -> None:
    found, _ = texts_from_corpus([record("a", "Hi", "y", [5])], tokenizer, prompt_ids={"a": (7, 8)})
    assert found[0].prompt_ids == (7, 8)


def test_corpus_without_texts(tokenizer: Any) -> None:
    with pytest.raises(UserError, match=r"corpus is empty.*--data\.num_prompts"):
        texts_from_corpus([], tokenizer)


def test_token_outside_the_vocabulary(tokenizer: Any) -> None:
    with pytest.raises(UserError, match=r"Token id 300 of training text 'a:0' lies outside .* 258"):
        texts_from_corpus([record("a", "Hi", "y", [5, 300])], tokenizer, vocab_size=258)


@pytest.mark.parametrize(("fraction", "held"), [(0.0, 0), (0.01, 1), (0.2, 2), (0.99, 9)])
def test_validation_split(fraction: float, held: int) -> None:
    every = texts([5] * 10)
    train, val = split_validation(every, fraction, 3)
    assert len(val) == held and sorted([*train, *val], key=every.index) == every
    assert (train, val) == split_validation(every, fraction, 3)


def test_no_held_out_text_has_a_prompt_that_training_sees() -> None:
    prompts = [(1, i % 17) for i in range(20)]  # three examples ask what another asks
    every = [TrainingText(f"t{i}:{s}", p, (5, s)) for i, p in enumerate(prompts) for s in range(4)]
    for seed in range(20):
        train, val = split_validation(every, 0.25, seed)
        assert not {t.prompt_ids for t in train} & {t.prompt_ids for t in val}
        assert len({t.prompt_ids for t in val}) == 4 and len(train) + len(val) == 80
    assert len({tuple(t.id for t in split_validation(every, 0.25, seed)[1]) for seed in range(20)}) > 10
    with pytest.raises(UserError, match=r"val_fraction=0.5 holds out prompts, but all 4 texts have the same one"):
        split_validation(every[:4], 0.5, 0)
    assert split_validation(every[:4], 0.0, 0) == (every[:4], [])


@pytest.mark.parametrize("fraction", [1.0, -0.1])
def test_validation_split_out_of_range(fraction: float) -> None:
    with pytest.raises(UserError, match=f"val_fraction={fraction}"):
        split_validation(texts([5]), fraction, 3)


# -- batches -------------------------------------------------------------------------------------------------------


def test_labels_and_padding() -> None:
    (batch,) = loader([4, 3], 2, loss_on="completion")
    assert batch["input_ids"].tolist() == [[1, 1, 1, 1], [2, 2, 2, 0]]
    assert batch["labels"].tolist() == [[IGNORE_INDEX] * 2 + [1, 1], [IGNORE_INDEX] * 2 + [2, IGNORE_INDEX]]
    assert (batch["global_loss_tokens"], batch["num_tokens"], batch["num_padded"]) == (3, 7, 8)
    (batch,) = loader([4, 3], 2)
    assert batch["labels"].tolist() == [[IGNORE_INDEX, 1, 1, 1], [IGNORE_INDEX, 2, 2, IGNORE_INDEX]]
    assert batch["global_loss_tokens"] == 5


def test_label_of_a_pad_token_in_the_text_counts() -> None:
    """Padding is known by place, not by value: a model whose end-of-sequence token pads still learns to stop."""
    batch = next(iter(make_train_loader([TrainingText("a", (5,), (6, 0))], 1, 9, 0, 0, 1, 0)))
    assert batch["labels"].tolist() == [[IGNORE_INDEX, 6, 0]]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (2, 1), (3, 1), (1, 3), (2, 2)])
def test_every_text_once_and_global_batches_do_not_depend_on_the_split(
    world_size: int, accumulate: int, packing: bool
) -> None:
    whole = [contents(b) for b in loader()]
    parts = [
        list(loader(rank=r, world_size=world_size, accumulate=accumulate, packing=packing)) for r in range(world_size)
    ]
    assert {len(p) for p in parts} == {len(whole) * accumulate}
    for step, expected in enumerate(whole):
        micro = [p[i] for p in parts for i in range(step * accumulate, (step + 1) * accumulate)]
        assert sorted(token for b in micro for token in contents(b)) == expected
        labels = sum(int((b["labels"] != IGNORE_INDEX).sum()) for b in micro)
        assert {b["global_loss_tokens"] for b in micro} == {labels}
    assert sorted(t for b in whole for t in b) == sorted(1 + i for i, n in enumerate(LENGTHS) for _ in range(n))


def test_grouping_by_length_leaves_little_padding() -> None:
    batches = list(loader())
    real, padded = (sum(b[k] for b in batches) for k in ("num_tokens", "num_padded"))
    assert real == sum(LENGTHS) and 1 - real / padded < 0.2
    assert 1 - real / (len(LENGTHS) * max(LENGTHS)) > 0.4  # what padding to the longest text would leave


def test_order_follows_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        one = loader(seed=seed)
        one.set_epoch(epoch)
        return [contents(b) for b in one]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1) and order(1, 0) != order(2, 0)
    assert sorted(map(len, order(1, 0))) != [len(b) for b in order(1, 0)]  # not by length


def test_long_texts_lose_their_end_and_are_counted() -> None:
    cut = loader([10, 5, 12], 3, max_length=8)
    (batch,) = cut
    assert cut.num_truncated == 2 and batch["input_ids"].shape == (3, 8) and batch["num_tokens"] == 21


def test_texts_without_a_loss_token_are_dropped_and_counted() -> None:
    some = make_train_loader(texts([9, 3], prompt=2), 4, 2, 0, 0, 1, 0, loss_on="all")
    assert some.num_without_loss == 0
    one = make_train_loader([*texts([4]), TrainingText("x", (1,) * 8, (2,))], 4, 8, 0, 0, 1, 0, loss_on="completion")
    assert one.num_without_loss == 1 and len(one.rows) == 1
    with pytest.raises(UserError, match=r"None of the 1 training texts .*max_length=8 \(loss_on='completion'\)"):
        make_train_loader([TrainingText("x", (1,) * 8, (2,))], 4, 8, 0, 0, 1, 0, loss_on="completion")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_length": 1}, "max_length=1"),
        ({"loss_on": "prompt"}, "loss_on='prompt'"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        loader(**settings)


# -- packing -------------------------------------------------------------------------------------------------------


def test_packed_rows_hold_whole_texts_with_their_own_positions() -> None:
    (batch,) = loader([5, 4, 3, 2], 4, max_length=5, packing=True)  # rows of 4 x 5 tokens: all 14 fit into one
    assert batch["input_ids"].tolist() == [[1] * 5 + [2] * 4 + [3] * 3 + [4] * 2]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 0, 1]]
    assert [i for i, x in enumerate(batch["labels"][0].tolist()) if x == IGNORE_INDEX] == [0, 5, 9, 12]
    (batch,) = loader([5, 5, 5, 5, 5], 5, max_length=5, packing=True)
    assert batch["input_ids"].shape == (2, 20) and batch["segment_ids"][1].tolist() == [0] * 5 + [-1] * 15


def test_packed_mask_is_causal_within_a_text() -> None:
    mask = packed_mask(torch.tensor([[0, 0, 1, -1]]))
    assert mask.tolist() == [
        [
            [
                [True, False, False, False],
                [True, True, False, False],
                [False, False, True, False],
                [False, False, False, True],
            ]
        ]
    ]


# -- resume and validation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [0, 1, 7, 12, 13])
def test_loader_resumes_at_any_batch(done: int) -> None:
    straight = loader()
    straight.set_epoch(1)
    batches = [contents(b) for b in straight]
    first = loader()
    first.set_epoch(1)
    iterator = iter(first)
    for _ in range(done):
        next(iterator)
    second = loader()
    second.load_state_dict(first.state_dict())
    second.set_epoch(1)
    rest = [contents(b) for b in second]
    assert rest == (batches[done:] if done < len(batches) else batches)
    second.set_epoch(2)
    third = loader()
    third.set_epoch(2)
    assert [contents(b) for b in second] == [contents(b) for b in third]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"batch_size": 4}, "batch_size=8, this run has batch_size=4"),
        ({"seed": 2}, "seed=1, this run has seed=2"),
        ({"accumulate": 2}, "accumulate_grad_batches=1, this run has accumulate_grad_batches=2"),
        ({"lengths": LENGTHS[:-1]}, "num_texts=101, this run has num_texts=100"),
        ({"max_length": 8}, "num_tokens="),
    ],
)
def test_state_of_other_data_is_refused(other: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        loader(**other).load_state_dict(loader().state_dict())


def test_state_does_not_depend_on_the_number_of_processes() -> None:
    loader(rank=1, world_size=2).load_state_dict(loader().state_dict())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_covers_every_text_once_in_equally_many_batches(world_size: int) -> None:
    parts = [list(make_val_loader(texts(LENGTHS[:7]), 2, 64, r, world_size, 0)) for r in range(world_size)]
    assert len({len(p) for p in parts}) == 1
    seen = sorted(token for p in parts for b in p for token in contents(b))
    assert seen == sorted(1 + i for i, n in enumerate(LENGTHS[:7]) for _ in range(n))


def test_a_text_longer_than_the_model_takes_is_refused() -> None:
    texts = [TrainingText("x:0", tuple(range(6)), tuple(range(6)))]
    for context, max_length, told in (
        (12, 256, None),
        (11, 256, "takes 11. Set --model.max_length to 11"),
        (8, 8, None),
    ):
        loader = make_train_loader(texts, 1, max_length, 0, 0, 1, 0)
        with pytest.raises(UserError, match=told) if told else contextlib.nullcontext():
            loader.check(1, tiny_model(max_position_embeddings=context), "m")
