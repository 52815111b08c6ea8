"""What ``doctor`` says, and that it names what would not work."""

from __future__ import annotations

import pytest

from spd_lightning.cli import doctor
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
