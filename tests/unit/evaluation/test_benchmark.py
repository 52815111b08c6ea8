"""One benchmark from prompts to scores: on one process and several, with errors, without consent, from the store."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.evaluation import benchmark as benchmark_module
from spd_lightning.evaluation import portion as portion_module
from spd_lightning.evaluation.benchmark import run_benchmark
from spd_lightning.evaluation.comparisons import compare_all, compare_scores
from spd_lightning.evaluation.evaluate import evaluate_model
from spd_lightning.evaluation.scores import (
    BenchmarkResult,
    domain_split,
    interval,
    score_records,
)
from spd_lightning.evaluation.statistics import wilson_interval
from spd_lightning.generation.requests import Generation
from spd_lightning.scoring.counting import RECORD_KEYS, WRITTEN_KEYS, Record
from spd_lightning.scoring.isolation import Isolation
from spd_lightning.scoring.verdicts import KINDS, metric_names, stands_for
from spd_lightning.tasks import load_task
from spd_lightning.tasks.coding import program_meta
from spd_lightning.tasks.task import Benchmark, Example
from tests.conftest import tiny_model

SEVEN = 7  # a number that two processes cannot share evenly


def make(kind: str, n: int = SEVEN, **changes: Any) -> Benchmark:
    """A small benchmark of each kind."""
    settings: dict[str, Any] = {"task": kind, "domain": "other", "protocol": "standard", "max_new_tokens": 6}
    shapes: dict[str, tuple[str, str]] = {
        "number": ("number", "generate"),
        "text": ("text", "generate"),
        "letter": ("letter", "choices"),
        "named": ("letter", "generate"),
        "program": ("program", "generate"),
        "likelihood": ("likelihood", "target_nll"),
    }
    answer_type, output_type = shapes[kind]
    expected = {"number": "7", "text": "yes", "letter": "B", "named": "B", "program": "assert x", "likelihood": ""}[
        kind
    ]
    examples = tuple(
        Example(
            id=f"test/{i}",
            prompt=f"Question: {'so ' * (i * 2 % 5)}{i}?\nAnswer:",
            target=" B",
            expected=expected,
            choices=(" A", " B", " C", " D") if kind == "letter" else (),
            meta={"question": str(i), "subject": f"s{i % 2}", **program_meta("", "assert x")},
        )
        for i in range(n)
    )
    return Benchmark(
        **{**settings, "answer_type": answer_type, "output_type": output_type, "examples": examples, **changes}
    )


class Ranks:
    """Processes of one machine as threads, with a gather that waits for all of them."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.parts = size, threading.Barrier(size, timeout=60), [None] * size

    def gather(self, rank: int) -> Callable[[list[Any]], list[list[Any]]]:
        def collect(part: list[Any]) -> list[list[Any]]:
            self.parts[rank] = part  # type: ignore[call-overload]
            self.barrier.wait()
            found = list(self.parts)
            self.barrier.wait()
            return found  # type: ignore[return-value]

        return collect

    def run(self, work: Callable[[int, Callable[[list[Any]], list[list[Any]]]], Any]) -> list[Any]:
        """What each rank returned, or the exception it raised."""
        results: list[Any] = [None] * self.size

        def one(rank: int) -> None:
            try:
                results[rank] = work(rank, self.gather(rank))
            except Exception as error:
                results[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.mark.parametrize("kind", ["number", "text", "letter", "named", "program", "likelihood"])
def test_records_and_scores_have_the_shape_of_the_contract(kind: str, tokenizer) -> None:  # type: ignore[no-untyped-def]
    benchmark = make(kind)
    result = run_benchmark(tiny_model(), tokenizer, benchmark, method="base", allow_code_execution=True, split="out")
    assert [r["id"] for r in result.records] == [e.id for e in benchmark.examples]
    written = () if benchmark.output_type == "choices" else WRITTEN_KEYS
    assert all(tuple(r) == (*RECORD_KEYS, "group", *written) for r in result.records), "these have subjects"
    names = {
        "number": ["exact_match_flexible", "exact_match_strict"],
        "text": ["exact_match"],
        "letter": ["acc"],
        "named": ["acc"],
        "program": ["pass@1", "pass@1_one_process"],
        "likelihood": ["nll_per_token", "nll_per_char", "parse_rate"],
    }
    assert [s.metric for s in result.scores] == names[kind]
    for score in result.scores:
        assert (score.n, score.method, score.split, score.task) == (SEVEN, "base", "out", kind)
        assert score.ci95[0] <= score.value <= score.ci95[1]
        assert (score.isolation is not None) == (kind == "program")
        assert set(score.row()) >= {"value", "stderr", "ci95", "seed", "seconds", "protocol"}
    assert sum(result.facts["reasons"].values()) == SEVEN
    assert {name: group["n"] for name, group in result.facts["by_subject"].items()} == {"s0": 4, "s1": 3}


@pytest.mark.parametrize(
    ("kind", "size"), [("number", 2), ("letter", 2), ("letter", 3), ("program", 2), ("likelihood", 3)]
)
def test_several_processes_give_the_records_of_one(kind: str, size: int, tokenizer) -> None:  # type: ignore[no-untyped-def]
    models, benchmark = [tiny_model() for _ in range(size)], make(kind)
    settings: dict[str, Any] = {"method": "base", "batch_size": 2, "allow_code_execution": True}
    one = run_benchmark(models[0], tokenizer, benchmark, **settings)

    def work(rank: int, gather: Any) -> BenchmarkResult:
        return run_benchmark(models[rank], tokenizer, benchmark, rank=rank, world_size=size, gather=gather, **settings)

    for result in Ranks(size).run(work):
        assert result.records == one.records
        assert [(s.metric, s.value, s.n) for s in result.scores] == [(s.metric, s.value, s.n) for s in one.scores]
        assert result.facts["new_tokens"] == one.facts["new_tokens"]


def test_a_rank_that_fails_ends_all_of_them_with_its_error(tokenizer) -> None:  # type: ignore[no-untyped-def]
    models = [tiny_model(), tiny_model()]
    models[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(OSError("disk on fire")))

    def work(rank: int, gather: Any) -> BenchmarkResult:
        return run_benchmark(
            models[rank], tokenizer, make("number"), method="base", batch_size=2, rank=rank, world_size=2, gather=gather
        )

    first, second = Ranks(2).run(work)
    assert isinstance(second, OSError) and "disk on fire" in str(second)
    assert isinstance(first, RuntimeError) and "process 1 failed with OSError: disk on fire" in str(first)


def test_a_rank_that_cannot_load_its_model_ends_all_of_them(tokenizer) -> None:  # type: ignore[no-untyped-def]
    models = [tiny_model(), tiny_model()]

    def work(rank: int, gather: Any) -> list[BenchmarkResult]:
        def load():  # type: ignore[no-untyped-def]
            if rank == 0:
                raise UserError("no such model")
            return models[rank], tokenizer

        return evaluate_model(load, [make("letter")], method="base", rank=rank, world_size=2, gather=gather)

    first, second = Ranks(2).run(work)
    assert isinstance(first, UserError)
    assert isinstance(second, RuntimeError) and "process 0 failed with UserError: no such model" in str(second)


def test_without_consent_programs_are_not_run_and_there_is_no_score(monkeypatch, tokenizer) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(benchmark_module, "probe_isolation", lambda: Isolation(4, "plain subprocess", ""))
    monkeypatch.setattr(benchmark_module, "may_execute", lambda allow: bool(allow))
    model = tiny_model()
    refused = run_benchmark(model, tokenizer, make("program"), method="base")
    assert refused.scores == [] and refused.records == []
    assert "tier 4, plain subprocess" in str(refused.not_run)
    assert run_benchmark(model, tokenizer, make("program"), method="base", allow_code_execution=True).not_run is None
    monkeypatch.setattr(benchmark_module, "probe_isolation", lambda: Isolation(4, "none", "no Linux"))
    assert "no Linux" in str(run_benchmark(model, tokenizer, make("program"), method="base").not_run)


def test_pass_at_k_draws_different_samples(tokenizer) -> None:  # type: ignore[no-untyped-def]
    result = run_benchmark(
        tiny_model(), tokenizer, make("program", 2), method="base", num_samples=10, allow_code_execution=True
    )
    assert [(r["id"], r["sample"]) for r in result.records] == [(f"test/{i}", s) for i in range(2) for s in range(10)]
    assert len({r["completion"] for r in result.records}) > 10
    assert [s.metric for s in result.scores] == [*("pass@1", "pass@10", "pass@1_one_process", "pass@10_one_process")]
    assert all(s.n == 2 for s in result.scores), "n counts problems"


def test_an_object_of_the_program_passes_in_one_process_alone_and_is_listed(monkeypatch, tokenizer) -> None:  # type: ignore[no-untyped-def]
    codes = ["x = [1]", "class Liar:\n    def __eq__(self, other):\n        return True\nx = Liar()"]

    def completions(model, tokenizer, requests, *args, **options):  # type: ignore[no-untyped-def]
        return [Generation(r.id, r.sample, "", code, (), 0, "stop", 0) for r, code in zip(requests, codes)]

    monkeypatch.setattr(portion_module, "generate", completions)
    result = run_benchmark(tiny_model(), tokenizer, make("program", 2), method="base", allow_code_execution=True)
    assert {s.metric: s.value for s in result.scores} == {"pass@1": 0.5, "pass@1_one_process": 1.0}
    assert [(r["correct"], r["reason"], r["scores"]) for r in result.records] == [
        (True, "passed", {"one_process": 1.0}),
        (False, "returned Liar", {"one_process": 1.0}),
    ]
    disagreement = {"id": "test/1", "sample": 0, "correct": False, "reason": "returned Liar"}
    assert result.facts["one_process"] == {"shared": 0, "disagreements": [disagreement]}


def test_shots_are_dropped_until_the_context_holds_the_prompt(tokenizer, caplog) -> None:  # type: ignore[no-untyped-def]
    shots = tuple(f"Question: {i}\nAnswer: {i}\n\n" for i in range(4))  # 24 bytes each
    for kind in ("number", "letter"):
        base = make(kind, 3)
        examples = tuple(Example(**{**vars(e), "shots": shots, "header": "Sums.\n"}) for e in base.examples)
        benchmark = make(kind, 3, examples=examples, num_fewshot=4)
        model = tiny_model(max_position_embeddings=90)
        seen: list[int] = []
        model.register_forward_pre_hook(lambda m, a, k, s=seen: s.append(k["input_ids"].shape[1]), with_kwargs=True)
        result = run_benchmark(model, tokenizer, benchmark, method="base")
        assert result.facts["fewer_shots"] == 3
        assert result.facts["truncated"] == 0
        assert max(seen) <= 90
        assert "3 of 3 prompts keep fewer than 4 solved examples" in caplog.text
        with pytest.raises(UserError, match=r"example 'test/0' with 4 solved examples exceeds .* 90 tokens"):
            run_benchmark(model, tokenizer, benchmark, method="base", short_context="error")


def test_equal_likelihoods_are_no_answer(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    result = run_benchmark(model, tokenizer, make("letter"), method="base")
    assert result.facts["reasons"] == {"equal likelihoods": SEVEN}
    assert result.scores[0].value == 0


def test_likelihoods_that_are_not_finite_end_with_the_example_and_the_dtype(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    torch.nn.init.constant_(model.get_output_embeddings().weight, float("nan"))
    with pytest.raises(UserError, match=r"'test/\d' is not finite in torch.float32"):
        run_benchmark(model, tokenizer, make("letter"), method="base")


def test_a_model_in_training_is_scored_in_eval_mode_and_left_in_training(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(attention_dropout=0.5)
    expected = run_benchmark(model, tokenizer, make("number"), method="base").records
    model.train()
    assert run_benchmark(model, tokenizer, make("number"), method="base").records == expected
    assert all(module.training for module in model.modules())


def test_wrong_arguments(tokenizer) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="num_samples=0"):
        run_benchmark(tiny_model(), tokenizer, make("number"), method="base", num_samples=0)
    with pytest.raises(ValueError, match="world_size=2"):
        run_benchmark(tiny_model(), tokenizer, make("number"), method="base", world_size=2)
    with pytest.raises(UserError, match="needs 600 new tokens, the model's context is 512"):
        run_benchmark(tiny_model(), tokenizer, make("number", max_new_tokens=600), method="base")


def test_base_scores_are_computed_once_and_again_only_for_another_setting(tmp_path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    store, loads = ArtifactStore(tmp_path), []

    def load():  # type: ignore[no-untyped-def]
        loads.append(1)
        return tiny_model(), tokenizer

    def evaluate(benchmark: Benchmark, **changes: Any) -> BenchmarkResult:
        settings = {"method": "base", "store": store, "key": {"model": "m", "dtype": "float32"}, "seed": 1, **changes}
        return evaluate_model(load, [benchmark], trained={"number": "math"}, **settings)[0]

    first = evaluate(make("letter"))
    again = evaluate(make("letter"))
    assert len(loads) == 1
    assert again.records == first.records
    assert again.scores == first.scores
    assert again.facts == {**first.facts, "from_store": True}
    evaluate(make("letter", 6))  # other examples
    evaluate(make("letter"), batch_size=3)
    evaluate(make("letter"), key={"model": "other", "dtype": "float32"})
    assert len(loads) == 4
    assert {row["stage"] for row in store.list()} == {"scores"} and len(store.list()) == 4


def test_repetition_penalty_rules_generated_answers_and_their_key_alone(tmp_path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    store = ArtifactStore(tmp_path)

    def evaluate(kind: str, **changes: Any) -> BenchmarkResult:
        settings = {"method": "base", "store": store, "key": {"model": "m"}, "seed": 1, **changes}
        return evaluate_model(lambda: (tiny_model(), tokenizer), [make(kind, max_new_tokens=24)], **settings)[0]

    plain, none = evaluate("number"), evaluate("number", repetition_penalty=1.0)
    assert none.facts["from_store"] and none.facts["repetition_penalty"] == 1.0
    strong = evaluate("number", repetition_penalty=5.0)
    assert strong.facts["repetition_penalty"] == 5.0
    assert [r["completion"] for r in strong.records] != [r["completion"] for r in plain.records]
    assert evaluate("letter").facts["repetition_penalty"] is None
    assert evaluate("letter", repetition_penalty=5.0).facts["from_store"], "likelihoods know no penalty"


def test_a_real_task_from_text_to_table(tokenizer) -> None:  # type: ignore[no-untyped-def]
    result = run_benchmark(
        tiny_model(), tokenizer, load_task("letters").benchmark(limit=5), method="base", split="in", seed=3
    )
    assert result.scores[0].n == 5
    assert set(result.records[0]["scores"]) == set("ABCD")


def records(verdicts: list[bool], first: int = 0) -> list[dict[str, Any]]:
    values = [
        (str(i + first), 0, "p", "yes" if v else "no", "yes" if v else "no", "yes", v, "", {})
        for i, v in enumerate(verdicts)
    ]
    return [dict(zip(RECORD_KEYS, v)) for v in values]


def result_of(method: str, verdicts: list[bool], task: str = "t") -> BenchmarkResult:
    found = records(verdicts)
    scores = score_records(found, "text", method=method, task=task, protocol="standard")
    return BenchmarkResult(task, method, "standard", "text", found, scores)


def test_comparison_of_shares_is_mcnemar_on_common_examples() -> None:
    row = compare_scores(
        records([True] * 2 + [False] * 8), records([True] * 9 + [False]), "exact_match", a="base", b="spd", task="t",
        protocol="standard",
    )  # fmt: skip
    assert row["delta"] == pytest.approx(0.7)
    assert (row["test"], row["n"], row["p_value"]) == ("mcnemar_exact", 10, pytest.approx(2 / 2**7))
    assert (row["only_a"], row["only_b"], row["p_holm"]) == (0, 7, None)
    t, (fewest, most) = 0.025 ** (1 / 7), scipy.stats.binomtest(7, 10).proportion_ci(method="exact")  # 7 of 7 for b
    assert row["ci95"] == pytest.approx([(2 * t - 1) * fewest, most], abs=1e-6), "p < 0.05, so 0 is outside"
    with pytest.raises(ValueError, match="base and spd share no example of t"):
        compare_scores(
            records([True]), records([True], first=5), "exact_match", a="base", b="spd", task="t", protocol="standard"
        )


def test_all_comparisons_of_a_table_are_corrected_together() -> None:
    results = [result_of("base", [False] * 8, t) for t in "xyz"] + [result_of("spd", [True] * 8, t) for t in "xyz"]
    rows = compare_all(results)
    assert [(r["task"], r["a"], r["b"]) for r in rows] == [(t, "base", "spd") for t in "xyz"]
    assert all(r["p_holm"] == pytest.approx(min(1.0, 3 * r["p_value"])) for r in rows)
    refused = BenchmarkResult("x", "other", "standard", "text", not_run="no consent")
    assert len(compare_all([*results, refused])) == 3


def test_one_metric_stands_for_its_benchmark(tokenizer) -> None:  # type: ignore[no-untyped-def]
    """Strict and flexible, per token and per character, are one comparison each of the corrected family."""
    results = [
        run_benchmark(tiny_model(), tokenizer, make(kind), method=method, allow_code_execution=True)
        for kind in ("number", "likelihood", "letter")
        for method in ("base", "spd")
    ]
    rows = compare_all(results)
    assert len(rows) == 6
    assert [r["metric"] for r in rows if r["p_holm"] is not None] == ["exact_match_flexible", "nll_per_token", "acc"]
    assert all(r["p_holm"] >= r["p_value"] for r in rows if r["p_holm"] is not None)
    assert all(metric_names(kind, 100)[0] == stands_for(kind) for kind in KINDS)
    page = (Path(__file__).parents[3] / "docs" / "scoring.md").read_text(encoding="utf-8")
    told = dict(
        re.findall(r"^\| `(number|letter|text|program|likelihood|rule)` \|.*?\| `([\w@]+)` \|$", page, re.MULTILINE)
    )
    assert told == {kind: stands_for(kind) for kind in KINDS}, "the table of the page is the table of the code"


def test_means_are_compared_by_the_t_test_of_their_own_interval() -> None:
    def losses(values: list[float]) -> list[Record]:
        return [
            {"id": str(i), "scores": {"nll": v * (5 + i), "tokens": 5 + i, "chars": 20}} for i, v in enumerate(values)
        ]

    names = {"a": "base", "b": "spd", "task": "t", "protocol": "standard"}
    noise = np.random.default_rng(0).normal(0.02, 0.05, (300, 30))
    seen = set()
    for values in noise:
        row = compare_scores(losses([0.7] * 30), losses((0.7 + values).tolist()), "nll_per_token", **names)
        assert row["test"] == "paired_t" and row["stderr"] > 0 and row["only_a"] is None
        low, high = row["ci95"]
        assert (row["p_value"] < 0.05) == (low > 0 or high < 0)
        seen.add(row["p_value"] < 0.05)
    assert seen == {True, False}
    same = compare_scores(losses([0.7] * 30), losses([0.7] * 30), "nll_per_token", **names)
    assert (same["delta"], same["ci95"], same["p_value"]) == (0.0, None, 1.0), "equal losses give no interval"


def test_intervals_of_scores_without_a_spread() -> None:
    """Several samples a problem: a mean of shares. No spread is no certainty."""
    ones, halves = np.ones(6), np.array([0.5] * 6)
    assert interval(halves, ones, True) == (0.0, None)
    assert interval(np.zeros(6), ones, True)[1] == pytest.approx(wilson_interval(0, 6))
    error, (low, high) = interval(np.array([0.0, 0.25, 0.0, 0.0, 0.0, 0.0]), ones, True)  # type: ignore[misc]
    assert low == 0.0 < high and error == pytest.approx(0.25 / 6)
    assert interval(np.array([1.0]), np.array([7.0]), False) == (None, None), "a loss of 1 is no right answer"


@pytest.mark.parametrize(
    ("trained", "task", "domain", "split"),
    [
        ({"gsm8k": "math"}, "gsm8k", "math", "in"),
        ({"mbpp": "code"}, "mbpp_sanitized", "code", "in"),
        ({"arithmetic": "math"}, "arithmetic:hard", "math", "in"),
        ({"gsm8k": "math"}, "svamp", "math", "transfer"),
        ({"gsm8k": "math"}, "mmlu", "qa", "out"),
        ({}, "mmlu", "qa", None),
        ({"gsm8k": "math", "mmlu": "qa"}, "mmlu", "qa", "in"),
        ({"mmlu": "qa", "gsm8k": "math"}, "svamp", "math", "transfer"),
        ({"gsm8k": "math", "mmlu": "qa"}, "mbpp", "code", "out"),
    ],
)
def test_split_is_that_of_the_nearest_task(trained: dict[str, str], task: str, domain: str, split: str | None) -> None:
    assert domain_split(trained, task, domain) == split


def test_what_tokenizer_and_template_make_of_the_prompts_is_in_the_key(tokenizer: Any) -> None:
    """A template that prints the date makes other prompts tomorrow; likelihoods never go through it."""
    from spd_lightning.evaluation.keys import prompt_tokens
    from spd_lightning.model.chat_template import fix_template_date
    from tests.conftest import byte_tokenizer

    asked = load_task("arithmetic").benchmark(limit=3)
    chatty = byte_tokenizer()
    chatty.chat_template = "{{ strftime_now('%d %b %Y') }}{{ messages[0]['content'] }}"
    try:
        fix_template_date("2026-11-26")
        today = prompt_tokens(chatty, asked, "chat"), prompt_tokens(chatty, asked, "plain")
        assert prompt_tokens(chatty, asked, "chat") == today[0] != today[1] == prompt_tokens(tokenizer, asked, "plain")
        fix_template_date("2026-11-27")
        assert prompt_tokens(chatty, asked, "chat") != today[0] and prompt_tokens(chatty, asked, "plain") == today[1]
        choices = load_task("letters").benchmark(limit=3)
        assert choices.output_type == "choices"
        assert prompt_tokens(chatty, choices, "chat") == prompt_tokens(chatty, choices, "plain")
    finally:
        fix_template_date(None)
    other = byte_tokenizer()
    other.add_tokens([asked.examples[0].prompt[:4]])
    assert prompt_tokens(other, asked, "plain") != today[1]
