"""The GPU measurements' own code, on a CPU at a tiny size: only the device is left untried."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import pytest
import torch

from experiments.benchmarks import estimate, gpu

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "benchmarks" / "gpu.sh"


def test_every_part_runs_and_gives_its_figure(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--quick", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    for part, (key, _) in gpu.ASKED.items():
        assert all(math.isfinite(value) for value in found[part].values())
        assert found[part][key] > 0
    assert set(found) == {"device", "torch", "quick", "measured", *gpu.PARTS}


def test_models_are_bf16_with_fused_attention_and_never_end_early() -> None:
    model = gpu.random_model(gpu.tiny_config(), torch.device("cpu"))
    assert model.dtype == torch.bfloat16 and model.config._attn_implementation == "sdpa"
    assert model.generation_config.eos_token_id is None
    assert {name: model_size(config) for name, config in gpu.SHAPES.items()} == {
        "Qwen2.5-0.5B": 494_032_768,  # the released models' counts
        "Qwen2.5-7B": 7_615_616_512,
    }


def model_size(config: object) -> int:
    from spd_lightning.cost.shape import model_shape

    return model_shape(config).parameters


def test_operations_of_every_stage_are_counted_on_the_meta_device() -> None:
    for stage, (counted, formula) in estimate.count(gpu.tiny_config(), 2, 16).items():
        assert counted == pytest.approx(formula, rel=0.15), stage


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here: run on a machine without one to test the message")
    assert gpu.main([]) == 1
    assert "no CUDA device here" in capsys.readouterr().out


def test_the_script_runs_tests_and_measurements_and_keeps_their_output(tmp_path: Path) -> None:
    """With a stand-in for the interpreter: what it is asked for, and that a failure is the script's."""
    fake = tmp_path / "python"
    fake.write_text(f'#!/usr/bin/env bash\necho "$@" >> {tmp_path}/asked\n[[ "$*" != *pytest* ]]\n')
    fake.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(fake)}
    command = ["bash", str(SCRIPT), str(tmp_path / "out"), "--device", "cpu", "--quick"]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 1
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [
        "-m pytest -v -m gpu tests",
        f"-m experiments.benchmarks gpu --json {tmp_path / 'out' / 'gpu.json'} --device cpu --quick",
    ]
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"tests.txt", "benchmarks.txt"}
