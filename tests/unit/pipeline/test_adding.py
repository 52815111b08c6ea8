"""Rows of further benchmarks beside those that are there: none is lost, none stands twice, Holm counts them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.files import write_json
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError
from spd_lightning.pipeline.adding import (
    check_not_scored_otherwise,
    earlier_results,
    evaluation_differences,
    with_earlier,
)
from spd_lightning.report.schema import write_results
from tests.unit.report.test_report import comparison, score


def results(*tasks: str, methods: tuple[str, ...] = ("base", "spd"), p: float = 0.01, value: float = 0.5) -> Any:
    stage = {"stage": "evaluate", "seconds": 1.0, "tokens": None, "skipped": False}
    return {
        "fingerprint": "f",
        "trained_on": "arithmetic",
        "method": "spd",
        "scores": [score(m, t, "in", "acc", value) for t in tasks for m in methods],
        "comparisons": [comparison(t, "acc", 0.1, p) | {"p_value": p, "p_holm": p} for t in tasks],
        "stages": [stage],
        "benchmarks": {f"{t}.{m}": {"seconds": value} for t in tasks for m in methods},
        "health": [{"stage": f"evaluate {t}.{m}", "warnings": []} for t in tasks for m in methods],
        "overlap": [{"set": "calibration", "task": t, "shared": 0, "of": 1} for t in tasks],
        "moved": {"answers": [{"task": t, "protocol": "standard", "n": 1} for t in tasks], "held_out": tasks[0]},
        "not_run": [],
    }


def test_a_benchmark_is_added_and_nothing_is_lost() -> None:
    old = results("arithmetic", "letters")
    old["stages"].insert(0, {"stage": "extract", "seconds": 2.0, "tokens": 1, "skipped": False})
    old["health"].insert(0, {"stage": "extract", "warnings": ["few"]})
    old["corpus"] = {"n": 12}
    whole = with_earlier(old, results("svamp", p=0.04), [])
    assert [(s["task"], s["method"]) for s in whole["scores"]] == [
        (task, method) for task in ("arithmetic", "letters", "svamp") for method in ("base", "spd")
    ]
    assert [s["stage"] for s in whole["stages"]] == ["extract", "evaluate", "evaluate + svamp"]
    assert [row["p_holm"] for row in whole["comparisons"]] == pytest.approx([0.03, 0.03, 0.04]), "Holm over all three"
    assert whole["corpus"] == {"n": 12} and len(whole["health"]) == 7 and len(whole["benchmarks"]) == 6
    assert [row["task"] for row in whole["overlap"]] == ["arithmetic", "letters", "svamp"]
    assert whole["moved"]["held_out"] == "arithmetic" and len(whole["moved"]["answers"]) == 3
    assert whole["added"] == {"svamp": []}


def test_the_run_s_own_command_keeps_what_was_added() -> None:
    added = with_earlier(results("arithmetic"), results("svamp"), ["limit: null there, 5 here"])
    again = with_earlier(added, results("arithmetic", value=0.6), None)
    assert [(s["task"], s["value"]) for s in again["scores"]] == [("arithmetic", 0.6)] * 2 + [("svamp", 0.5)] * 2
    assert [s["stage"] for s in again["stages"]] == ["evaluate", "evaluate + svamp"]
    assert again["added"] == {"svamp": ["limit: null there, 5 here"]}
    assert len(again["comparisons"]) == 2 and set(again["benchmarks"]) == set(added["benchmarks"])
    assert sorted(row["stage"] for row in again["health"]) == sorted(row["stage"] for row in added["health"])
    twice = with_earlier(again, results("svamp", value=0.7), ["limit: null there, 5 here"])
    assert [s["value"] for s in twice["scores"]] == [0.6, 0.6, 0.7, 0.7] and len(twice["stages"]) == 2
    third = with_earlier(twice, results("mmlu"), [])
    assert list(third["added"]) == ["svamp", "mmlu"]


def test_what_was_not_run_and_then_was_stands_once() -> None:
    old = results("arithmetic") | {"not_run": [{"task": "humaneval", "method": "base", "reason": "no consent"}]}
    whole = with_earlier(old, results("humaneval"), [])
    assert whole["not_run"] == [] and {s["task"] for s in whole["scores"]} == {"arithmetic", "humaneval"}
    refused = {"task": "humaneval", "reason": "no consent"}
    again = with_earlier(whole, results("arithmetic") | {"not_run": [refused, {"task": "mbpp", "reason": "x"}]}, None)
    assert again["not_run"] == [{"task": "mbpp", "reason": "x"}]


def test_a_method_more_takes_nothing_from_the_others() -> None:
    old = results("arithmetic")
    whole = with_earlier(old, results("arithmetic", methods=("base", "projected"), value=0.2), None)
    assert [(s["method"], s["value"]) for s in whole["scores"]] == [("base", 0.2), ("projected", 0.2), ("spd", 0.5)]


def test_without_earlier_results_the_new_ones_stand_in_the_order_that_they_keep(tmp_path: Path) -> None:
    new = results("svamp", "arithmetic", methods=("spd", "base"))
    first = with_earlier({}, new, None)
    assert [(s["task"], s["method"]) for s in first["scores"]] == [
        (task, method) for task in ("svamp", "arithmetic") for method in ("base", "spd")
    ]
    assert [c["task"] for c in first["comparisons"]] == ["svamp", "arithmetic"]
    assert with_earlier(first, new, None) == first
    run = RunFolder(tmp_path)
    assert earlier_results(run, "f") == {}
    run.results.write_text("{")
    assert earlier_results(run, "f") == {}
    found = {name: value for name, value in new.items() if name != "moved"}
    write_results(tmp_path, **found)
    assert earlier_results(run, "f")["scores"] == json.loads(json.dumps(new["scores"]))
    assert earlier_results(run, "another run") == {}
    text = run.results.read_text()
    run.results.write_text(text.replace('"value": 0.5', '"value": 0.6', 1))
    assert earlier_results(run, "f") == {}, "by hand"
    run.results.write_text(json.dumps({name: v for name, v in json.loads(text).items() if name != "sha256"}))
    assert earlier_results(run, "f")["scores"], "of an older version"


@pytest.mark.parametrize("name", ["not_run", "benchmarks", "health", "passes", "overlap", "moved", "added", "stages"])
@pytest.mark.parametrize("value", [7, "x", [7], {"a": 7}, [{}], {"answers": [7]}])
def test_results_of_an_older_version_in_another_shape_are_told_and_written_anew(
    name: str, value: Any, tmp_path: Path, capsys: Any
) -> None:
    """No checksum tells of them, so that they are put together on trial."""
    run, new = RunFolder(tmp_path), results("arithmetic")
    write_json(run.results, {"schema": 2, **new, name: value})
    if earlier := earlier_results(run, "f"):
        with_earlier(earlier, new, None)
        with_earlier(earlier, results("letters"), ["limit: null there, 5 here"])
    else:
        assert f"{run.results}" in (told := capsys.readouterr().err) and "It is written anew, without the rows" in told


def test_a_benchmark_is_not_scored_anew_under_other_options(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    saved = {"evaluation": {"tasks": ["arithmetic"], "limit": None, "methods": ["base"]}}
    here = {"evaluation": {"tasks": ["svamp"], "limit": 5, "methods": ["base", "student"]}}
    differ = evaluation_differences(saved, here)
    assert differ == ["limit: None there, 5 here"]
    earlier = with_earlier(results("arithmetic"), results("svamp"), differ)
    check_not_scored_otherwise(earlier, ["svamp", "mmlu"], differ, run)
    check_not_scored_otherwise(earlier, ["arithmetic", "mmlu"], [], run)
    for task, how in (("arithmetic", differ), ("svamp", [])):
        with pytest.raises(UserError, match=f"{task} is scored already"):
            check_not_scored_otherwise(earlier, [task], how, run)
