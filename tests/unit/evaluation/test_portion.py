"""One process's share in three functions: what is asked is the same on every process, what is answered is dealt."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from spd_lightning.errors import UserError
from spd_lightning.evaluation.portion import Answers, Way, answer, ask, judge, target_losses
from spd_lightning.evaluation.scores import score_records
from spd_lightning.generation.requests import Generation
from spd_lightning.model.anatomy import context_of
from spd_lightning.scoring.counting import of_marked_number
from spd_lightning.tasks.task import Benchmark, Example
from tests.conftest import byte_tokenizer, tiny_model


def make(answer_type: Any, output_type: Any, n: int = 5, **changes: Any) -> Benchmark:
    expected = {"number": "7", "letter": "B", "likelihood": ""}[answer_type]
    examples = tuple(
        Example(
            id=f"e{i}",
            prompt=f"Question {i}\n",
            target=f" answer {i}",
            expected=expected,
            shots=("one shot\n", "another\n"),
            choices=(" A", " B") if output_type == "choices" else (),
        )
        for i in range(n)
    )
    return Benchmark("t", "other", "standard", answer_type, output_type, examples, 6, **changes)


def test_what_is_asked_depends_on_the_form_of_the_benchmark_alone() -> None:
    tokenizer = byte_tokenizer()
    numbers = ask(make("number", "generate"), tokenizer, 256, Way())
    assert (len(numbers.items), len(numbers.requests)) == (0, 5)
    letters = ask(make("letter", "choices"), tokenizer, 256, Way())
    assert (len(letters.items), len(letters.requests)) == (5, 0)
    assert letters.items[0].choices == (" A", " B") and letters.items[0].prompt.endswith("Question 0\n")
    losses = ask(make("likelihood", "target_nll"), tokenizer, 256, Way())
    assert (len(losses.items), len(losses.requests)) == (5, 5)
    assert losses.items[3].choices == (" answer 3",)
    for rank in (0, 1):
        assert ask(make("number", "generate"), tokenizer, 256, Way(rank=rank, world_size=2)) == numbers


def test_shots_are_dropped_to_fit_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer, benchmark = byte_tokenizer(), make("number", "generate")
    with caplog.at_level(logging.WARNING):
        found = ask(benchmark, tokenizer, 32, Way(rank=1, world_size=2))
        assert not caplog.records
        assert ask(benchmark, tokenizer, 32, Way()) == found
    assert found.fewer_shots == 5 and found.truncated == 0
    assert [r.prompt.count("shot") + r.prompt.count("another") for r in found.requests] == [1] * 5
    assert "5 of 5 prompts keep fewer than" in caplog.text
    with pytest.raises(UserError, match="example 'e0' with 2 solved examples exceeds the model's context of 32 tokens"):
        ask(benchmark, tokenizer, 32, Way(short_context="error"))
    with pytest.raises(UserError, match="t needs 6 new tokens, the model's context is 6"):
        ask(benchmark, tokenizer, 6, Way())


def test_each_process_answers_its_part_and_tells_how_far_it_is() -> None:
    model, tokenizer = tiny_model(), byte_tokenizer()
    benchmark, context = make("likelihood", "target_nll"), context_of(model.config)
    told: list[tuple[Any, ...]] = []
    parts = []
    for rank in (0, 1):
        way = Way(rank=rank, world_size=2, batch_size=2, progress=lambda *state: told.append(state))
        questions = ask(benchmark, tokenizer, context, way)
        parts.append(answer(model, tokenizer, benchmark, questions, context, way))
    whole = answer(model, tokenizer, benchmark, ask(benchmark, tokenizer, context, Way(batch_size=2)), context, Way())
    assert sorted(g.id for part in parts for g in part.generations) == [f"e{i}" for i in range(5)]
    assert sorted(s.id for part in parts for s in part.likelihoods) == [f"e{i}" for i in range(5)]
    assert sum(part.new_tokens for part in parts) == whole.new_tokens > 0
    assert told[-1][0] == "t" and sum(tokens for *_, tokens in told) == sum(
        g.num_tokens for part in parts for g in part.generations
    )
    losses = target_losses(benchmark, whole)
    assert set(losses) == {f"e{i}" for i in range(5)} and losses["e0"]["chars"] == len(" answer 0")


def test_completions_are_judged_without_any_model() -> None:
    generations = [Generation(f"e{i}", 0, "", text, (), 0, "stop", 0) for i, text in enumerate(("It is 7.", "8", ""))]
    records = judge(make("number", "generate"), Answers(generations=generations), Way())
    assert [(r["id"], r["answer"], r["correct"]) for r in records] == [
        ("e0", "7", True),
        ("e1", "8", False),
        ("e2", None, False),
    ]
    assert target_losses(make("number", "generate"), Answers()) == {}


def test_under_the_published_protocol_the_next_question_is_written_and_not_read() -> None:
    """It stops nowhere: the completion stands whole, for the script's reading too; a person reads up to the turn."""
    benchmark = replace(make("number", "generate", 2), protocol="paper", script=True)
    texts = [" so #### 7\n\nQuestion: And 4 + 5?\nAnswer: #### 9", " #### 9\n\nQuestion: And 3 + 4?\nAnswer: #### 7"]
    written = [Generation(f"e{i}", 0, "", text, (1,), 1, "length", 42) for i, text in enumerate(texts)]
    records = judge(benchmark, Answers(generations=written), Way())
    assert [(r["answer"], r["correct"], r["script_correct"]) for r in records] == [
        ("7", True, False),
        ("9", False, True),
    ]
    assert [r["completion"] for r in records] == texts
    values = {s.metric: s.value for s in score_records(records, "number", method="m", task="t", protocol="paper")}
    assert values == {"exact_match_flexible": 0.5, "exact_match_strict": 0.5, "exact_match_flexible_script": 0.5}
    assert [of_marked_number([r])[0] for r in records] == [1.0, 0.0]
