"""The base at its best decoding: chosen on training rows, the first of equal ones, scored on test rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.evaluation.best_decoding import METHOD, Choice, choose, on_training_rows, read_grid, settings_of
from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.evaluation.context import Occasion, RunContext
from spd_lightning.evaluation.decoding import Decoding
from spd_lightning.evaluation.scores import BenchmarkResult, Score
from spd_lightning.tasks import load_task

GRID: list[dict[str, float]] = [
    {"temperature": 0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 5},
]


def test_a_grid_is_read() -> None:
    assert read_grid(GRID) == [Decoding(), Decoding(0.7, 0.9), Decoding(1.0, top_k=5)] and read_grid([]) == []


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([{"top_p": 0.9}], r"best_decoding has the entry \{'top_p': 0\.9\}\. Each needs a temperature"),
        ([{"temperature": 0.5, "min_p": 0.1}], "may have top_p and top_k"),
        ([{"temperature": 0}, {"temperature": 0.0}], "best_decoding has greedy twice"),
        ([{"temperature": -1}], r"temperature=-1\.0 is not possible"),
        ([{"temperature": 0.5, "top_k": 2.7}], "top_k, a whole number"),
    ],
)
def test_mistakes_of_a_grid(grid: list[dict[str, float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_grid(grid)


def scored(value: float, asked: Any) -> BenchmarkResult:
    score = Score(
        method=METHOD, task="t", split=None, protocol="standard", metric="m", value=value, n=len(asked.examples),
        stderr=None, ci95=None, seed=1, isolation=None, seconds=0.0,
    )  # fmt: skip
    return BenchmarkResult("t", METHOD, "standard", "number", [], [score])


def test_the_first_of_the_best_is_chosen_on_training_rows() -> None:
    task = load_task("arithmetic", seed=5)
    values = {0: 0.2, 0.7: 0.4, 1.0: 0.4}
    asked: list[Any] = []

    def run(rows: Any, settings: Any) -> BenchmarkResult:
        asked.append(rows)
        return scored(values[settings["temperature"]], rows)

    found = choose(task.benchmark(limit=4), task, read_grid(GRID), 6, run)
    assert isinstance(found, Choice) and found.settings == settings_of(Decoding(0.7, 0.9))
    assert [row["value"] for row in found.facts["grid"]] == [0.2, 0.4, 0.4]
    assert found.facts["chosen_on"] == "6 training rows"
    assert {e.id for rows in asked for e in rows.examples} == {f"train/s5/{i}" for i in range(6)}


def test_what_is_not_decoded_or_has_no_training_rows_says_so(data_dir: str) -> None:
    def never(rows: Any, settings: Any) -> BenchmarkResult:
        raise AssertionError

    for name, reason in (
        ("letters", "nothing is decoded"),
        ("humaneval", "there are no training rows to choose on: HumanEval has no"),
        ("gsm8k", "its training rows are not asked as its test rows are"),
    ):
        task = load_task(name, data_dir)
        found = choose(task.benchmark(limit=1), task, read_grid(GRID), 2, never)
        assert isinstance(found, str) and found.startswith(reason)
    svamp = load_task("svamp", data_dir)
    assert len(on_training_rows(svamp.benchmark(limit=1), svamp, 3).examples) == 3


def test_the_row_stands_beside_the_base(tiny_model_dir: str, tmp_path: Path) -> None:
    callback = BenchmarkCallback(
        ["arithmetic", "letters"], limit=3, methods=["base"], best_decoding=GRID, best_decoding_rows=2
    )
    suite, store = callback.suite, ArtifactStore(tmp_path / "store")
    suite.enter(RunContext(model_name_or_path=tiny_model_dir, store=store, samples=tmp_path / "samples", seed=9))
    suite.score_references(Occasion())
    found = {(r.task, r.method): r for r in suite.final()}
    best = found["arithmetic", METHOD]
    assert [r["id"] for r in best.records] == [f"test/s9/{i}" for i in range(3)]
    assert best.facts["decoding"] == "greedy" and len(best.facts["grid"]) == 3  # a random model: all are 0, the first
    assert best.records == found["arithmetic", "base"].records
    assert {(c["a"], c["b"]) for c in suite.comparison_rows} == {("base", METHOD)}
    assert any(row["task"] == "letters" and "nothing is decoded" in row["reason"] for row in suite.not_run)
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "arithmetic.base.jsonl",
        f"arithmetic.{METHOD}.jsonl",
        "letters.base.jsonl",
    ]
