"""On one GPU: the whole path in bf16, and stage 1 in float32 against the CPU. Skipped cleanly where there is none."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM

from spd_lightning import SubspaceExtractionModule
from spd_lightning.cli.program import main
from spd_lightning.subspace.capture import Batch, capture_gradients, collate, for_moments
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.sites import kv_sites
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


def moments_on(device: str, dtype: torch.dtype, folder: str) -> Moments:
    """The moments of that test by the core alone, which also computes in float64."""
    module = SubspaceExtractionModule(model_name_or_path=folder, task="arithmetic", num_examples=6, max_length=1024)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).requires_grad_(False).eval().to(device)
    batch = Batch(*(tensor.to(device) for tensor in collate(module.pairs["arithmetic"].encoded[0])))
    moments = Moments()
    moments.update(*for_moments(capture_gradients(model, batch, kv_sites(model, [0, 1])), batch, 0)[:2])
    return moments


@pytest.mark.parametrize(("dtype", "plain", "bound"), [("float64", False, 1e-10), ("float32", True, 1e-4)])
def test_what_sets_moments_of_the_gpu_apart(dtype: str, plain: bool, bound: float, tiny_model_dir: str) -> None:
    """The same sums in float64; and in float32 where attention is plain products: else its kernel is what differs.

    On a CPU float32 is within 1.8e-6 of float64 at every site, so cancellation in the keys is no reason for 1e-4.
    """
    exact = moments_on("cpu", torch.float64, tiny_model_dir)
    with sdpa_kernel(SDPBackend.MATH) if plain else contextlib.nullcontext():
        found = moments_on("cuda", getattr(torch, dtype), tiny_model_dir)
    apart = {}
    for key, site in exact.sites.items():
        pairs = (site.second_moment, found.sites[key].second_moment), (site.sum, found.sites[key].sum)
        apart[key] = [float((b.cpu() - a).norm() / a.norm()) for a, b in pairs]
    assert max(max(figures) for figures in apart.values()) <= bound, apart
