"""What the processes of a run tell each other; their death is in tests/integration/test_processes.py."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from spd_lightning import processes
from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
from spd_lightning.generation.module import SelfGenerationModule
from spd_lightning.generation.recipe import pending_batches
from spd_lightning.pipeline.trainers import PATIENCE, make_trainer


def test_one_process_agrees_with_itself_and_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.agree({"a": 1}) == {"a": 1}
    processes.barrier()
    monkeypatch.setattr(processes.time, "sleep", lambda seconds: pytest.fail("rank 0 tells its error at once"))
    processes.await_cause()


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[.../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"), True),
        (distributed.DistBackendError("NCCL communicator was aborted"), True),
        (RuntimeError("peer review"), False),
        (ValueError("rank=17"), False),
    ],
)
def test_only_the_loss_of_a_process_is_called_so(error: Exception, lost: bool) -> None:
    message = processes.lost_process(error)
    assert (message is not None) == lost
    assert message is None or "give the same command again" in message


def test_gloo_gets_a_moment_at_the_end_of_a_process(tmp_path: Path) -> None:
    """A thread that wants the interpreter's lock just when the program ends still gets it; gloo's would abort else."""
    program = f"""
import threading, torch.distributed
import spd_lightning.processes

torch.distributed.init_process_group("gloo", "file://{tmp_path}/store", world_size=1, rank=0)

def late():
    threading.main_thread().join()
    print("late", flush=True)

threading.Thread(target=late, daemon=True).start()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "late\n"


@pytest.mark.parametrize("strategy", ["auto", "ddp", DDPStrategy(timeout=timedelta(minutes=1))])
def test_a_process_waits_hours_for_a_slower_one_unless_told_otherwise(strategy: Any) -> None:
    """Half an hour, PyTorch's default, is less than one process may decode longer than another."""
    trainer = make_trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_checkpointing=False)
    assert isinstance(trainer.strategy, DDPStrategy)
    expected = PATIENCE if isinstance(strategy, str) else timedelta(minutes=1)
    assert trainer.strategy._timeout == expected and timedelta(hours=1) < PATIENCE


def test_sigterm_gives_status_143_and_no_other_handler_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert before == signal.SIG_DFL
    ended: list[int] = []
    monkeypatch.setattr(processes, "PATIENCE_S", 0.0)
    monkeypatch.setattr(processes.os, "_exit", ended.append)
    with pytest.raises(SystemExit, match="143"), processes.ended_by_sigterm():
        ours = signal.getsignal(signal.SIGTERM)
        with processes.ended_by_sigterm():
            assert signal.getsignal(signal.SIGTERM) == ours, "the outer one stays in charge"
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before and signal.set_wakeup_fd(-1) == -1
    for thread in processes.threading.enumerate():
        if thread.name == "ended-by-sigterm":
            thread.join(timeout=5)
    assert ended == [143], "also where the main thread never comes to its handler"


def test_what_is_left_of_a_corpus_is_dealt_out_evenly(tiny_model_dir: str, tmp_path: Path) -> None:
    """Also where all that was finished had been dealt to one process; a process without a share gets an empty batch."""
    data = SelfGenerationDataModule(
        tiny_model_dir,
        task="arithmetic",
        method="ssd",
        num_prompts=8,
        batch_size=2,
        max_prompt_length=1024,
        max_new_tokens=4,
        corpus_dir=str(tmp_path),
    )
    corpus = data.corpus()
    batches = pending_batches(data.recipe, corpus)
    assert len(batches) == 4
    corpus.append([{"id": r.id, "sample": r.sample} for r in (*batches[0], *batches[2])])
    assert [pending_batches(data.recipe, corpus, rank, 2) for rank in (0, 1)] == [[batches[1]], [batches[3]]]
    before = sorted(p.read_bytes() for p in tmp_path.iterdir())
    module = SelfGenerationModule(data.recipe, corpus)
    module.trainer = SimpleNamespace(global_rank=2, world_size=3)  # type: ignore[assignment]
    assert list(module.predict_dataloader()) == [[]]
    module.configure_model()
    assert module.generate([], 2) == []
    assert sorted(p.read_bytes() for p in tmp_path.iterdir()) == before
