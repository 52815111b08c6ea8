"""What each stage says of its own result: figures, warnings from a threshold on, the end of a run on what is left."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from spd_lightning.errors import UserError
from spd_lightning.evaluation.health import benchmark_health, holds_gold, suite_health
from spd_lightning.evaluation.scores import BenchmarkResult
from spd_lightning.finetuning.health import training_health
from spd_lightning.generation.health import corpus_health, loops, refuse_few
from spd_lightning.health import Health, commonest, fewer_than_asked
from spd_lightning.subspace.calibration import calibration_health


def record(completion: str, n: int = 3, finish: str = "stop", ids: list[int] | None = None) -> dict[str, Any]:
    return {"completion": completion, "finish_reason": finish, "token_ids": ids or list(range(n)), "num_tokens": n}


def questions(asked: int | None = None, prompts: int = 4, golds: str = "", **more: Any) -> Any:
    counts = {"prompts": prompts, "truncated": 0, "rejected": 0, "requests": prompts}
    defaults = {"num_prompts": asked, "counts": counts, "prompt_format": "plain", "new_tokens": 32}
    examples = [SimpleNamespace(expected=golds or str(i)) for i in range(prompts)]
    return SimpleNamespace(**{**defaults, "num_generations": 1, "prompts": examples, **more})


def warned(health: Health, *words: str) -> bool:
    """One warning, with these words in it."""
    return len(health.warnings) == 1 and all(word in health.warnings[0] for word in words)


def test_a_sound_corpus_gives_figures_and_no_warning() -> None:
    health = corpus_health([record(t) for t in ("a", "b", "c", "d")], questions())
    assert health.figures == {"completions": 4, "empty": 0.0, "cut": 0.0, "looping": 0.0, "most_frequent": 0.25}
    assert health.warnings == ()
    assert health.line() == ("[generate] health: 4 completions, empty 0%, cut 0%, looping 0%, most frequent 25%")


def test_each_fault_of_a_corpus_is_warned_of_with_what_to_try() -> None:
    texts = ["a", "b", "c", "d"]
    empty = corpus_health([record(t) for t in ("a", " ", "", "d")], questions())
    assert (
        warned(empty, "2 of 4 completions are empty", "prompt_format=chat (--data.prompt_format)")
        and empty.figures["empty"] == 0.5
    )
    chat = corpus_health([record(""), record("b")], questions(prompts=2, prompt_format="chat"))
    assert warned(chat, "1 of 2") and "prompt_format" not in chat.warnings[0]
    cut = corpus_health([record(t, finish="length") for t in texts], questions())
    assert warned(cut, "100% of the completions are cut at 32 tokens", "--data.max_new_tokens")
    looping = corpus_health([record(t, ids=[1, 2] * 20) for t in texts], questions())
    assert warned(looping, "repeat themselves", "--data.repetition_penalty")
    alike = corpus_health([record("yes") for _ in texts], questions())
    assert warned(alike, "All completions are alike ('yes')")
    same = corpus_health([record("yes") for _ in texts], questions(golds="yes"))
    assert same.warnings == (), "as the answers are"
    fewer = corpus_health([record(t) for t in texts], questions(asked=9))
    assert warned(fewer, "data.num_prompts 9 asks for more prompts than the 4 taken")


def test_what_repeats_itself() -> None:
    assert loops([5, 6] * 8) and loops([1] * 16)
    assert not loops([5, 6] * 7) and not loops(list(range(100))), "too short to say; nothing stands twice"


def test_a_run_ends_instead_of_training_on_what_is_left() -> None:
    records = [record("a"), record(""), record(" "), record("")]
    with pytest.raises(UserError, match=r"Only 1 of 4 completions hold text \(3 are empty\), and min_completions="):
        refuse_few(records, questions(), 0.5)
    refuse_few(records, questions(), 0.25)
    with pytest.raises(UserError, match=r"1 are empty, 6 were left out by long_prompts \(--data.long_prompts\)"):
        refuse_few([record("a"), record("")], questions(prompts=8), 0.5)


def test_lost_calibration_examples_are_told() -> None:
    facts = {"num_examples": 3, "num_skipped": 1, "skipped": {"cut off": ["x"]}, "cut": ["x", "y"]}
    health = calibration_health(9, {**facts, "num_correctness_tokens": 7})
    assert health.figures == {"examples": 3, "lost": 0.25, "tokens_in_S": 7}
    assert [w.split(".")[0] for w in health.warnings] == [
        "subspace",
        "1 of 4 calibration examples are lost (cut off: 1)",
        "Spans of 1 example used are cut",
    ]
    sound = {"num_examples": 4, "num_skipped": 0, "skipped": {}, "cut": [], "num_correctness_tokens": 7}
    assert calibration_health(4, sound).warnings == ()


def result(answer_type: Any, rows: list[tuple[str, str | None, str, bool]], task: str = "custom") -> BenchmarkResult:
    keys = ("completion", "answer", "expected", "correct")
    records = [{"id": str(i), "sample": 0, **dict(zip(keys, row))} for i, row in enumerate(rows)]
    return BenchmarkResult(task, "base", "standard", answer_type, records)


def test_answers_that_cannot_be_read() -> None:
    rows = [("", None, "3", False), ("3", "3", "3", True)]
    health = benchmark_health(result("number", rows, "gsm8k"))
    assert warned(health, "1 of 2 answers cannot be read (1 empty completion)") and not health.figures["answers"] - 2
    assert benchmark_health(result("number", rows[1:] * 9)).warnings == ()


def test_a_constant_letter_is_told() -> None:
    golds = "ABCDABCD"
    same = [("", "B", gold, gold == "B") for gold in golds]
    assert warned(benchmark_health(result("letter", same, "mmlu")), "100% of the answers are the letter B")
    assert benchmark_health(result("letter", [("", g, g, True) for g in golds])).warnings == ()
    assert benchmark_health(result("letter", [("", "B", "B", True)] * 8)).warnings == (), "as the answers are"


def test_a_rule_that_does_not_fit_is_told() -> None:
    rows = [("The capital is Paris.", "the capital is paris", "Paris", False), ("Lima", "lima", "Lima", True)]
    health = benchmark_health(result("text", rows))
    assert warned(health, "1 of 1 answers that count as wrong contain the expected text", '"score": "contains"')
    assert '"score"' not in benchmark_health(result("text", rows, "bbh")).warnings[0]
    assert holds_gold({"expected": "Rome | Roma", "completion": "It is ROMA."})
    assert not holds_gold({"expected": "Rome", "completion": "Romeo"})
    assert benchmark_health(result("text", [("Oslo", "oslo", "Rome", False)])).warnings == ()


def test_a_limit_above_the_data_is_told() -> None:
    found = result("text", [("Lima", "lima", "Lima", True)] * 3)
    (health,) = suite_health([found], 20)
    assert warned(health, "evaluation.limit 20 asks for more examples than the 3 taken")
    assert suite_health([found], {"other": 20})[0].warnings == suite_health([found], None)[0].warnings == ()
    found.facts["grid"] = [{"decoding": "greedy", "metric": "exact_match", "value": 1.0, "n": 8}]
    (health,) = suite_health([found], None, 200)
    assert warned(health, "evaluation.best_decoding_rows 200 asks for more training rows than the 8 taken")
    assert suite_health([found], None, 8)[0].warnings == ()


def test_texts_that_lose_their_end() -> None:
    assert training_health({"texts": 10, "cut": 1, "left_out": 0}).warnings == ()
    few = training_health({"texts": 10, "cut": 0, "left_out": 0, "batches": 1, "of_batches": 5})
    assert warned(few, "1 of the 5 batches of an epoch are taken: trainer.limit_train_batches or")
    assert warned(training_health({"texts": 8, "cut": 2, "left_out": 2}), "2 of 10 texts lose their end, and 2 have")
    short = training_health({"texts": 8, "cut": 0, "left_out": 0, "steps": 3, "of_steps": 9})
    assert warned(short, "The training ended at step 3 of 9, before its learning rate fell to 0")
    cold = training_health({"texts": 8, "cut": 0, "left_out": 0, "warmup": 40, "in_steps": 9})
    assert warned(cold, "its warm-up is 40 steps and the training 9")


def test_it_is_told_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    with caplog.at_level(logging.WARNING):
        row = Health("generate", {"completions": 2, "empty": 0.5}, ("Half is empty.",)).told(said.append)
    assert said == ["[generate] health: 2 completions, empty 50%"]
    assert caplog.messages == ["[generate] warning: Half is empty."]
    assert row == {
        "stage": "generate", "figures": {"completions": 2, "empty": 0.5}, "warnings": ["Half is empty."]
    }  # fmt: skip


def test_small_parts() -> None:
    assert fewer_than_asked("limit", None, 3, "rows") == fewer_than_asked("limit", 3, 3, "rows") == []
    assert commonest([]) == ("", 0.0) and commonest(["a", "b", "a"]) == ("a", 2 / 3)
