"""A run of more than an hour says so before its first stage, and what would make it shorter."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cli.program import main
from spd_lightning.errors import UserError
from spd_lightning.pipeline import duration, fit
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import in_file


def plan(**seconds: float) -> Any:
    methods = SimpleNamespace(options=SimpleNamespace(methods=["base", "student"]))
    return SimpleNamespace(
        machine="this one",
        benchmarks=SimpleNamespace(suite=methods),
        stage=lambda name: SimpleNamespace(seconds=seconds[name]),
    )


def test_what_is_long_is_told_with_its_longest_stages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = RunFolder(tmp_path)
    hour = plan(extract=60, generate=3000, fine_tune=100, evaluate=440)
    duration.say_if_long(hour, run, "spd")
    assert not caplog.messages, "an hour is not more than an hour"
    duration.say_if_long(hour, run, "spd", rounds=2)
    (line,) = caplog.messages
    assert line.startswith("[fit] estimate: about 113 min in all (extract 2 min, generate 100 min, fine_tune 3 min, ")
    assert "To make it shorter: fewer --data.num_prompts or --data.max_new_tokens. --dry_run" in line
    assert duration.told({"evaluate": 4000.0}) is not None and "--evaluation.limit" in str(
        duration.told({"evaluate": 4e3})
    )


def test_what_is_there_already_takes_no_time(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert duration.missing_stages(run, "spd", False) == ["extract", "generate", "fine_tune", "evaluate"]
    assert duration.missing_stages(run, "ssd", False) == ["generate", "fine_tune", "evaluate"]
    assert duration.missing_stages(run, "base", True) == ["extract", "evaluate"]
    for file in (run.subspace, run.corpus):
        file.parent.mkdir()
        file.touch()
    assert duration.missing_stages(run, "spd", True) == ["fine_tune", "evaluate"]
    run.adapter.mkdir()
    assert duration.missing_stages(run, "spd", False) == ["evaluate"]


def test_what_cannot_be_counted_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    duration.say_if_long(plan(extract=1e9), RunFolder(tmp_path), "spd")
    assert caplog.messages == ["[fit] no estimate: KeyError: 'generate'"]


def test_it_is_told_before_anything_is_computed(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(found: Any, folder: RunFolder, method: str, rounds: int) -> None:
        assert found.stage("generate").seconds > 0 and method == "spd" and rounds == 1
        raise UserError("so far")

    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(fit, "say_if_long", told)
    run = tmp_path / "runs" / "run"
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run}", *in_file(SETTINGS)]
    assert main(args) == 2 and "so far" in capsys.readouterr().err
    assert not run.exists()
