"""Runs in a folder: which are found, how far each has come, and what is damaged ends no list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spd_lightning.artifacts.locks import file_lock
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.runs import find_runs, reached, summarise


def begun(path: Path, model: str = "tiny", method: str = "spd", task: str = "arithmetic") -> RunFolder:
    path.mkdir(parents=True)
    text = f"subspace: {{task: {task}, model_name_or_path: {model}}}\ndata: {{method: {method}}}\n"
    (path / "config.yaml").write_text(text)
    (path / "environment.json").write_text("{}")
    return RunFolder(path)


def test_runs_are_found_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b", "sweeps/rank/r4", "a"):
        begun(tmp_path / name)
    begun(tmp_path / ".dry-run-1" / "x")
    begun(tmp_path / "a" / "round-2")  # belongs to its run
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "config.yaml").write_text("{}")
    found = [run.path.relative_to(tmp_path).as_posix() for run in find_runs(tmp_path)]
    assert found == ["a", "b", "sweeps/rank/r4"]
    assert [run.path for run in find_runs(tmp_path / "a")] == [tmp_path / "a"]


def test_how_far_a_run_has_come(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert reached(run) == "begun"
    for state, file in (
        ("extracted", run.subspace),
        ("generated", run.corpus),
        ("trained", run.adapter_weights),
        ("scored", run.results),
    ):
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
        assert reached(run) == state


def test_a_run_is_running_while_its_folder_is_held(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert not run.is_running()
    with file_lock(run.lock_file, "x"):
        assert run.is_running() and summarise(run).state == "running"
    assert not run.is_running()
    run.lock_file.touch()  # left by a process that was killed
    assert not run.is_running() and summarise(run).state == "begun"


def test_the_score_of_the_task_trained_on_stands_for_a_run(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "/models/tiny-llama")

    def row(method: str, task: str, metric: str, value: float) -> dict[str, object]:
        return {"method": method, "task": task, "metric": metric, "value": value}

    rows = [row("base", "letters", "acc", 0.9), row("base", "arithmetic", "flexible", 0.2)]
    rows += [row("base", "arithmetic", "strict", 0.1), row("spd", "arithmetic", "flexible", 0.3)]
    run.results.write_text(json.dumps({"trained_on": "arithmetic", "scores": rows}))
    summary = summarise(run)
    assert (summary.task, summary.method, summary.model) == ("arithmetic", "spd", "tiny-llama")
    base, student = summary.headline()
    assert base is not None and student is not None and (base["value"], student["value"]) == (0.2, 0.3)
    run.results.write_text(json.dumps({"trained_on": None, "scores": rows}))
    base, student = summarise(run).headline()
    assert base is not None and base["task"] == "letters" and student is None


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", "a: [1"])
def test_what_is_damaged_counts_as_not_there(text: str, tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.config_file.write_text(text)
    run.results.write_text(text)
    run.environment_file.write_bytes(b"\xff")
    summary = summarise(run)
    assert (summary.task, summary.method, summary.model, summary.results) == ("-", "-", "-", {})
    assert summary.headline() == (None, None) and summary.bytes > 0


def test_artifacts_are_noted_once_and_kept(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.record("subspace", {"rank": 4})
    run.note_artifacts(["moments-1"])
    run.note_artifacts(["moments-1", "corpus-2"])
    assert run.artifacts() == ["corpus-2", "moments-1"] and run.keys()["subspace"] == {"rank": 4}
    before = run.keys_file.stat().st_mtime_ns
    run.note_artifacts(["moments-1"])
    assert run.keys_file.stat().st_mtime_ns == before
