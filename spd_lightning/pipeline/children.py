"""The processes that this one started: it ends with them, and is interrupted where one of them was.

Lightning's launcher looks every five seconds for one that failed, and then kills all, itself included. Here the status
of the command stays one that tells something: that of the signal, or 1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from spd_lightning.pipeline.interruption import STANDING

INTERRUPTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FAILED = threading.Event()  # one of them ended, and was not interrupted
CAUSE_S = 5.0  # how long a failed process waits for the cause of its failure to be told by rank 0
LOST = (
    "another process of this run ended; its own message, if it left one, stands above. Mend the cause, then give the "
    "same command again to go on."
)


def interrupted_by(status: int) -> int | None:
    """The signal that ended a process with this status (as `subprocess` has it); None where it was another cause."""
    number = -status if status < 0 else status - 128
    return number if number in INTERRUPTING else None


def end_with(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt this process as soon as one of its children was, and end it after one that failed.

    Those that are still there end with this one (`cli.lifetime.end_with_parent`).
    """

    FAILED.clear()

    def watch() -> None:
        status: int | None = None
        while not status:
            time.sleep(0.1)
            statuses = [child.poll() for child in children]
            if not any(found is None for found in statuses) and not any(statuses):
                return
            status = next(filter(None, statuses), None)
        if (number := interrupted_by(status)) is not None:
            if STANDING.signal is None:
                os.kill(os.getpid(), number)
            return
        FAILED.set()
        time.sleep(CAUSE_S)  # mostly this process meets the consequence, and tells it
        for child in children:
            child.kill()
        print(f"error: {LOST}", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-children").start()
