"""``--estimate``: what a run is going to need, from a config alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from spd_lightning.cli.program import main
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import in_file


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a weight would be read or hashed."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    monkeypatch.setattr("spd_lightning.model.checkpoint_files.file_sha256", refuse)


@pytest.mark.parametrize("command", ["fit", "extract", "generate", "test"])
def test_every_stage_command_estimates_and_writes_nothing(
    command: str,
    tiny_model_dir: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, f"--subspace.model_name_or_path={tiny_model_dir}", *in_file(SETTINGS), "--estimate"]) == 0
    out = capsys.readouterr().out
    stages = {"fit": 4, "extract": 1, "generate": 2, "test": 1}[command]
    assert len(re.findall(r"^(?:extract|generate|fine_tune|evaluate) .* [MK]iB ", out, re.MULTILINE)) == stages
    assert "Nothing was loaded" in out and "GFLOP/s" in out
    assert ("before its first stage" in out) == (command == "test"), "which has no subspace to project into"
    assert not list(tmp_path.iterdir())


def test_what_would_be_refused_is_told_behind_the_table(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [f"--subspace.model_name_or_path={tiny_model_dir}", *in_file(SETTINGS), "--estimate"]
    wrong = ["--model.lora_dropout=1", "--data.keep=majority", "--evaluation.adapter=gone"]
    assert main(["fit", *given, *wrong[:2]]) == 0
    table, told = capsys.readouterr().out.split("\nThe command would end before its first stage:\n")
    assert "total " in table and len(told.splitlines()) == 2
    assert "- keep=majority needs several samples a prompt" in told
    assert "- lora_dropout=1.0 is not a probability below 1. Set --model.lora_dropout." in told
    assert main(["test", *given, wrong[2], "--evaluation.methods=[base, projected, student]"]) == 0
    told = capsys.readouterr().out.split("first stage:\n")[1]
    assert "- adapter='gone': there is no such folder." in told
    assert (
        "- methods names projected, but there is no subspace. Set subspace (--evaluation.subspace) to a file." in told
    )
    assert not list(tmp_path.iterdir())


def test_a_config_alone_is_enough_and_devices_count(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "config-only"
    folder.mkdir()
    (folder / "config.json").write_bytes((Path(tiny_model_dir) / "config.json").read_bytes())
    options = [f"--subspace.model_name_or_path={folder}", *in_file(SETTINGS), "--estimate", "--trainer.devices=8"]
    options += ["--data.dtype=auto"]  # on a GPU that is not here it is bf16
    assert main(["fit", *options, "--trainer.accelerator=gpu", "--trainer.strategy=fsdp"]) == 0
    out = capsys.readouterr().out
    assert "8 process(es), each on a GPU" in out and "sharded" in out
    assert re.search(r"^generate .*bfloat16$", out, re.MULTILINE)
    assert "a quarter of the texts' bytes" in out and "would refuse the options was not looked at" in out
    assert re.search(r"^total .* -  ", out, re.MULTILINE), "no GPU here, so no time"


def test_a_model_that_is_not_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["fit", "--subspace.model_name_or_path=someone/nothing-7b", "--estimate"]) == 2
    assert "'someone/nothing-7b' cannot be loaded" in capsys.readouterr().err


def test_a_run_says_before_each_stage_what_it_will_cost(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with caplog.at_level("INFO"):
        args = [
            "fit",
            f"--subspace.model_name_or_path={tiny_model_dir}",
            f"--run_dir={tmp_path / 'run'}",
            *in_file(SETTINGS),
        ]
        assert main([*args, "--evaluation.tasks=[letters]"]) == 0
    for stage in ("extract", "generate", "fine_tune", "evaluate"):
        assert re.search(rf"\[{stage}\] estimate: about \d+ s, .* of memory a process", caplog.text)
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "estimate" not in config
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["fingerprint"]


@pytest.mark.parametrize(
    ("limits", "epochs"),
    [
        (["--trainer.max_epochs=-1"], 1),  # endless: one pass is told
        (["--trainer.max_epochs=null", "--trainer.max_steps=5"], 2),
        (["--trainer.max_epochs=9", "--trainer.max_steps=7"], 3),
        (["--trainer.max_epochs=2", "--trainer.max_steps=700"], 2),
    ],
)
def test_passes_over_the_texts_end_with_epochs_or_steps(
    limits: list[str], epochs: int, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.num_prompts=12", "--model.batch_size=4", *limits, "--estimate"]  # three steps a pass
    assert main(["fit", f"--subspace.model_name_or_path={tiny_model_dir}", *in_file(SETTINGS), *options]) == 0
    assert re.search(rf"12 texts of \d+ tokens, {epochs} epochs", capsys.readouterr().out)
