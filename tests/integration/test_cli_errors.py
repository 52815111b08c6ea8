"""Bad input: one message that says what is wrong, what was allowed and what to type; status 2; nothing written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from spd_lightning.cli.program import main

BAD = {
    "unknown option": (["--data.num_promts=3"], "Unknown option --data.num_promts. Did you mean --data.num_prompts?"),
    "abbreviation": (["--data.num_prom=3"], "Unknown option --data.num_prom. Did you mean --data.num_prompts?"),
    "unknown task": (["--subspace.task=gsm8"], "Unknown task 'gsm8'. Did you mean 'gsm8k'?"),
    "unknown benchmark": (["--evaluation.tasks=[gsm8]"], "Unknown task 'gsm8'. Did you mean 'gsm8k'?"),
    "rank above kv_dim": (["--subspace.rank=17"], "rank=17 exceeds kv_dim=16"),
    "layer out of range": (["--subspace.layers=[0, 5]"], "names layer 5, but the model has 2 layers"),
    "no prompts": (["--data.num_prompts=0"], "num_prompts=0 leaves no prompt. Set --data.num_prompts to at least 1"),
    "not a number": (
        ["--data.num_prompts=many"],
        "data.num_prompts='many' is not possible. Set --data.num_prompts to a whole number or null.",
    ),
    "unknown method": (["--data.method=sdp"], "Unknown data.method 'sdp'. Did you mean 'ssd'?"),
    "unknown entry": (["--evaluation.methods=[basis]"], "Unknown evaluation.methods 'basis'. Did you mean 'base'?"),
    "not a list": (["--evaluation.tasks=gsm8k"], "'gsm8k' is not a list. Set --evaluation.tasks '[gsm8k]'."),
    "no such model": (["--subspace.model_name_or_path=./nowhere"], "there is no such folder"),
    "no such config": (["--config=nowhere.yaml"], "nowhere.yaml"),
    "one top_p too many": (["--data.top_p=1.5"], "top_p=1.5 is not possible"),
    "a prompt beyond the context": (["--data.max_new_tokens=9000"], "exceeds the model's context of 2048"),
    "a list of devices on a CPU": (["--trainer.devices=[0, 1]"], "trainer.devices=[0, 1]"),
    "unknown accelerator": (["--trainer.accelerator=abacus"], "trainer.accelerator='abacus'"),
    "unknown strategy": (["--trainer.strategy=chess"], "trainer.strategy='chess'"),
    "no folder can be made": (["--run_dir=/dev/null/run"], "run_dir=/dev/null/run cannot be used: "),
    "processes that end with a stage": (["--trainer.strategy=ddp_spawn"], "trainer.strategy='ddp_spawn' starts"),
}

EARLY = ("one top_p too many", "a prompt beyond the context")  # refused before the run folder is taken


@pytest.mark.parametrize("name", BAD)
def test_bad_option(
    name: str, tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    options, message = BAD[name]
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", "--evaluation.tasks=[letters]"]
    assert main([*args, "--trainer.accelerator=cpu", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and "usage:" not in error
    assert error.count("error:") == 1
    if name in EARLY:
        assert not list(tmp_path.rglob("config.yaml")), "the folder is free for the command as it was meant"
    assert not list(tmp_path.rglob("*.jsonl")) and not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says: run it on one")
def test_devices_that_are_not_there(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", "--trainer.accelerator=gpu"]
    assert main([*args, "--trainer.devices=2"]) == 2
    error = capsys.readouterr().err
    assert re.search(r"trainer\.accelerator='gpu', trainer\.devices='?2'?, .* cannot be had here", error)
    assert "Traceback" not in error and not list(tmp_path.iterdir())


def test_torchrun_without_a_strategy_would_run_everything_twice(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"WANDB_MODE": "disabled", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", "--trainer.accelerator=cpu"]
    assert main([*args, "--trainer.devices=1"]) == 2
    error = capsys.readouterr().err
    assert "2 processes were started" in error and "Set --trainer.strategy=ddp" in error
    assert not list(tmp_path.iterdir())


def test_model_folder_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert main(["fit", f"--subspace.model_name_or_path={tmp_path}"]) == 2
    assert "holds no weights" in capsys.readouterr().err


def test_data_folder_without_the_file(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = f"--subspace.model_name_or_path={tiny_model_dir}"
    assert main(["extract", model, "--subspace.task=gsm8k", f"--data_dir={tmp_path}"]) == 2
    assert "gsm8k" in capsys.readouterr().err


def test_malformed_line_is_named(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a", "target": "b"}\n{"prompt": \n')
    model = f"--subspace.model_name_or_path={tiny_model_dir}"
    assert main(["extract", model, "--subspace.task=custom", f"--subspace.task_file={file}"]) == 2
    assert "mine.jsonl, line 2" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_left_alone(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={tmp_path}"]) == 2
    assert "is not empty and holds no run" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.txt"}


@pytest.mark.parametrize(
    "mistake", ["--evaluation.tasks=[gsm9k]", "--data.subspace=nowhere", "--check_against=nowhere"]
)
def test_a_mistake_found_before_any_work_gives_the_folder_back(
    mistake: str,
    tiny_model_dir: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the corrected command would be refused: another configuration holds the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = tmp_path / "run"
    assert main(["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run}", mistake]) == 2
    assert mistake.split("=")[1].strip("[]") in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.parametrize("command", ["sample", "report", "export"])
def test_commands_refuse_what_is_no_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = {"sample": ["--prompt", "x"], "export": ["--form", "merged", "--out", str(tmp_path / "o")]}
    assert main([command, str(tmp_path), *extra.get(command, [])]) == 2
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fitt"], "Unknown command 'fitt'. Did you mean fit? Known: fit, extract"),
        ([], "A command is missing. Type python -m spd_lightning {fit,extract,"),
        (["sample", "runs/x"], "error: runs/x is not a run folder: it has no config.yaml."),
        (["export", "runs/x"], "error: --form and --out must be given."),
        (["report"], "error: RUN_DIR must be given."),
        (["export", "runs/x", "--form=mergd", "--out=o"], "Unknown form 'mergd'. Did you mean 'merged'?"),
    ],
)
def test_incomplete_commands(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("error:") == 1 and "Traceback" not in error
