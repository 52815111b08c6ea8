"""What ``doctor`` says, and that it names what would not work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

from spd_lightning.cli import doctor
from spd_lightning.errors import UserError
from spd_lightning.model import embedded
from spd_lightning.pipeline import tracking
from spd_lightning.scoring.isolation import forced_tier


def test_every_line_and_what_would_not_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    monkeypatch.setenv("SPD_DATA_DIR", "/no/such/folder")
    with forced_tier(4):
        doctor.doctor()
    shown = capsys.readouterr().out
    named = [line.split()[0] for line in shown.splitlines() if line and not line.startswith(" ")]
    assert named[:7] == ["machine", "gpus", "sandbox", "models", "hub", "wandb", "versions"]
    assert "tier 4" in shown and "cores" in shown and "torch " in shown
    wrong = shown.split("Would not work here:")[1]
    assert "humaneval, mbpp, functions: Not run: scoring executes programs" in wrong
    assert "W&B: WANDB_MODE=online, but W&B is not logged in" in wrong
    assert "SPD_DATA_DIR=/no/such/folder is no folder" in wrong
    assert "HF_HUB_OFFLINE is set" in wrong


def told(part: Callable[[list[str]], Iterator[str]]) -> tuple[list[str], list[str]]:
    """Facts and problems of one part."""
    problems: list[str] = []
    return list(part(problems)), problems


def test_a_full_disk_and_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    facts, problems = told(doctor._machine)
    assert facts[-1].endswith(f" free in {tmp_path}")
    assert problems[0].startswith("Runs: ") and problems[0].endswith(
        "are free here. Free space, or set --run_dir to another disk."
    )
    assert problems[1:] == [f"Runs: {tmp_path} cannot be written. Set --run_dir to a folder that can."]


def test_gpus_are_told_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(name="NVIDIA H100", total_memory=80 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: found)
    facts, problems = told(doctor._gpus)
    assert len(facts) == 2 and facts[0].startswith("NVIDIA H100, ") and "compute capability 9.0" in facts[0]
    assert not any("accelerator gpu" in problem for problem in problems)


def test_a_model_whose_package_is_absent_or_damaged_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> bool:
        if name == "gemma3-270m":
            raise UserError("a part of it is missing")
        return False

    monkeypatch.setattr(embedded, "is_installed", installed)
    monkeypatch.delenv("SPD_DATA_DIR", raising=False)
    facts, problems = told(doctor._models)
    assert "gemma3-270m: not installed" in facts and "smollm2-135m-instruct: not installed" in facts
    for name, known in embedded.EMBEDDED.items():
        assert f"{name} without the hub: its package is not installed. Type {known.install}." in problems
    assert facts[-1] == "SPD_DATA_DIR: not set, data sets come from the hub"


@pytest.mark.parametrize("error", [None, ConnectionError("no route")])
def test_the_hub_is_asked_unless_it_is_switched_off(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    def model_info(self: object, name: str, timeout: float) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    facts, problems = told(doctor._hub)
    if error is None:
        assert (facts, problems) == (["reachable, logged in"], [])
    else:
        assert len(facts) == 1 and facts[0].startswith("not reachable (ConnectionError), logged in; what is downloaded")
        assert len(problems) == 1 and "the hub is not reachable. Set --data_dir" in problems[0]


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "PACKAGES", ("torch", "no-such-package"))
    facts, problems = told(doctor._versions)
    assert facts[1] == f"torch {torch.__version__}" and len(facts) == 2
    assert problems == ["no-such-package is not installed. Type `pip install no-such-package`."]
