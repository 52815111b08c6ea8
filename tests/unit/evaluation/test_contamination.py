"""What a model knows by heart, with a model that knows one question and one that knows none."""

from __future__ import annotations

from typing import Any

import pytest

from spd_lightning.evaluation import contamination
from spd_lightning.evaluation.contamination import MOST_TOKENS, Recall, in_two, recall, words_right
from spd_lightning.generation.requests import Generation
from spd_lightning.tasks.task import Example
from tests.conftest import tiny_model


def example(name: str, question: str) -> Example:
    return Example(name, f"Question: {question}\nAnswer:", " 1", meta={"question": question})


def test_a_question_is_cut_between_words() -> None:
    assert in_two("one two  three four five") == ("one two  three", " four five")
    assert in_two("one") == ("one", "") and in_two("") == ("", "") and in_two("one two") == ("one", " two")
    assert "".join(in_two(" a\nb c ")) == " a\nb c "


def test_words_are_right_up_to_the_first_wrong_one() -> None:
    assert words_right(" How many are left?", " how many, are LEFT? Answer: 3") == (4, 4)
    assert words_right(" How many are left?", " How many were left?") == (2, 4)
    assert words_right(" How many", "") == (0, 2) and words_right(" How many", " How") == (1, 2)


def test_recall_of_a_model_that_knows_one_of_two(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    """The engine's part is played here: it is handed starts alone, and room for the longest rest."""
    asked: list[Any] = []

    def knows_one(model: Any, tokenizer: Any, requests: Any, params: Any, batch_size: Any) -> list[Generation]:
        asked.append((requests, params))
        texts = {"a": " eight apples and five pears. And more", "b": " eight cats"}
        return [Generation(r.id, 0, r.prompt, texts[r.id], (), 0, "stop", 0) for r in reversed(requests)]

    monkeypatch.setattr(contamination, "generate", knows_one)
    tests = [
        example("a", "Anna the farmer went to town with eight apples and five pears."),
        example("b", "Ben has four dogs and eight mice, one bird."),
        example("c", "Why?"),
    ]
    found = recall(tiny_model(), tokenizer, tests)
    assert found == Recall(2, 1, pytest.approx((1 + 1 / 4) / 2))
    requests, params = asked[0]
    assert [r.prompt for r in requests] == ["Anna the farmer went to town with", "Ben has four dogs and"]
    assert params.temperature == 0 and 20 < params.max_new_tokens <= MOST_TOKENS + 4
    assert recall(tiny_model(), tokenizer, tests[2:]) == Recall(0, 0, 0.0)


def test_a_long_rest_is_asked_for_in_whole_words(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    """A model that writes all of it has all of it right, though the limit falls within a word."""
    question = " ".join(["word", *(f"number{i}" for i in range(60))])
    _, rest = in_two(question)
    ids = tokenizer(rest, add_special_tokens=False)["input_ids"]
    shown = tokenizer.decode(ids[:MOST_TOKENS])
    assert len(ids) > MOST_TOKENS and shown.split()[-1] not in rest.split(), "cut within a word"

    def knows_all(model: Any, tokenizer: Any, requests: Any, params: Any, batch_size: Any) -> list[Generation]:
        return [Generation(r.id, 0, r.prompt, rest, (), 0, "length", 0) for r in requests]

    monkeypatch.setattr(contamination, "generate", knows_all)
    assert recall(tiny_model(), tokenizer, [example("a", question)]) == Recall(1, 1, 1.0)


def test_a_model_that_knows_nothing_completes_nothing(tokenizer: Any) -> None:
    found = recall(tiny_model(), tokenizer, [example(str(i), f"one two three four five six {i}") for i in range(3)])
    assert (found.questions, found.completed) == (3, 0) and found.words < 0.5
