"""How a process ends; what becomes of the others is in tests/integration/test_processes.py."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch import distributed

from spd_lightning.cli import lifetime


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


def test_sigterm_gives_status_143_and_no_other_handler_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert before == signal.SIG_DFL
    ended: list[int] = []
    monkeypatch.setattr(lifetime, "CAUSE_S", 0.0)
    monkeypatch.setattr(lifetime.os, "_exit", ended.append)
    with pytest.raises(SystemExit, match="143"), lifetime.ended_by_sigterm():
        ours = signal.getsignal(signal.SIGTERM)
        with lifetime.ended_by_sigterm():
            assert signal.getsignal(signal.SIGTERM) == ours, "the outer one stays in charge"
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before and signal.set_wakeup_fd(-1) == -1
    for thread in lifetime.threading.enumerate():
        if thread.name == "ended-by-sigterm":
            thread.join(timeout=5)
    assert ended == [143], "also where the main thread never comes to its handler"
