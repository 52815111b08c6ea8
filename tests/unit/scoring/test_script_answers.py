"""The reference script's reading of answers, flaws included, beside ours."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from spd_lightning.evaluation.benchmark import run_benchmark
from spd_lightning.evaluation.comparisons import compare_all
from spd_lightning.evaluation.scores import BenchmarkResult, score_records
from spd_lightning.scoring.script_answers import (
    script_code,
    script_letter,
    script_number,
    script_program,
    script_text,
    script_verdict,
)
from spd_lightning.tasks import TASKS, load_task
from spd_lightning.tasks.task import Benchmark, Example
from tests.conftest import byte_tokenizer, tiny_model


@pytest.mark.parametrize(
    ("completion", "number"),
    [
        ("5 + 3 = 8", 8),
        ("#### 18\nHe rests for 24 hours.", 24),
        ("$1,234.50 in all", 1234.5),
        ("The answer is -3.", -3),
        ("1/2", 2),
        ("none", None),
        ("", None),
    ],
)
def test_number_is_the_last(completion: str, number: float | None) -> None:
    assert script_number(completion) == number


@pytest.mark.parametrize(("expected", "right"), [("8", True), ("8.00005", True), ("8.001", False), ("-8", False)])
def test_number_tolerance(expected: str, right: bool) -> None:
    assert script_verdict(Example("1", "q", "t", expected=expected), "so 8.", "number") == ("8", right)


@pytest.mark.parametrize(
    ("completion", "letter"),
    [(" B", "B"), ("The correct answer is B", "C"), ("option d", "D"), ("it is b", "B"), ("xyz", None), ("", None)],
)
def test_letter_is_the_first_anywhere(completion: str, letter: str | None) -> None:
    assert script_letter(completion) == letter
    example = Example("1", "q", "t", expected="B")
    assert script_verdict(example, completion, "letter") == (letter, letter == "B")


@pytest.mark.parametrize(
    ("subject", "completion", "answer"),
    [
        ("boolean_expressions", " True", "true"),
        ("boolean_expressions", "untrue or false", "true"),
        ("boolean_expressions", "It is False.\nTrue", "false"),
        ("boolean_expressions", "(A)", "(A)"),
        ("causal_judgement", "Yes, he did", "yes"),
        ("causal_judgement", "Not at all: yes", "no"),
        ("sports_understanding", "It is no.", "no"),
        ("sports_understanding", "The sentence is plausible: yes", "The sentence is plausible: yes"),
        ("sports_understanding", "plausible yes", "plausible yes"),
        ("date_understanding", "The option is (C)\n(D)", "(C)"),
        ("date_understanding", "(b)", "(B)"),
        ("movie_recommendation", "B, for it is alike", "(B)"),
        ("movie_recommendation", "Goldfinger", "Goldfinger"),
        ("movie_recommendation", "G", "G"),
        ("logical_deduction_three_objects", "\n A is leftmost", "(A)"),
        ("logical_deduction_three_objects", "", ""),
    ],
)
def test_bbh_answers(subject: str, completion: str, answer: str) -> None:
    assert script_text(completion, subject) == answer


def test_bbh_compares_in_lower_case_without_a_final_point() -> None:
    example = Example("1", "q", "t", expected="Yes", meta={"subject": "causal_judgement"})
    assert script_verdict(example, "YES.", "text") == ("yes", True)
    assert script_verdict(Example("1", "q", "t", expected="(A)"), "a.", "text") == ("a.", False)
    assert script_verdict(Example("1", "q", "t", expected="Goldfinger"), "goldfinger.", "text")[1]


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        (" def f():\n    return 1", "def f():\n    return 1"),
        ("text\n```python\ndef f(): pass\n```\n```\nother\n```", "def f(): pass"),
        ("```bash\nls\n```\n```python\ndef f(): pass\n```", "ls"),
        ("```python\ndef f(): pass", "```python\ndef f(): pass"),
        ("def f(): pass\nclass A:\n    pass", "def f(): pass"),
        ("class A:\n    pass\nx = 1", "class A:\n    pass\nx = 1"),
        ("def f(): pass\n\nif __name__ == '__main__':\n    f()", "def f(): pass"),
        ("def f(): pass\n\n\nThis function", "def f(): pass"),
        ("```\ndef f(): pass\nclass A: pass\n```", "def f(): pass"),
        ("", ""),
    ],
)
def test_code(completion: str, code: str) -> None:
    assert script_code(completion) == code


def test_program_has_no_test_imports(data_dir: str) -> None:
    examples = load_task("mbpp", data_dir).benchmark("paper").examples
    assert sum(e.meta["program_prefix"] != "" for e in examples) == 13
    example = next(e for e in examples if e.meta["program_prefix"] and "import" not in e.target)
    program = script_program(example, example.target)
    assert program == f"{example.target.strip()}\n{example.expected}\n" and "import" not in program


def test_unknown_answer_type() -> None:
    with pytest.raises(ValueError, match="answer_type='program' is not read here"):
        script_verdict(Example("1", "q", "t"), "", "program")


# ---- in a benchmark ----


def test_which_benchmarks_have_the_second_column(data_dir: str) -> None:
    names = ("gsm8k", "svamp", "mbpp", "mbpp_sanitized", "mmlu", "bbh", "bbh:paper", "bbh:causal_judgement")
    for name in names:
        task = load_task(name, data_dir)
        assert task.benchmark("paper", 1).script and not task.benchmark("standard", 1).script
    for name in ("humaneval", "codealpaca", "bbh:snarks", "letters", "arithmetic", "functions"):
        assert name.split(":")[0] in TASKS and not load_task(name, data_dir).benchmark("paper", 1).script


def example(number: int, expected: str, prompt: str = "Question: x\nAnswer:") -> Example:
    return Example(f"e{number}", prompt, f" {expected}", expected=expected)


def benchmark_of(answer_type: str, examples: list[Example], **fields: Any) -> Benchmark:
    given: dict[str, Any] = {"output_type": "generate", "max_new_tokens": 3, "script": True, **fields}
    return Benchmark("mine", "qa", "paper", answer_type, examples=tuple(examples), **given)  # type: ignore[arg-type]


@pytest.fixture
def model() -> tuple[Any, Any]:
    return tiny_model(), byte_tokenizer()


def written(monkeypatch: pytest.MonkeyPatch, completions: list[str], seen: list[tuple[int, ...]] | None = None) -> None:
    """Let the model write what a test needs; ``seen`` gets the prompts' tokens."""
    from spd_lightning.generation.requests import Generation

    def generate(model: Any, tokenizer: Any, requests: Any, params: Any, **rest: Any) -> list[Generation]:
        (seen if seen is not None else []).extend(r.prompt_ids for r in requests)
        return [
            Generation(r.id, r.sample, r.prompt, text, (1,), 1, "stop", 0)
            for r, text in zip(requests, completions, strict=True)
        ]

    monkeypatch.setattr("spd_lightning.evaluation.portion.generate", generate)


