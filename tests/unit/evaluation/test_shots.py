"""The base with calibration answers as solved examples before each prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.files import read_jsonl
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.evaluation.context import Occasion, RunContext
from spd_lightning.evaluation.scores import logged_metrics
from spd_lightning.evaluation.shots import shots_method, with_shots
from spd_lightning.evaluation.suite import BenchmarkSuite
from spd_lightning.tasks import load_task


def make(tiny_model_dir: str, tmp_path: Path, calibrated: str = "letters", **options: Any) -> BenchmarkSuite:
    suite = BenchmarkCallback(**{"limit": 3, "dtype": "float32", "methods": ["base"], **options}).suite
    store = ArtifactStore(tmp_path / "store")
    suite.enter(RunContext(tiny_model_dir, calibrated_task=calibrated, samples=tmp_path / "samples", store=store))
    return suite


@pytest.mark.parametrize("name", ["arithmetic", "letters", "functions"])
def test_the_calibration_answers_stand_between_the_tasks_own_examples_and_the_question(name: str) -> None:
    task = load_task(name)
    benchmark = task.benchmark(limit=4)
    pairs = task.examples("train", 3)
    shown = with_shots(benchmark, task, 3)
    assert [e.id for e in shown.examples] == [e.id for e in benchmark.examples] and shown.num_fewshot == 3
    for plain, e in zip(benchmark.examples, shown.examples):
        assert e.full_prompt(0) == plain.full_prompt(0), "without them it is what the task asks"
        middle = "".join(p.prompt.removeprefix(task.solved) + p.target + "\n\n" for p in pairs)
        assert e.full_prompt() == task.solved + middle + plain.prompt.removeprefix(task.solved)
        assert e.full_prompt().count(task.solved or "\0") == (1 if task.solved else 0)
        assert (e.expected, e.target, e.choices) == (plain.expected, plain.target, plain.choices)


def test_they_take_the_place_of_a_protocols_own_shots(data_dir: str) -> None:
    task = load_task("gsm8k", data_dir)
    plain = task.benchmark(limit=1).examples[0]
    (e,) = with_shots(task.benchmark(limit=1), task, 2).examples
    pairs = task.examples("train", 2)
    assert len(plain.shots) > 2 and e.prompt == plain.prompt
    assert e.full_prompt() == plain.header + "".join(p.prompt + p.target + "\n\n" for p in pairs) + plain.prompt


def test_the_base_is_scored_with_each_number_of_answers_on_their_own_task(tiny_model_dir: str, tmp_path: Path) -> None:
    suite = make(tiny_model_dir, tmp_path, tasks=["arithmetic", "letters"], base_shots=[1, 2])
    suite.score_references(Occasion())
    found = [(r.task, r.method) for r in suite.results]
    names = [("arithmetic", "base"), ("letters", "base"), ("letters", "base_1_shots"), ("letters", "base_2_shots")]
    assert found == names and shots_method(2) == "base_2_shots"
    assert [suite.facts[f"letters.{m}"]["num_fewshot"] for m in ("base", "base_1_shots", "base_2_shots")] == [0, 1, 2]
    scores = {r.method: [record["scores"] for record in r.records] for r in suite.results if r.task == "letters"}
    assert scores["base"] != scores["base_1_shots"] != scores["base_2_shots"], "they were read"
    assert len(list(read_jsonl(tmp_path / "samples" / "letters.base_2_shots.jsonl"))) == 3
    assert set(logged_metrics(suite.results[2:3])) == {"eval_base_1_shots/letters/acc"}
    assert {(row["a"], row["b"]) for row in suite.comparison_rows} >= {("base", "base_2_shots")}

    again = make(tiny_model_dir, tmp_path, tasks=["arithmetic", "letters"], base_shots=[1, 2])
    again.score_references(Occasion())
    assert again.all_from_store and [r.records for r in again.results] == [r.records for r in suite.results]


def test_their_task_must_be_scored(tiny_model_dir: str, tmp_path: Path) -> None:
    suite = make(tiny_model_dir, tmp_path, "arithmetic", tasks=["letters"], base_shots=[3])
    with pytest.raises(
        UserError, match=r"base_shots=\[3\] gives answers of arithmetic to the base, which is not among"
    ):
        suite.shots_benchmarks()
    with pytest.raises(UserError, match="base_shots=0 is not possible"):
        make(tiny_model_dir, tmp_path, tasks=["letters"], base_shots=[0])
