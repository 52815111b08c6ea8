"""Weights spread over two gloo processes against one process: the same student, clipped, resumed, and plain on disk."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from spd_lightning.cli.program import main
from spd_lightning.finetuning.sharding import trained_weights
from tests.integration.fsdp_worker import CASES, train
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import PYTHONPATH

ROOT = Path(__file__).parents[2]


def launch(processes: int, *command: str) -> None:
    """torchrun, ended after three minutes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": PYTHONPATH}
    done = subprocess.run([*torchrun, *command], env=environment, capture_output=True, text=True, timeout=180, cwd=ROOT)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"


@pytest.fixture(scope="module")
def two(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fsdp")
    launch(2, "-m", "tests.integration.fsdp_worker", tiny_model_dir, str(out))
    return out


def saved(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def trained(model: str, **options: Any) -> tuple[dict[str, torch.Tensor], float]:
    """Trained weights of one process, under the names of a saved folder, and the last step's gradient norm."""
    module = train(model, "auto", **options)
    assert module.model is not None
    weights = {name.replace(".default.", "."): w for name, w in trained_weights(module.model).items()}
    return weights, float(module.trainer.callback_metrics["train/grad_norm"])


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return float(sum((a[name].double() - b[name].double()).square().sum() for name in a)) ** 0.5


@pytest.mark.ddp
@pytest.mark.parametrize("case", [case for case in CASES if "bf16" not in case])
def test_two_processes_train_the_student_of_one(case: str, two: Path, tiny_model_dir: str) -> None:
    one, norm = trained(tiny_model_dir, **CASES[case])
    found = saved(two / case)
    assert found.keys() == one.keys()
    assert json.loads((two / "norms.json").read_text())[case] == pytest.approx(norm, rel=1e-3)
    for name, weight in one.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.ddp
def test_in_bf16_two_processes_differ_from_one_by_less_than_two_attention_kernels_do(
    two: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam turns the rounding of a gradient near zero into a whole step, so single weights tell nothing in bf16.

    Seen, as Euclidean distances over all trained weights: 6e-6 between one and two processes in float32; in bf16 0.012,
    0.021 between one process and itself with PyTorch's own attention, and 0.51 between bf16 and float32.
    """
    case = CASES["lora-bf16"]
    one, norm = trained(tiny_model_dir, **case)
    monkeypatch.setattr("spd_lightning.finetuning.loss.short_attention", contextlib.nullcontext)
    other, _ = trained(tiny_model_dir, **case)
    found = saved(two / "lora-bf16")
    assert found.keys() == one.keys() and all(w.dtype == torch.float32 for w in found.values())
    assert json.loads((two / "norms.json").read_text())["lora-bf16"] == pytest.approx(norm, rel=0.05)
    assert 0 < distance(found, one) <= 1.5 * distance(other, one)


@pytest.mark.ddp
def test_a_continued_run_equals_a_straight_one(two: Path) -> None:
    straight, half, resumed = (saved(two / name) for name in ("lora", "half", "resumed"))
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    assert any(not torch.equal(half[name], straight[name]) for name in straight)
    checkpoint = torch.load(two / "half.ckpt", weights_only=True)
    assert len(checkpoint["state_dict"]) == len(straight), "trained weights alone, in one file"


@pytest.mark.ddp
def test_the_folders_are_plain(two: Path, tiny_model_dir: str) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    assert {p.name for p in (two / "lora").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    ids = torch.arange(12).view(1, 12)
    before = base(input_ids=ids).logits
    assert not torch.allclose(PeftModel.from_pretrained(base, two / "lora")(input_ids=ids).logits, before)
    full = AutoModelForCausalLM.from_pretrained(two / "full")
    assert not torch.allclose(full(input_ids=ids).logits, before)


@pytest.mark.ddp
def test_through_the_command_line(tiny_model_dir: str, tmp_path: Path) -> None:
    """The strategy's name alone; scoring during training gathers the student."""
    run = tmp_path / "run"
    options = [s for s in SETTINGS if not s.startswith(("--trainer.devices", "--evaluation"))]
    options += ["--evaluation.tasks=[letters]", "--evaluation.limit=3", "--evaluation.every_n_epochs=1"]
    launch(
        2, "-m", "spd_lightning", "fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run}",
        *options, "--trainer.devices=2", "--trainer.strategy=fsdp",
    )  # fmt: skip
    results = json.loads((run / "results.json").read_text())
    assert {s["method"] for s in results["scores"]} == {"base", "spd"}
    assert (run / "adapter" / "adapter_model.safetensors").is_file() and (run / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.ddp
def test_started_by_lightning_with_one_held_out_text(tiny_model_dir: str, tmp_path: Path) -> None:
    """The second process was started by the first, and has no text to validate on: neither waits for the other."""
    run = tmp_path / "run"
    options = [s for s in SETTINGS if not s.startswith(("--trainer.devices", "--evaluation"))]
    command = [sys.executable, "-m", "spd_lightning", "fit", f"--subspace.model_name_or_path={tiny_model_dir}"]
    command += [f"--run_dir={run}", "--config", str(ROOT / "configs" / "trainer" / "early_stopping.yaml"), *options]
    command += ["--evaluation.tasks=[letters]", "--evaluation.limit=3", "--data.val_fraction=0.05"]
    command += ["--trainer.devices=2", "--trainer.strategy=fsdp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the best by val/loss" in done.stderr and (run / "adapter" / "adapter_model.safetensors").is_file()


def test_the_older_wrapper_is_refused(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={tmp_path / 'run'}", *SETTINGS]
    assert main([*args, "--trainer.strategy=fsdp_cpu_offload"]) == 2
    assert "trainer.strategy='fsdp_cpu_offload' cannot hold" in capsys.readouterr().err


@pytest.mark.gpu
def test_one_gpu_trains_the_student_of_one_cpu_process(tiny_model_dir: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: run on a machine with one to test FSDP under nccl")
    launch(1, "-m", "tests.integration.fsdp_worker", tiny_model_dir, str(tmp_path), "gpu")
    module = train(tiny_model_dir, "auto")
    assert module.model is not None
    found = saved(tmp_path / "lora")
    for name, weight in trained_weights(module.model).items():
        torch.testing.assert_close(found[name.replace(".default.", ".")], weight, rtol=1e-2, atol=1e-3)
