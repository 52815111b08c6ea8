"""How answers are decoded: greedily unless told otherwise; nothing typed changes nothing in silence."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from typing import Any

import pytest

from spd_lightning.errors import UserError
from spd_lightning.evaluation.benchmark import run_benchmark
from spd_lightning.evaluation.decoding import Decoding, chosen_decoding
from spd_lightning.evaluation.keys import benchmark_key
from spd_lightning.tasks import load_task
from spd_lightning.tasks.task import Benchmark
from tests.conftest import tiny_model


@pytest.mark.parametrize(
    ("typed", "meant", "name"),
    [
        ({}, Decoding(), "greedy"),
        ({"temperature": 0.0}, Decoding(), "greedy"),
        ({"num_samples": 4}, Decoding(0.8, 0.95), "temperature 0.8, top-p 0.95"),
        ({"num_samples": 4, "top_k": 20}, Decoding(0.8, 0.95, 20), "temperature 0.8, top-p 0.95, top-k 20"),
        ({"num_samples": 4, "temperature": 1.0}, Decoding(1.0), "temperature 1, top-p 1"),
        ({"temperature": 0.6, "top_p": 0.9}, Decoding(0.6, 0.9), "temperature 0.6, top-p 0.9"),
    ],
)
def test_options_mean_a_decoding(typed: dict[str, Any], meant: Decoding, name: str) -> None:
    assert chosen_decoding(**typed) == meant and str(meant) == name


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"num_samples": 0}, "num_samples=0 scores nothing"),
        ({"num_samples": 8, "temperature": 0.0}, "num_samples=8 at temperature 0 is one answer 8 times"),
        ({"top_p": 0.9}, r"top_p=0\.9 and top_k=0 change nothing at temperature 0"),
        ({"top_k": 5, "temperature": 0.0}, r"top_k=5 change nothing"),
        ({"temperature": -1.0}, r"temperature=-1\.0 is not possible"),
        ({"temperature": 1.0, "top_p": 0.0}, r"top_p=0\.0 is not possible"),
    ],
)
def test_what_is_not_possible_or_changes_nothing_is_refused(typed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen_decoding(**typed)


def test_every_generated_answer_is_drawn_so_often(tokenizer: Any) -> None:
    asked = load_task("arithmetic").benchmark(limit=3)
    drawn = run_benchmark(tiny_model(), tokenizer, asked, method="base", num_samples=5, temperature=1.0, top_k=9)
    assert [(r["id"], r["sample"]) for r in drawn.records] == [(e.id, i) for e in asked.examples for i in range(5)]
    assert len({r["completion"] for r in drawn.records}) > 3
    assert drawn.facts["decoding"] == "temperature 1, top-p 1, top-k 9" and drawn.facts["num_samples"] == 5
    assert [s.metric for s in drawn.scores] == ["exact_match_flexible", "exact_match_strict", "pass@5"]
    again = run_benchmark(tiny_model(), tokenizer, asked, method="base", num_samples=5, temperature=1.0, top_k=9)
    assert again.records == drawn.records
    letters = run_benchmark(tiny_model(), tokenizer, load_task("letters").benchmark(limit=2), method="b", num_samples=5)
    assert len(letters.records) == 2 and letters.facts["decoding"] == "likelihood"


def test_greedy_answers_are_the_same_with_and_without_the_option(tokenizer: Any) -> None:
    asked = load_task("arithmetic").benchmark(limit=3)
    plain, typed = (
        run_benchmark(tiny_model(), tokenizer, asked, method="base", **how) for how in ({}, {"temperature": 0.0})
    )
    assert plain.records == typed.records and plain.facts["decoding"] == "greedy"
    assert [s.value for s in plain.scores] == [s.value for s in typed.scores]


def test_scores_of_another_decoding_have_another_key() -> None:
    generated, compared = (load_task(name).benchmark(limit=2) for name in ("arithmetic", "letters"))

    def key(benchmark: Any, **how: Any) -> dict[str, Any]:
        return benchmark_key(benchmark, {"num_samples": 1, "temperature": None, "top_p": None, "top_k": None, **how})

    assert key(generated) == key(generated, temperature=0.0) and "decoding" not in key(generated)
    others = [key(generated, temperature=t, top_p=p) for t in (0.5, 1.0) for p in (None, 0.9)]
    assert all(a != b for i, a in enumerate(others) for b in others[:i])
    assert key(compared, temperature=0.5) == key(compared)


def test_what_changes_no_answer_changes_no_key(tokenizer: Any) -> None:
    """Each setting is tried on a benchmark whose records it leaves as they are, and on one whose records it changes."""
    tasks = {name: load_task(name).benchmark(limit=3) for name in ("arithmetic", "letters", "functions")}

    def key(task: str, **how: Any) -> dict[str, Any]:
        return benchmark_key(tasks[task], {"num_samples": 1, "seed": 1, "timeout_s": 5.0, **how})

    assert key("arithmetic") == key("arithmetic", seed=2) == key("arithmetic", timeout_s=9.0), "greedy, no program"
    assert key("letters") == key("letters", seed=2, num_samples=5, prompt_format="chat", temperature=1.0)
    drawn = [
        run_benchmark(tiny_model(), tokenizer, tasks["arithmetic"], method="b", **how).records
        for how in ({"seed": 1}, {"seed": 2}, {"seed": 1, "temperature": 1.0}, {"seed": 2, "temperature": 1.0})
    ]
    assert drawn[0] == drawn[1] and drawn[2] != drawn[3]
    compared = [
        run_benchmark(tiny_model(), tokenizer, tasks["letters"], method="b", seed=seed, num_samples=seed).records
        for seed in (1, 2)
    ]
    assert compared[0] == compared[1]
    for task, how in (
        ("arithmetic", {"temperature": 1.0}),
        ("arithmetic", {"num_samples": 2}),
        ("arithmetic", {"prompt_format": "chat"}),
        ("functions", {"timeout_s": 9.0}),
        *((task, {"batch_size": 2}) for task in tasks),
    ):
        assert key(task) != key(task, **how), (task, how)
    assert key("arithmetic", temperature=1.0) != key("arithmetic", temperature=1.0, seed=2)
    assert key("arithmetic", num_samples=2) != key("arithmetic", num_samples=2, seed=2)


def test_every_argument_and_field_is_in_the_key_or_named_here() -> None:
    """A new one that could change an answer is not forgotten."""
    key = benchmark_key(load_task("arithmetic").benchmark(limit=2), {"temperature": 1.0})
    whose = {"model", "tokenizer", "method", "benchmark"}  # in the key of the model, or what the fields below are of
    places = {"rank", "world_size", "gather", "progress", "allow_code_execution", "split"}
    drawn = {"temperature", "top_p", "top_k"}
    assert set(inspect.signature(run_benchmark).parameters) - whose - places - drawn <= set(key)
    assert set(key["decoding"]) == drawn
    led_to = {"answer_type", "output_type", "max_new_tokens", "stop"}  # `output`
    follow = {"domain", "script", "num_fewshot", "num_dropped", "system_prompt"}  # from task, protocol or examples
    assert {field.name for field in fields(Benchmark)} - led_to - follow <= set(key)
    assert key["output"] == ["generate", "number", 64, ["\nQuestion:", "\n\n"]]
    custom = replace(load_task("arithmetic").benchmark(limit=2), system_prompt="Be brief.")
    assert benchmark_key(custom, {})["system_prompt"] == "Be brief."
