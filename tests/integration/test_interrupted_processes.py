"""Two processes, interrupted: what started them, or one of them. All end, one line is said, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.integration.test_cli_ddp import DDP, OPTIONS, TORCHRUN
from tests.integration.test_interrupted import Process, quiet
from tests.integration.test_processes import left_behind

pytestmark = [pytest.mark.ddp, pytest.mark.slow]

STAGES = ("extract", "generate", "fine_tune", "evaluate")
SMALL = [o for o in OPTIONS if not o.startswith("--model.lora_dropout")]  # masks are drawn, and the same after all
SMALL += ["--data.batch_size=2", "--model.batch_size=2", "--trainer.max_epochs=2", DDP, "--trainer.devices=2"]
EQUAL = (
    "subspace/subspace.safetensors",
    "corpus/generations.jsonl",
    "adapter/adapter_model.safetensors",
    "samples/letters.base.jsonl",
    "samples/letters.spd.jsonl",
    "samples/functions.projected.jsonl",
)


@pytest.fixture(scope="module")
def straight(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    process = start(tiny_model_dir, folder)
    assert process.end(300) == 0, process.shown[-3000:]
    return folder


def start(model: str, folder: Path, fail: str = "", torchrun: bool = False) -> Process:
    folder.parent.mkdir(exist_ok=True)
    args = ["fit", f"--subspace.model_name_or_path={model}", f"--run_dir={folder}", *SMALL]
    launch = {"launch": (*TORCHRUN, "2")} if torchrun else {}
    return Process(args, folder.parent, fail=fail, **launch)


def pausing(model: str, folder: Path, stage: str, torchrun: bool = False) -> Process:
    """A run whose processes have both come to the pause in a stage."""
    process = start(model, folder, f"{stage}:0:pause,{stage}:1:pause", torchrun)
    for rank in (0, 1):
        process.wait_for(f"rank {rank}: pause in {stage}")
    return process


def process_of(rank: int, folder: Path) -> int:
    """Id of the process of a rank."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            line, environment = path.with_name("cmdline").read_bytes(), path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in line and f"LOCAL_RANK={rank}".encode() in environment.split(b"\0"):
            return int(path.parent.name)
    raise AssertionError(f"there is no rank {rank}")


def gone(folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while there := left_behind(folder):
        assert time.monotonic() < deadline, there
        time.sleep(0.1)


def told(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if line.startswith("Interrupted")]


def finishes_like(straight: Path, model: str, folder: Path, torchrun: bool = False) -> None:
    process = start(model, folder, torchrun=torchrun)
    assert process.end(300) == 0, process.shown[-3000:]
    for name in EQUAL:
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), name
    scores = [json.loads((run / "results.json").read_text())["scores"] for run in (folder, straight)]
    assert [row | {"seconds": 0} for row in scores[0]] == [row | {"seconds": 0} for row in scores[1]]


@pytest.mark.parametrize(
    ("torchrun", "whom", "number"),  # every two of them together
    [
        (False, "launcher", signal.SIGINT),
        (False, "rank 1", signal.SIGTERM),
        (True, "launcher", signal.SIGTERM),
        (True, "rank 1", signal.SIGINT),
    ],
    ids=["ddp, launcher", "ddp, rank 1", "torchrun, launcher", "torchrun, rank 1"],
)
def test_in_every_stage(
    straight: Path, tiny_model_dir: str, tmp_path: Path, number: signal.Signals, whom: str, torchrun: bool
) -> None:
    """torchrun ends with a status and a traceback of its own; what the processes say is one line there, too."""
    folder = tmp_path / "x" / "run"
    for stage, line in zip(STAGES, (1, 2, 3, 4), strict=True):
        process = pausing(tiny_model_dir, folder, stage, torchrun)
        begun = time.monotonic()
        os.kill(process.process.pid if whom == "launcher" else process_of(1, folder), number)
        status = process.end()
        gone(folder, 10)
        took = time.monotonic() - begun
        at = " at step 2 of " if stage == "fine_tune" else ""
        assert len(told(process.shown)) == 1, process.shown[-3000:]
        assert told(process.shown)[0].startswith(f"Interrupted in stage {line}{at}"), process.shown[-3000:]
        assert took < 30, "10 s on a machine that is not shared"
        if torchrun:
            assert status != 0 and "spd_lightning/" not in process.shown, process.shown[-3000:]
        else:
            assert status == 128 + number and quiet(process.shown), process.shown[-3000:]
    finishes_like(straight, tiny_model_dir, folder, torchrun)


def test_a_key_that_all_hear_and_a_second_one(straight: Path, tiny_model_dir: str, tmp_path: Path) -> None:
    """Ctrl-C reaches both at once: their training is saved. Twice, all end at once, from the checkpoint before."""
    folder = tmp_path / "x" / "run"
    process = pausing(tiny_model_dir, folder, "fine_tune")
    for _ in range(2):
        process.press(b"\x03")
        time.sleep(0.5)
    assert process.end() == 130 and quiet(process.shown), process.shown[-3000:]
    assert told(process.shown) == ["Interrupted in stage 3. The same command goes on from there."]
    gone(folder, 10)
    process = pausing(tiny_model_dir, folder, "fine_tune")
    assert "Starting at optimiser step 0 of" in process.shown
    process.press(b"\x03")
    assert process.end() == 130 and quiet(process.shown), process.shown[-3000:]
    assert [line.split(" of ")[0] for line in told(process.shown)] == ["Interrupted in stage 3 at step 2"]
    gone(folder, 10)
    finishes_like(straight, tiny_model_dir, folder)


@pytest.mark.parametrize("seconds", [1.0, 4.0, 10.0])
def test_while_the_second_one_starts(tiny_model_dir: str, tmp_path: Path, seconds: float) -> None:
    """Behind "Starting": amid imports, amid their meeting, amid the first stage."""
    folder = tmp_path / "x" / "run"
    process = start(tiny_model_dir, folder)
    process.wait_for("Run folder:")
    time.sleep(seconds)
    process.press(b"\x03")
    assert process.end() == 130 and quiet(process.shown), process.shown[-3000:]
    assert len(told(process.shown)) == 1, process.shown[-3000:]
    gone(folder, 10)
