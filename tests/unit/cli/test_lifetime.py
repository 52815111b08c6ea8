"""How a process ends; what becomes of the others is in tests/integration/test_processes.py."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import distributed

from spd_lightning.cli import lifetime
from spd_lightning.errors import UserError
from spd_lightning.pipeline import children, interruption
from spd_lightning.pipeline.children import interrupted_by
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
    monkeypatch.setattr(lifetime, "LEAVE_S", 0.0)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=str(128 + number)), lifetime.interrupted_by_signals():
        assert signal.getsignal(number) == interruption.on_signal
        with lifetime.interrupted_by_signals():
            assert signal.getsignal(number) == interruption.on_signal, "the outer one stays in charge"
        try:
            signal.raise_signal(number)
        finally:
            wait_until(lambda: bool(ended))
    assert signal.getsignal(number) == before and signal.set_wakeup_fd(-1) == -1
    assert ended[0] == 128 + number, "also where the main thread never comes to its handler"


def wait_until(true: Callable[[], bool]) -> None:
    """For what the thread beside does."""
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_what_a_library_makes_of_a_signal_is_told_as_the_interruption(capfd: pytest.CaptureFixture[str]) -> None:
    """PyTorch raises its own ValueError where its C++ asks Python for a shape, and Python raises what the signal is."""

    def read(signalled: bool) -> None:
        try:
            if signalled:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)
        except Interrupted:
            pass
        raise UserError("subspace.safetensors cannot be read")

    with pytest.raises(Interrupted, match="143"), lifetime.interrupted_by_signals():
        interruption.in_stage("generate")
        read(True)
    assert "Interrupted in stage 2." in capfd.readouterr().err
    with pytest.raises(UserError, match="cannot be read"), lifetime.interrupted_by_signals():
        read(False)


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under nohup SIGHUP is."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with lifetime.interrupted_by_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_training_is_held_to_its_step_and_a_second_signal_ends_at_once(
    ended: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    reached = []
    with pytest.raises(Interrupted, match="143"), lifetime.interrupted_by_signals():
        interruption.in_stage("fine_tune")
        with interruption.held():
            interruption.STANDING.held = True
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.5)
            reached.append("the step is finished")
            assert not ended
            signal.raise_signal(signal.SIGINT)
            wait_until(lambda: bool(ended))
        pytest.fail("the stage ended, and the command goes on")
    assert reached and ended[0] == 130
    line = "Interrupted in stage 3. The same command goes on from there."
    assert interruption.STANDING.told() == line and line in capfd.readouterr().err


def test_a_training_that_has_not_begun_a_step_is_left_at_once(ended: list[int]) -> None:
    """Its model is being loaded, say: there is nothing to save, and nothing to wait for."""
    with pytest.raises(Interrupted, match="143"), lifetime.interrupted_by_signals():
        interruption.in_stage("fine_tune")
        with interruption.held():
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the training goes on")


def test_a_step_that_cannot_be_left_ends_the_process_after_its_patience(
    ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread is inside a library, where no handler runs: a long backward pass, a collective."""
    monkeypatch.setattr(lifetime, "PATIENCE", -0.5)
    monkeypatch.setattr(interruption, "PATIENCE", 60.0)
    with pytest.raises(Interrupted), lifetime.interrupted_by_signals(), interruption.held():
        interruption.STANDING.held = True
        begun = time.monotonic()
        signal.raise_signal(signal.SIGTERM)
        wait_until(lambda: bool(ended))
        assert ended[0] == 143 and 0.4 < time.monotonic() - begun < 5
    with pytest.raises(Interrupted), lifetime.interrupted_by_signals(), interruption.held():
        del ended[:]
        interruption.STANDING.held = interruption.STANDING.saving = True
        signal.raise_signal(signal.SIGTERM)
        time.sleep(1.0)
        assert not ended, "what is being saved may take its time"


def test_among_several_the_signal_that_comes_while_it_leaves_is_no_second_one(
    ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun and SLURM send it to all once one has ended."""
    monkeypatch.setattr(lifetime, "several", lambda: True)
    with pytest.raises(Interrupted, match="130"), lifetime.interrupted_by_signals():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            time.sleep(0.2)
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert not ended


@pytest.mark.parametrize(
    ("status", "number"), [(143, 15), (130, 2), (129, 1), (-15, 15), (-2, 2), (-9, None), (137, None), (1, None)]
)
def test_the_signal_that_ended_a_child(status: int, number: int | None) -> None:
    assert interrupted_by(status) == number


@pytest.mark.parametrize("status", [143, 3])
def test_it_ends_with_its_children(status: int, ended: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was interrupted interrupts it, another cause ends it with status 1, its children too."""
    monkeypatch.setattr(children, "CAUSE_S", 0.0)
    one, other = (subprocess.Popen(["sh", "-c", code]) for code in (f"exit {status}", "exec sleep 60"))
    how = pytest.raises(Interrupted, match="143") if status == 143 else contextlib.nullcontext()
    with how, lifetime.interrupted_by_signals():
        children.end_with([one, other])
        wait_until(lambda: bool(ended))
    if status == 3:
        assert ended == [1] and other.wait(timeout=10) == -signal.SIGKILL
    other.kill()
    other.wait(timeout=10)


@pytest.mark.parametrize(("rank", "said"), [({}, True), ({"LOCAL_RANK": "1"}, False), ({"RANK": "0"}, True)])
def test_amid_imports_a_signal_ends_it_with_one_line(rank: dict[str, str], said: bool) -> None:
    code = "import os, signal\nfrom spd_lightning.cli.start import ended_by_signals\n"
    code += "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
    code += "with ended_by_signals():\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    environment = {**{k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "SLURM_PROCID")}, **rank}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    line = "\nInterrupted. Give the same command again.\n"
    assert (done.returncode, done.stderr) == (143, line if said else "")


@pytest.mark.parametrize(("status", "torn_down"), [(143, ""), (2, "torn down\n")])
def test_after_a_signal_it_leaves_at_once(status: int, torn_down: str) -> None:
    """What was to be done at exit is done and printed; the interpreter does not take itself apart, which takes long."""
    code = "import atexit, sys\nfrom spd_lightning.cli.start import leave\n"
    code += "class Late:\n    def __del__(self, out=sys.stdout):\n        print('torn down', file=out, flush=True)\n"
    code += "sys.late = Late()\natexit.register(print, 'at exit')\nprint('before')\n"
    done = subprocess.run([sys.executable, "-c", f"{code}leave({status})"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, f"before\nat exit\n{torn_down}", "")


@pytest.mark.parametrize(("late", "status"), [("os.kill(os.getpid(), 2)", -2), ("time.sleep(60)", 130)])
def test_what_is_done_at_exit_is_bounded_and_a_second_key_ends_it(late: str, status: int) -> None:
    code = "import atexit, os, time\nfrom spd_lightning.cli import start\nstart.AT_EXIT_S = 0.5\n"
    code += f"atexit.register(lambda: ({late}, time.sleep(60)))\nstart.leave(130)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
