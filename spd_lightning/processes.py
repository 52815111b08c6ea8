"""The processes of a run: which one writes, how they take one decision, and that they end together.

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
from typing import Any, TypeVar

from lightning.pytorch.utilities import rank_zero_only
from torch import distributed

T = TypeVar("T")

PATIENCE_S = 5.0  # how long a failed process waits for the cause of its failure to be told by rank 0


def rank() -> int:
    """This process's rank; known before any process group is made."""
    return int(getattr(rank_zero_only, "rank", None) or 0)


def is_rank_zero() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes; nothing with one."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def agree(value: T) -> T:
    """Rank 0's value, on every process.

    What stands on the disk may change between two looks (another run shares the store), so only one process looks.

    Ranks:
        Collective; every process calls it, with any value.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    box: list[Any] = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def world_size() -> int:
    """Number of processes of this run."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather(part: list[Any]) -> list[list[Any]]:
    """The lists of all processes, in order of rank, on every process.

    Ranks:
        Collective; every process calls it.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [part]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, part)
    return parts


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, if it was started as one of several."""
    if "LOCAL_RANK" not in os.environ:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


@atexit.register
def _let_gloo_finish() -> None:
    """Give gloo's threads a moment without the interpreter's lock before the interpreter goes.

    The thread that ends a collective of a backward pass frees a Python object after the collective is done. If the
    interpreter is going away by then, the process aborts after all its work (pytorch/pytorch#190489): without this, one
    in eight under load. Destroying the process group does not help, since its threads live on.
    """
    if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() == "gloo":
        time.sleep(0.2)


def await_cause() -> None:
    """In a failed process that is not rank 0: wait, so that rank 0 tells the cause if it has it.

    Mostly the failure is that of rank 0 once more, or its consequence; then this process is ended meanwhile.
    """
    if not is_rank_zero():
        time.sleep(PATIENCE_S)


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
                time.sleep(PATIENCE_S)
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