@pytest.mark.parametrize(
    ("answer_type", "expected", "completions", "metric"),
    [
        ("letter", "B", ["B", "The correct one: B"], "acc"),
        ("number", "8", ["8", "8, of 24"], "exact_match_flexible"),
        ("text", "yes", ["Yes", "yes and no"], "exact_match"),
    ],
)
def test_scores_stand_side_by_side(
    answer_type: str,
    expected: str,
    completions: list[str],
    metric: str,
    model: tuple[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written(monkeypatch, completions)
    benchmark = benchmark_of(answer_type, [example(i, expected) for i in range(2)])
    result = run_benchmark(*model, benchmark, method="base")
    assert [r["script_correct"] for r in result.records] == [True, False]
    scores = {s.metric: s for s in result.scores}
    script = scores[f"{metric}_script"]
    assert (script.value, script.n) == (0.5, 2) and 0 < script.ci95[0] < 0.5 < script.ci95[1] < 1
    assert scores[metric].value == sum(r["correct"] for r in result.records) / 2
    plain = run_benchmark(*model, benchmark_of(answer_type, list(benchmark.examples), script=False), method="base")
    assert not [s for s in plain.scores if s.metric.endswith("_script")]
    assert not [r for r in plain.records if "script_correct" in r]


def test_programs_are_run_as_the_script_does(model: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    tests = "assert f(4) == math.sqrt(16)"
    meta = {"program_prefix": "import math\n", "program_suffix": tests, "continues": False}
    examples = [Example(f"e{i}", "Code:", " x", expected=tests, meta=meta) for i in range(3)]
    good = "def f(x): return x"
    written(monkeypatch, [f"import math\n{good}", good, f"{good}\n\n\nx = ("])
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    result = run_benchmark(*model, benchmark_of("program", examples), method="base")
    assert [r["correct"] for r in result.records] == [True, True, False]
    assert [r["script_correct"] for r in result.records] == [True, False, False]  # math is not imported for it
    assert [r["script_answer"] for r in result.records] == [f"import math\n{good}", good, good]
    assert {s.metric: s.value for s in result.scores}["pass@1_script"] == pytest.approx(1 / 3)


def test_the_second_column_never_carries_a_star() -> None:
    def record(i: int, correct: bool) -> dict[str, Any]:
        fields = {"id": f"e{i}", "sample": 0, "prompt": "p", "completion": "B", "answer": "B", "expected": "B"}
        return {**fields, "correct": correct, "reason": "letter", "scores": {}, "script_correct": correct}

    results = []
    for method, right in (("base", False), ("spd", True)):
        records = [record(i, right) for i in range(40)]
        scores = score_records(records, "letter", method=method, task="mmlu", protocol="paper")
        results.append(BenchmarkResult("mmlu", method, "paper", "letter", records, scores))
    rows = {row["metric"]: row for row in compare_all(results)}
    assert rows["acc"]["p_holm"] == rows["acc"]["p_value"] < 1e-6, "a family of one metric"
    assert rows["acc_script"]["p_value"] == rows["acc"]["p_value"]
    assert rows["acc_script"]["p_holm"] is None and rows["acc_script"]["delta"] == 1.0


def test_long_prompts_lose_their_end_counted_and_said(
    model: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[int, ...]] = []
    written(monkeypatch, ["B", "B"], seen)
    examples = [example(0, "B"), example(1, "B", f"Question: {'y' * 40}\nAnswer:")]
    run = lambda b: run_benchmark(*model, b, method="base")  # noqa: E731
    for limit, cut in ((20, 1), (None, 0)):
        seen.clear()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            facts = run(benchmark_of("letter", examples, max_prompt_length=limit)).facts
        assert (facts["truncated"], facts["cue_lost"], facts["max_prompt_length"]) == (cut, cut, limit)
        texts = [byte_tokenizer().decode(ids) for ids in seen]
        assert texts == [e.prompt[:limit] for e in examples]
        said = [r.getMessage() for r in caplog.records if "cuts their end" in r.getMessage()]
        assert len(said) == cut and all("1 of 2 prompts are longer than 20 tokens" in text for text in said)
        assert all("lose 'Answer:'" in text for text in said)


def test_the_likelihood_of_a_target_reads_the_cut_prompt(model: tuple[Any, Any]) -> None:
    long, short = f"Instruction: {'y' * 40}\nCode:", f"Instruction: {'y' * 7}"
    values = []
    for prompt, limit in ((long, 20), (short, None), (long, None)):
        e = Example("e", prompt, " x = 1", expected="x = 1")
        benchmark = benchmark_of("likelihood", [e], output_type="target_nll", script=False, max_prompt_length=limit)
        result = run_benchmark(*model, benchmark, method="base")
        values.append(result.records[0]["scores"]["nll"])
        assert result.facts["cue_lost"] == (1 if limit else 0) and result.facts["max_prompt_length"] == limit
    assert values[0] == values[1] != values[2]
