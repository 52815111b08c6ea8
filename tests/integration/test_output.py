"""Standard output holds results alone; what a run says stands on standard error, in plain lines without a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spd_lightning.pipeline.chatter import LIGHTNING, WANDB
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import PYTHONPATH, in_file

ROOT = Path(__file__).parents[2]
FEW = [s for s in SETTINGS if not s.startswith(("--evaluation.tasks", "--trainer.enable_progress"))]
FEW += ["--evaluation.tasks=[letters]"]


def command(model: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    args = ["fit", *in_file(FEW), f"--subspace.model_name_or_path={model}", "--run_dir=runs/run", *more]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    return subprocess.run(
        [sys.executable, "-m", "spd_lightning", *args], capture_output=True, text=True, cwd=folder, env=environment
    )


def test_output_is_the_result_and_the_rest_is_plain_and_can_be_quiet(tiny_model_dir: str, tmp_path: Path) -> None:
    done = command(tiny_model_dir, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[0].startswith("benchmark ") and lines[-1] == "Report: runs/run/report.html" and len(lines) == 5
    assert "\r" not in done.stderr and "\x1b" not in done.stderr and "%|" not in done.stderr
    assert "[fine_tune] health" in done.stderr and "Run folder: runs/run" in done.stderr
    assert not [words for words in (*LIGHTNING, *WANDB) if words in done.stderr], done.stderr
    again = command(tiny_model_dir, tmp_path, "--quiet")
    assert again.returncode == 0 and again.stdout == done.stdout
    assert all(" warning: " in line for line in again.stderr.splitlines()), again.stderr


@pytest.mark.slow
def test_wandb_says_nothing_on_the_output(tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["fit", *in_file(FEW), f"--subspace.model_name_or_path={tiny_model_dir}", "--run_dir=runs/run"]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, "-m", "spd_lightning", *args], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0 and "wandb" not in done.stdout, done.stdout
    assert not [words for words in (*WANDB, "wandb: ") if words in done.stderr], done.stderr
    assert list((tmp_path / "runs/run/logs/wandb").glob("offline-run-*/*.wandb"))
