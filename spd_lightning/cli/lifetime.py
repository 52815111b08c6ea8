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
import sys
import threading
import time
from collections.abc import Iterator

from torch import distributed

from spd_lightning.processes import PARENT, is_rank_zero, several

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
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the program with status 143 meanwhile; where there is another handler, that one stays.

    Lightning only takes a note of the signal in stages 1 and 2, and among several processes its handler waits in a
    collective that may never come. So a thread hears of it too, and ends a process that is still there after a while.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def listen() -> None:
        while numbers := os.read(heard, 64):
            if signal.SIGTERM in numbers:
                time.sleep(CAUSE_S)
                os._exit(128 + signal.SIGTERM)
        os.close(heard)

    threading.Thread(target=listen, daemon=True, name="ended-by-sigterm").start()
    handler = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    descriptor = signal.set_wakeup_fd(told)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGTERM, handler)
        os.close(told)
