"""Two and three gloo processes against one, through the command line: the same subspace, corpus, scores and student."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spd_lightning.cli.program import main
from tests.integration.test_cli_fit import SETTINGS

pytestmark = pytest.mark.ddp

OPTIONS = [
    *(s for s in SETTINGS if not s.startswith(("--trainer.devices", "--subspace.num_examples", "--data.num_prompts"))),
    "--subspace.num_examples=7",
    "--subspace.batch_tokens=1200",  # several batches, an uneven number for each process
    "--data.num_prompts=7",
    "--data.batch_size=3",
    "--model.lora_dropout=0",
]
DDP = "--trainer.strategy=ddp"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def fit(
    model: str, folder: Path, *options: str, torchrun: int = 0, environ: dict[str, str | None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``fit`` to its end, by torchrun with so many processes if that is named."""
    launch = [*TORCHRUN, str(torchrun)] if torchrun else [sys.executable]
    command = [*launch, "-m", "spd_lightning", "fit", f"--subspace.model_name_or_path={model}", f"--run_dir={folder}"]
    changed = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", **(environ or {})}
    environment = {name: value for name, value in changed.items() if value is not None}
    return subprocess.run([*command, *OPTIONS, *options], env=environment, capture_output=True, text=True, timeout=300)


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def one(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, threads = tmp_path_factory.mktemp("one") / "run", torch.get_num_threads()
    torch.set_num_threads(1)  # as the others have
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        options = [f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={folder}", *OPTIONS]
        assert main(["fit", *options, "--trainer.devices=1"]) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def two(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    nobody = {"WANDB_MODE": None, "WANDB_API_KEY": None, "WANDB_SILENT": None, "HOME": str(folder.parent)}
    done = fit(tiny_model_dir, folder, "--trainer.devices=2", DDP, environ=nobody)
    ok(done)
    (folder.parent / "stderr").write_text(done.stderr)
    return folder


def moments(run: Path) -> dict[str, torch.Tensor]:
    return load_file(next((run.parent / ".artifacts").glob("moments-*/moments.safetensors")))


def test_moments_agree_to_1e_10(one: Path, two: Path) -> None:
    a, b = moments(one), moments(two)
    assert a.keys() == b.keys() and a
    for name, value in a.items():
        difference = (value - b[name]).double().norm() / value.double().norm()
        assert difference <= 1e-10, (name, difference)


def test_benchmark_counts_and_base_scores_are_equal(one: Path, two: Path) -> None:
    scores = [json.loads((run / "results.json").read_text())["scores"] for run in (one, two)]
    names = [[(s["method"], s["task"], s["metric"], s["n"]) for s in rows] for rows in scores]
    assert names[0] == names[1]
    base = [[s["value"] for s in rows if s["method"] == "base"] for rows in scores]
    assert base[0] == base[1] and base[0]
    ids = [
        [json.loads(line)["id"] for line in (r / "samples/letters.base.jsonl").read_text().splitlines()]
        for r in (one, two)
    ]
    assert ids[0] == ids[1] and len(ids[0]) == 7


def test_students_agree(one: Path, two: Path) -> None:
    a, b = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, two))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-3, atol=1e-4)


def test_without_a_login_wandb_is_offline_and_that_is_said_once(two: Path) -> None:
    assert (two.parent / "stderr").read_text().count("W&B: not logged in, so it logs offline") == 1
    assert len(list((two / "logs" / "wandb").glob("offline-run-*"))) == 1


def test_three_torchrun_processes_agree_with_one_and_the_check_says_so(
    one: Path, tiny_model_dir: str, tmp_path: Path
) -> None:
    """7 examples on 3 processes; given the same subspace file the corpus has the same bytes."""
    shown = ok(fit(tiny_model_dir, tmp_path / "run", DDP, "--trainer.devices=3", f"--check_against={one}", torchrun=3))
    for name in ("corpus/generations.jsonl", "subspace/subspace.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (one / name).read_bytes()
    table = shown[shown.index("Against") :]
    assert "BROKEN" not in table
    for artifact in ("moments", "subspace", "corpus", "letters, base", "functions, projected", "adapter"):
        assert f"\n{artifact} " in table, table
