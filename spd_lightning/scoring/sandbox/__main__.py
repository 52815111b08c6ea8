"""The supervisor: starts each program in fresh interpreters, watches it, judges it and leaves nothing behind.

Run as ``python -I -S -B sandbox/`` by ``execution.py``, so that nothing is ever forked from a process with threads, and
so that ``ctypes`` is never loaded beside a program. Standard input brings JSON lines: first the settings, then one task
(`Supervisor.run`) each; standard output returns one ``{"passed", "reason", "seconds"}`` each, and where the machine
would not have it a ``problem``, its ``number`` (errno), and whether the program had ``begun``.
"""

from __future__ import annotations

import json
import signal
import sys

import landlock
from supervisor import Supervisor


def serve() -> None:
    """Answer programs until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process by closing the pipe
    version = landlock.version()
    settings, supervisor = json.loads(sys.stdin.readline()), None
    try:
        for line in sys.stdin:
            try:
                supervisor = supervisor or Supervisor(settings)
                answer = supervisor.run(json.loads(line))
            except OSError as error:
                answer = {"passed": False, "reason": "no-verdict", "seconds": 0.0, "problem": str(error)}
                answer |= {"begun": supervisor is not None and supervisor.begun, "number": error.errno or 0}
            print(json.dumps({**answer, "landlock": version}), flush=True)
    finally:
        if supervisor is not None:
            supervisor.close()


if __name__ == "__main__":
    serve()
