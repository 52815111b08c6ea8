"""Two gloo processes against one, through the command line: the same subspace, corpus, scores and student."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

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


def fit(model: str, folder: Path, *options: str) -> None:
    command = [sys.executable, "-m", "spd_lightning", "fit", f"--subspace.model_name_or_path={model}"]
    environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, f"--run_dir={folder}", *OPTIONS, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    one, two = tmp_path_factory.mktemp("one") / "run", tmp_path_factory.mktemp("two") / "run"
    fit(tiny_model_dir, one, "--trainer.devices=1")
    fit(tiny_model_dir, two, "--trainer.devices=2", "--trainer.strategy=ddp")
    return one, two


def moments(run: Path) -> dict[str, torch.Tensor]:
    return load_file(next((run.parent / ".artifacts").glob("moments-*/moments.safetensors")))


def test_moments_agree_to_1e_10(runs: tuple[Path, Path]) -> None:
    one, two = (moments(run) for run in runs)
    assert one.keys() == two.keys() and one
    for name, value in one.items():
        difference = (value - two[name]).double().norm() / value.double().norm()
        assert difference <= 1e-10, (name, difference)


def test_corpus_has_the_same_bytes_given_the_same_subspace(
    runs: tuple[Path, Path], tiny_model_dir: str, tmp_path: Path
) -> None:
    one, _ = runs
    subspace = f"--data.subspace={one / 'subspace' / 'subspace.safetensors'}"
    fit(tiny_model_dir, tmp_path / "run", subspace, "--trainer.devices=2", "--trainer.strategy=ddp")
    name = "corpus/generations.jsonl"
    assert (tmp_path / "run" / name).read_bytes() == (one / name).read_bytes()


def test_benchmark_counts_and_base_scores_are_equal(runs: tuple[Path, Path]) -> None:
    one, two = (json.loads((run / "results.json").read_text())["scores"] for run in runs)
    assert [(s["method"], s["task"], s["metric"], s["n"]) for s in one] == [
        (s["method"], s["task"], s["metric"], s["n"]) for s in two
    ]
    base = [[s["value"] for s in scores if s["method"] == "base"] for scores in (one, two)]
    assert base[0] == base[1] and base[0]
    ids = [[json.loads(line)["id"] for line in (r / "samples/letters.base.jsonl").open()] for r in runs]
    assert ids[0] == ids[1] and len(ids[0]) == 7


def test_students_agree(runs: tuple[Path, Path]) -> None:
    one, two = (load_file(run / "adapter" / "adapter_model.safetensors") for run in runs)
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-3, atol=1e-4)
