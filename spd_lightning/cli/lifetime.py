"""How a process of a run ends: with its parent, on a signal, and after the cause of a failure was told.

Lightning's launcher ends all processes within five seconds when one that it started dies, torchrun when any dies. What
neither does is to end a process whose parent is gone, which would go on for as long as it computes alone:
`end_with_parent` does.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

from torch import distributed

from spd_lightning.pipeline import interruption
from spd_lightning.processes import PARENT, is_rank_zero, several

INTERRUPTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CAUSE_S = 5.0  # how long a failed process waits for the cause of its failure to be told by rank 0


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, if it is one of several, or that one asks for it.

    A program that starts others for its own ends (`sweep.runner`) puts its process id into `PARENT`.
    """
    if "LOCAL_RANK" in os.environ:
        parent = os.getppid()
    elif PARENT in os.environ:
        parent = int(os.environ[PARENT])
    else:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def let_gloo_finish() -> None:
    """Give gloo's threads a moment without the interpreter's lock before the interpreter goes.

    The thread that ends a collective of a backward pass frees a Python object after the collective is done. If the
    interpreter is going away by then, the process aborts after all its work (pytorch/pytorch#190489): without this, one
    in eight under load. Destroying the process group does not help, since its threads live on.
    """
    if several() and distributed.get_backend() == "gloo":
        time.sleep(0.2)


def let_gloo_finish_at_exit() -> None:
    """Have `let_gloo_finish` called when this program ends; once, however often it is asked for."""
    atexit.unregister(let_gloo_finish)
    atexit.register(let_gloo_finish)


def await_cause() -> None:
    """In a failed process that is not rank 0: wait, so that rank 0 tells the cause if it has it.

    Mostly the failure is that of rank 0 once more, or its consequence; then this process is ended meanwhile.
    """
    if not is_rank_zero():
        time.sleep(CAUSE_S)


def lost_process(error: BaseException) -> str | None:
    """What to say of an error that only tells that another process of the run is gone; None for every other error."""
    text = str(error)
    if not isinstance(error, distributed.DistError) and not ("gloo" in text and "peer" in text):
        return None
    return (
        "another process of this run ended; its own message, if it left one, stands above. Mend the cause, then give "
        "the same command again to go on."
    )


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP interrupt the command meanwhile (`interruption.on_signal`).

    A signal that is ignored (SIGHUP under nohup), or has a handler of someone else, stays as it is. A thread hears of
    them too, and ends a process that cannot be left: one that waits in a collective which never comes, say.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    free = (signal.SIG_DFL, signal.default_int_handler)
    ours = [number for number in INTERRUPTING if signal.getsignal(number) in free]
    if not ours:
        yield
        return
    interruption.begin()
    heard, told = os.pipe()
    os.set_blocking(told, False)
    left = threading.Event()

    def listen() -> None:
        while numbers := os.read(heard, 64):
            for number in set(numbers) & set(ours):
                _end_if_stuck(number, left)
        os.close(heard)

    threading.Thread(target=listen, daemon=True, name="interrupted-by-signals").start()
    before = {number: signal.signal(number, interruption.on_signal) for number in ours}
    descriptor = signal.set_wakeup_fd(told)
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)


def _end_if_stuck(number: int, left: threading.Event) -> None:
    """End the process a while after a signal, unless the command was left, or a training is on its way to its step."""
    waited = 0.0
    while waited < CAUSE_S:
        if left.wait(0.1):
            return
        waited = 0.0 if interruption.STANDING.held and not interruption.STANDING.leaving else waited + 0.1
    os._exit(128 + number)
