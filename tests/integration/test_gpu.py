"""On one GPU: the whole path in bf16, and stage 1 in float32 against the CPU. Skipped cleanly where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spd_lightning.cli.program import main
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import in_file

pytestmark = pytest.mark.gpu
OPTIONS = in_file([s for s in SETTINGS if not s.startswith(("--trainer.accelerator", "--data.dtype"))])


@pytest.fixture(autouse=True)
def needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: run on a machine with one to test the stages on a GPU")
    monkeypatch.setenv("WANDB_MODE", "disabled")


def test_every_stage_in_bf16(tiny_model_dir: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [*OPTIONS, "--trainer.accelerator=gpu", "--data.dtype=auto", "--trainer.precision=bf16-true"]
    assert main(["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run}", *options]) == 0
    results = json.loads((run / "results.json").read_text())
    assert [s["stage"] for s in results["stages"]] == ["extract", "generate", "fine_tune", "evaluate"]
    assert {s["method"] for s in results["scores"]} == {"base", "projected", "spd"}
    assert json.loads((run / "environment.json").read_text())["gpus"]


def test_moments_are_those_of_the_cpu(tiny_model_dir: str, tmp_path: Path) -> None:
    found = []
    for accelerator in ("cpu", "gpu"):
        run = tmp_path / accelerator / "run"
        options = [*OPTIONS, f"--trainer.accelerator={accelerator}", "--data.dtype=float32"]
        assert main(["extract", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run}", *options]) == 0
        found.append(load_file(next((run.parent / ".artifacts").glob("moments-*/moments.safetensors"))))
    apart = {name: float((v - found[1][name]).double().norm() / v.double().norm()) for name, v in found[0].items()}
    assert max(apart.values()) <= 1e-4, apart
