"""How a process of a run ends: with its parent, on a signal, and after the cause of a failure was told.

A process that started others ends with them (`pipeline.children`), torchrun ends all when any dies. What neither does
is to end a process whose parent is gone, which would go on for as long as it computes alone: `end_with_parent` does.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Iterator

from torch import distributed

from spd_lightning.pipeline import interruption
from spd_lightning.pipeline.children import CAUSE_S, FAILED, INTERRUPTING, LOST
from spd_lightning.pipeline.interruption import PATIENCE, STANDING
from spd_lightning.processes import PARENT, is_rank_zero, several

LEAVE_S = 5.0  # how long a command that was interrupted has to be left


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


@contextlib.contextmanager
def why_others_are_gone() -> Iterator[None]:
    """Where rank 0 fails for another process that is gone: wait for the signal that tells that it was interrupted.

    That process's end is seen only once it is over: seconds after it stopped answering, on a machine that is busy.
    """
    try:
        yield
    except Exception as error:
        if lost_process(error) is not None and is_rank_zero():
            FAILED.wait(CAUSE_S + 3.0)
        raise


def lost_process(error: BaseException) -> str | None:
    """What to say of an error that only tells that another process of the run is gone; None for every other error."""
    text = str(error)
    lost = isinstance(error, distributed.DistError) or ("gloo" in text and "peer" in text)
    return LOST if lost else None


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP interrupt the command meanwhile (`interruption.on_signal`).

    A signal that is ignored (SIGHUP under nohup), or has a handler of someone else, stays as it is. A thread hears of
    them too, and ends a process that cannot be left: one that waits in a collective which never comes, say. What a
    library makes of a signal that comes amid it (an error of its own, of a file that it could not read, say) is none.
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
    threading.Thread(target=_listen, args=(heard, ours), daemon=True, name="interrupted-by-signals").start()
    before = {number: signal.signal(number, interruption.on_signal) for number in ours}
    descriptor = signal.set_wakeup_fd(told)
    try:
        yield
    except interruption.Interrupted:
        interruption.tell()
        raise
    except Exception as error:
        if not STANDING.leaving:
            raise
        interruption.tell()
        raise STANDING.leave() from error
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)


def _listen(heard: int, ours: list[signal.Signals]) -> None:
    """End the process a while after a signal, unless the command was left, and at once on a second one.

    Amid several processes a signal that comes when the stage is being left is none of the user's: what started them
    sends it once one of them has ended.
    """
    number, end = 0, math.inf
    while True:
        if select.select([heard], [], [], 0.1 if number else None)[0]:
            sent = os.read(heard, 64)
            if not sent:
                break
            for again in set(ours).intersection(sent):
                if not number:
                    number = again
                    end = time.monotonic() + (PATIENCE + 1.0 if STANDING.held else LEAVE_S)
                elif not (several() and (STANDING.leaving or STANDING.saving)):
                    interruption.end_at_once(again)
        if STANDING.saving:
            end = time.monotonic() + LEAVE_S
        elif time.monotonic() > end:
            interruption.end_at_once(number)
    os.close(heard)
