"""How a process ends; what becomes of the others is in tests/integration/test_processes.py."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import distributed

from spd_lightning.cli import lifetime
from spd_lightning.pipeline import interruption
from spd_lightning.pipeline.interruption import Interrupted


def test_rank_0_tells_its_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime.time, "sleep", lambda seconds: pytest.fail("rank 0 tells its error at once"))
    lifetime.await_cause()


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
    message = lifetime.lost_process(error)
    assert (message is not None) == lost
    assert message is None or "give the same command again" in message


def test_gloo_gets_a_moment_at_the_end_of_a_process(tmp_path: Path) -> None:
    """A thread that wants the interpreter's lock just when the program ends still gets it; gloo's would abort else."""
    program = f"""
import threading, torch.distributed
from spd_lightning.cli.lifetime import let_gloo_finish_at_exit

let_gloo_finish_at_exit()
let_gloo_finish_at_exit()

torch.distributed.init_process_group("gloo", "file://{tmp_path}/store", world_size=1, rank=0)

def late():
    threading.main_thread().join()
    print("late", flush=True)

threading.Thread(target=late, daemon=True).start()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "late\n"


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Statuses with which the process would have been ended at once; no signal is ignored, as in a foreground."""
    statuses: list[int] = []
    monkeypatch.setattr(lifetime.os, "_exit", statuses.append)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in lifetime.INTERRUPTING}
    yield statuses
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_its_status_and_handlers_are_put_back(
    number: signal.Signals, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifetime, "CAUSE_S", 0.0)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=str(128 + number)), lifetime.interrupted_by_signals():
        assert signal.getsignal(number) == interruption.on_signal
        with lifetime.interrupted_by_signals():
            assert signal.getsignal(number) == interruption.on_signal, "the outer one stays in charge"
        signal.raise_signal(number)
    assert signal.getsignal(number) == before and signal.set_wakeup_fd(-1) == -1
    for thread in lifetime.threading.enumerate():
        if thread.name == "interrupted-by-signals":
            thread.join(timeout=5)
    assert ended == [128 + number], "also where the main thread never comes to its handler"


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under nohup SIGHUP is."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with lifetime.interrupted_by_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_training_is_held_to_its_step_and_a_second_signal_ends_at_once(ended: list[int]) -> None:
    reached = []
    with pytest.raises(Interrupted, match="143"), lifetime.interrupted_by_signals():
        interruption.in_stage("fine_tune")
        with interruption.held():
            signal.raise_signal(signal.SIGTERM)
            reached.append("the step is finished")
            signal.raise_signal(signal.SIGINT)
        pytest.fail("the stage ended, and the command goes on")
    assert reached and ended[0] == 130
    assert interruption.STANDING.told() == "Interrupted in stage 3. The same command goes on from there."
