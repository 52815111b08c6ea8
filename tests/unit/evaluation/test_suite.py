"""What is scored and what was found, without a trainer: contexts, results in order, overlap, where samples go."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.files import read_jsonl
from spd_lightning.errors import UserError
from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.evaluation.context import Occasion, RunContext
from spd_lightning.evaluation.scores import logged_metrics
from spd_lightning.evaluation.suite import BenchmarkSuite
from spd_lightning.tasks import load_task


def make(**settings: Any) -> BenchmarkSuite:
    return BenchmarkCallback(**{"limit": 3, "dtype": "float32", **settings}).suite


class Logger:
    def __init__(self) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.told.append((step, metrics))


def test_a_context_is_handed_over_whole() -> None:
    suite = make()
    with pytest.raises(FrozenInstanceError):
        suite.context.trained_task = "letters"  # type: ignore[misc]
    suite.enter(RunContext(trained_task="letters"))
    letters = suite.benchmarks()
    suite.enter(replace(suite.context, student_step=7))
    assert suite.benchmarks() is letters, "what does not change the questions leaves them loaded"
    suite.enter(replace(suite.context, trained_task="arithmetic"))
    assert [b.task for b in suite.benchmarks()] == ["arithmetic"]


def test_what_was_refused_once_is_refused_again(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "target": "b", "split": "train"}\n')
    suite = make(tasks=["letters", "custom"])
    suite.enter(RunContext(task_file=str(tmp_path / "mine.jsonl")))
    for _ in range(2):  # an estimate asks twice
        with pytest.raises(UserError, match="none of them is a test row"):
            suite.benchmarks()
    assert not suite.missing


def test_the_base_is_scored_logged_and_written(tiny_model_dir: str, tmp_path: Path) -> None:
    suite, logger = make(tasks=["letters:easy"], methods=["base"]), Logger()
    suite.enter(RunContext(model_name_or_path=tiny_model_dir, samples=tmp_path / "samples"))
    suite.score_references(Occasion(loggers=[logger]))
    (result,) = suite.results
    assert list(read_jsonl(tmp_path / "samples" / "letters_easy.base.jsonl")) == result.records
    assert logger.told == [(0, logged_metrics([result]))]
    assert set(logger.told[0][1]) == {"eval/letters:easy/acc", "eval_base/letters:easy/acc"}
    suite.enter(replace(suite.context, store=None))
    assert suite.results == [result] and [row["method"] for row in suite.score_rows] == ["base"]


def test_the_last_result_of_each_method_counts_and_the_base_comes_first(tiny_model_dir: str) -> None:
    suite = make(tasks=["letters"], methods=["base"])
    suite.enter(RunContext(model_name_or_path=tiny_model_dir))
    suite.score_references(Occasion())
    (base,) = suite.results
    early, late = replace(base, method="spd", facts={"n": 1}), replace(base, method="spd", facts={"n": 2})
    suite.results[:] = [early, late, base]
    assert list(suite.facts) == ["letters.base", "letters.spd"] and suite.facts["letters.spd"] == {"n": 2}


def test_overlap_names_the_sets_and_the_benchmarks() -> None:
    suite = make(tasks=["letters"], limit=5)
    examples = load_task("letters").examples("test", 3) + load_task("letters").examples("train", 4)
    assert suite.overlap_rows({"calibration": examples}) == [
        {"set": "calibration", "task": "letters", "shared": 3, "of": 7}
    ]


def test_a_student_is_asked_in_its_base_s_chat_template_alone(tiny_model_dir: str, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    for form in ("plain", "chat"):
        suite = make(tasks=["letters"], prompt_format=form)
        suite.enter(RunContext(model_name_or_path=tiny_model_dir, adapter=tmp_path))
        if form == "plain":
            suite.base(Occasion())
            continue
        with pytest.raises(UserError, match="has a chat template of its own"):
            suite.base(Occasion())
