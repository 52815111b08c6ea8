"""The process group of GPUs (nccl) through the command line, with one process: the code path of many."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.integration.test_cli_ddp import DDP, fit, ok

pytestmark = [pytest.mark.gpu, pytest.mark.ddp, pytest.mark.slow]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: run it on a machine that has one")
def test_one_nccl_process_agrees_with_a_run_without_a_process_group(tiny_model_dir: str, tmp_path: Path) -> None:
    gpu = ["--trainer.accelerator=gpu", "--trainer.devices=1"]
    ok(fit(tiny_model_dir, tmp_path / "one" / "run", *gpu))
    against = f"--check_against={tmp_path / 'one' / 'run'}"
    done = fit(tiny_model_dir, tmp_path / "nccl" / "run", *gpu, DDP, against)
    assert "BROKEN" not in ok(done)
    assert "distributed_backend=nccl" in done.stderr
