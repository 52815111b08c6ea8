"""A process that dies or fails in the middle of any stage: the run ends at once, nothing is left behind, and the same
command finishes it with the same result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.test_cli_ddp import DDP, OPTIONS, TORCHRUN, fit, ok

pytestmark = [pytest.mark.ddp, pytest.mark.slow]

SMALL = ["--data.batch_size=2", "--model.batch_size=2", "--trainer.max_epochs=2"]  # several batches for each process
EQUAL = ("subspace/subspace.safetensors", "corpus/generations.jsonl", "samples/letters.base.jsonl")


def start(model: str, folder: Path, fail: str, torchrun: bool, processes: int = 2) -> subprocess.Popen[bytes]:
    """Start ``fit`` with processes that fail as ``fail`` says (see failing.py); its output goes into a file."""
    launch = [*TORCHRUN, str(processes)] if torchrun else [sys.executable]
    command = [*launch, "-m", "tests.integration.failing", "fit", f"--subspace.model_name_or_path={model}"]
    options = [f"--run_dir={folder}", *OPTIONS, *SMALL, f"--trainer.devices={processes}"]
    environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "SPD_TEST_FAIL": fail}
    folder.parent.mkdir(exist_ok=True)
    with open(folder.parent / "output", "wb") as output:
        options += [DDP] if processes > 1 else []
        return subprocess.Popen([*command, *options], env=environment, stdout=output, stderr=subprocess.STDOUT)


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that name the run folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in line:
            found.append(line.decode().replace("\0", " "))
    return found


def wait_for(what: str, output: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while what not in output.read_text(errors="replace"):
        assert time.monotonic() < deadline, output.read_text(errors="replace")[-3000:]
        time.sleep(0.2)


def fails(model: str, folder: Path, fail: str, torchrun: bool = False) -> str:
    """Run until the failure; all processes must be gone within a minute of it, with a bad exit status."""
    process = start(model, folder, fail, torchrun)
    output = folder.parent / "output"
    wait_for(": ".join(("rank " + fail.split(":")[1], fail.split(":")[2].split(",")[0])), output)
    failed = time.monotonic()
    assert process.wait(timeout=60) != 0
    while left_behind(folder):
        assert time.monotonic() - failed < 60, left_behind(folder)
        time.sleep(0.2)
    return output.read_text(errors="replace")


@pytest.fixture(scope="module")
def straight(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    ok(fit(tiny_model_dir, folder, *SMALL, DDP, "--trainer.devices=2"))
    return folder


def finishes_like(straight: Path, model: str, folder: Path, torchrun: bool = False) -> None:
    process = start(model, folder, "", torchrun)
    assert process.wait(timeout=300) == 0, (folder.parent / "output").read_text(errors="replace")[-3000:]
    for name in EQUAL:
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), name
    a, b = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (straight, folder))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=0)


@pytest.mark.parametrize(("torchrun", "rank"), [(False, 1), (True, 0)], ids=["ddp launcher", "torchrun"])
def test_a_process_that_is_killed_in_every_stage(
    straight: Path, tiny_model_dir: str, tmp_path: Path, torchrun: bool, rank: int
) -> None:
    folder = tmp_path / "x" / "run"
    for stage in ("extract", "generate", "fine_tune", "evaluate"):
        fails(tiny_model_dir, folder, f"{stage}:{rank}:kill", torchrun)
    finishes_like(straight, tiny_model_dir, folder, torchrun)


def test_processes_end_with_rank_0_also_amid_a_long_batch(tiny_model_dir: str, tmp_path: Path) -> None:
    """No collective tells rank 1, which computes alone; and the error of one process is told once."""
    fails(tiny_model_dir, tmp_path / "x" / "run", "generate:0:kill,generate:1:hang")
    shown = fails(tiny_model_dir, tmp_path / "y" / "run", "generate:0:mistake,generate:1:hang")
    assert shown.count("error: made to fail in generate") == 1 and "Traceback" not in shown


def test_the_error_of_another_process_is_told(straight: Path, tiny_model_dir: str, tmp_path: Path) -> None:
    folder = tmp_path / "x" / "run"
    shown = fails(tiny_model_dir, folder, "generate:1:mistake")
    assert "[rank 1] error: made to fail in generate" in shown
    shown = fails(tiny_model_dir, folder, "fine_tune:1:raise")
    assert "RuntimeError: made to fail in fine_tune" in shown
    finishes_like(straight, tiny_model_dir, folder)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_ends_generation(tiny_model_dir: str, tmp_path: Path, processes: int) -> None:
    """Lightning alone takes a note of the signal and goes on."""
    folder = tmp_path / "x" / "run"
    process = start(tiny_model_dir, folder, "generate:0:hang,generate:1:hang", False, processes)
    wait_for("rank 0: hang", folder.parent / "output")
    if processes == 2:
        wait_for("rank 1: hang", folder.parent / "output")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    time.sleep(5)
    assert left_behind(folder) == []


def test_more_processes_than_examples(tiny_model_dir: str, tmp_path: Path) -> None:
    """2 examples, 2 prompts, 2 questions on 3 processes: one has nothing to do in any stage."""
    few = ["--subspace.num_examples=2", "--data.num_prompts=2", "--evaluation.limit=2"]
    one, three = tmp_path / "one" / "run", tmp_path / "three" / "run"
    ok(fit(tiny_model_dir, one, *few, "--trainer.devices=1"))
    ok(fit(tiny_model_dir, three, *few, "--trainer.devices=3", DDP, f"--check_against={one}"))


def test_what_is_communicated(tiny_model_dir: str, tmp_path: Path) -> None:
    """Stage 1 sends the moments once, whatever the number of tokens; stage 4 gathers a benchmark's records once."""
    counts: dict[int, list[tuple[str, str, int]]] = {}
    for examples in (3, 7):
        command = [sys.executable, "-m", "tests.integration.counting", "fit", *OPTIONS, DDP, "--trainer.devices=2"]
        folder = tmp_path / str(examples)
        options = [f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={folder / 'run'}"]
        options += [f"--subspace.num_examples={examples}", f"--data.num_prompts={examples + 1}"]
        environment = {**os.environ, "WANDB_MODE": "disabled", "SPD_TEST_COUNTS": str(folder)}
        ok(subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=300))
        ranks = [json.loads((tmp_path / f"{examples}-{rank}.json").read_text()) for rank in (0, 1)]
        assert [row[:2] for row in ranks[0]] == [row[:2] for row in ranks[1]], "the same collectives in the same order"
        counts[examples] = ranks[0]
    of = {n: {s: [(c, b) for stage, c, b in rows if stage == s] for s, _, _ in rows} for n, rows in counts.items()}
    assert of[3]["extract"] == of[7]["extract"]
    for stage in ("extract", "generate", "fine_tune"):  # rank 0 alone looks whether the stage is done already
        assert any(c == "broadcast_object_list" for c, _ in of[7][stage]), stage
    kv_dim, sites = 16, 4
    reduced = [b for c, b in of[7]["extract"] if c == "all_reduce" and b > 8]  # Lightning adds up the loaders' lengths
    # once for all examples, once for every second one, which tell whether the subspace hangs on the draw
    assert reduced == [8 * (kv_dim**2 + kv_dim + 1)] * 2 * sites
    for stage in ("extract", "generate"):  # Lightning sends the weights, though every process has loaded them
        assert sum(c == "_sync_module_states" for c, _ in of[7][stage]) == 1, stage
    small = [(c, b) for c, b in of[7]["generate"] if c not in ("_sync_module_states", "barrier")]
    assert sum(b for _, b in small) < 1000, small
    gathers = [b for c, b in of[7]["evaluate"] if c == "all_gather_object"]
    # For 3 models and 3 benchmarks: one gather of records each; beside them only whether the store has it, and whether
    # the model could be loaded.
    assert len(gathers) == 3 * (3 + 3 + 1) and sum(b > 1000 for b in gathers) == 9, gathers
