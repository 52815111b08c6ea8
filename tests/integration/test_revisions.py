"""What a run takes once and keeps: the commit of its model, the date that its chat template prints."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from spd_lightning.cli import program as cli
from spd_lightning.cli.program import main
from spd_lightning.model.chat_template import fix_template_date
from tests.conftest import byte_tokenizer, tiny_model
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import in_file
from tests.unit.model.test_chat_template import DATED
from tests.unit.model.test_checkpoint_files import FakeHub, full_folder, hub  # noqa: F401  (fixtures)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    fix_template_date(None)


@pytest.fixture(scope="module")
def dated_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "dated"
    tiny_model(max_position_embeddings=2048).save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(folder)
    return str(folder)


def on_day(monkeypatch: pytest.MonkeyPatch, date: str) -> None:
    class Day(datetime.date):
        @classmethod
        def today(cls) -> Any:
            return datetime.date.fromisoformat(date)

    monkeypatch.setattr(cli, "datetime", SimpleNamespace(date=Day, timedelta=datetime.timedelta))


def generated(model: str, *options: str) -> int:
    args = ["generate", f"--subspace.model_name_or_path={model}", *in_file(SETTINGS), "--data.num_prompts=2"]
    return main([*args, "--data.method=ssd", "--data.prompt_format=chat", *options])


def test_a_run_keeps_the_date_of_its_first_start(
    dated_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    on_day(monkeypatch, "2026-11-26")
    with caplog.at_level("INFO"):
        assert generated(dated_model) == 0
    (run,) = [p for p in (tmp_path / "runs").iterdir() if p.name != ".artifacts"]
    assert yaml.safe_load((run / "config.yaml").read_text())["template_date"] == "2026-11-26"
    assert "template_date: 2026-11-26, today's" in caplog.text
    corpus = (run / "corpus" / "generations.jsonl").read_bytes()
    caplog.clear()
    on_day(monkeypatch, "2026-11-27")
    with caplog.at_level("INFO"):
        assert generated(dated_model) == 0
    assert "today's" not in caplog.text and "already there, skipped" in caplog.text
    assert generated("x", "--config", str(run / "config.yaml"), f"--subspace.model_name_or_path={dated_model}") == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2 and len(list((tmp_path / "runs/.artifacts").iterdir())) == 1
    assert generated(dated_model, "--template_date=2026-11-27") == 0, "another date is another run"
    assert (tmp_path / "runs" / f"{run.name}-2026-11-27").is_dir()
    assert len(list((tmp_path / "runs" / ".artifacts").glob("corpus-*"))) == 2, "and another corpus"
    assert (run / "corpus" / "generations.jsonl").read_bytes() == corpus


def test_another_date_for_a_named_folder_is_refused(
    dated_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"--run_dir={tmp_path / 'run'}"
    assert generated(dated_model, run, "--template_date=2026-01-01") == 0
    assert generated(dated_model, run) == 0
    assert generated(dated_model, run, "--template_date=2026-01-02") == 2
    assert "template_date: '2026-01-01' there, '2026-01-02' here" in capsys.readouterr().err
    assert generated(dated_model, f"--run_dir={tmp_path / 'new'}", "--template_date=today") == 2
    assert "template_date='today' is no date" in capsys.readouterr().err


def test_a_run_that_prints_no_date_takes_none(dated_model: str, tmp_path: Path) -> None:
    """Seeds that start on different days stay seeds of each other."""
    assert generated(dated_model, f"--run_dir={tmp_path / 'run'}", "--data.prompt_format=plain") == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["template_date"] is None


def test_a_hub_model_is_taken_at_one_commit_and_kept(
    hub: FakeHub,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def extract(run: str, *options: str) -> int:
        args = [
            "extract",
            "--subspace.model_name_or_path=someone/model",
            f"--run_dir={tmp_path / run}",
            *in_file(SETTINGS),
        ]
        return main([*args, "--subspace.max_length=128", "--subspace.loss=full", *options])

    with caplog.at_level("INFO"):
        assert extract("one") == 0
    assert caplog.text.count(f"its main branch is at commit {'a' * 40} and may move") == 1
    run = tmp_path / "one"
    assert json.loads((run / "environment.json").read_text())["revisions"] == {"model": "a" * 40}
    assert yaml.safe_load((run / "config.yaml").read_text())["model_revision"] == "a" * 40
    hub.main = "b" * 40  # the branch moves on
    from spd_lightning.model import source

    source.hub_folder.cache_clear()
    assert extract("one") == 0, "a run that is continued keeps its commit"
    assert extract("two") == 0
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["revisions"] == {"model": "b" * 40}
    caplog.clear()
    with caplog.at_level("INFO"):
        assert extract("three", f"--model_revision={'a' * 40}") == 0
    assert "may move" not in caplog.text
    assert len(list((tmp_path / ".artifacts").glob("moments-*"))) == 2, "one for each commit"
    assert extract("one", f"--model_revision={'b' * 40}") == 2
    assert "holds another configuration (model: " in capsys.readouterr().err


def test_a_revision_of_a_local_model_is_refused(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generated(tiny_model_dir, f"--run_dir={tmp_path / 'run'}", "--model_revision=main") == 2
    assert f"model_revision=main, but {tiny_model_dir} is no model of the hub" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
