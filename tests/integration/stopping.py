"""``python -m tests.integration.stopping ROOT ...``: runs commands, each in a fork of its own, and stops them anywhere.

A line of JSON asks for a command: ``args``, ``environment``, and where it is stopped: ``point`` (the number of a crash
point) or ``after`` (seconds); or what becomes of the disk, and when (``fault``). An answer has its ``status`` (-9 if it
was stopped), ``seconds``, ``points`` (the names of those it passed), whether the fault was ``met``, and ``shown``. A
fork has all libraries imported, so a command takes its own time alone.

A crash point is a write, an fsync, a rename, a mkdir, an open for writing or a removal beneath a ROOT, as Python does
them: what a library writes by itself is seen when that is synced or renamed. Of a write, half is done.

A fault begins at the first point whose name holds ``at`` (at once where that is empty), and stays: from then on, points
of some kinds fail with the number ``disk`` (`KINDS_OF`), as a disk would have them fail; or ``do`` is done once, with
``what`` (`DONE_TO`).
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import importlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WANTED = ("matplotlib.pyplot", "peft", "transformers.models.llama.modeling_llama", "spd_lightning.cli.program")
CHANGING = ("write", "open", "mkdir", "rename", "remove", "rmdir")
KINDS_OF = {
    errno.ENOSPC: ("write", "mkdir"),
    errno.EDQUOT: ("write", "mkdir"),
    errno.EIO: ("write", "fsync", "read"),
    errno.EROFS: CHANGING,
    errno.ESTALE: ("write", "fsync", "open", "mkdir", "rename"),
}
NOBODY = 65534


def _no_more_files(_: str) -> None:
    with open(os.devnull) as file:
        free = file.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _no_large_files(size: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))


def _not_allowed(folder: str) -> None:
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    else:
        os.chmod(folder, 0o500)


def _fill(file: str) -> None:
    """Fill the file system, to the last byte, that a file is to stand in."""
    with contextlib.suppress(OSError), open(file, "wb", buffering=0) as filler:
        for size in (2**16, 1):
            with contextlib.suppress(OSError):
                while filler.write(bytes(size)):
                    pass


def _pause(file: str) -> None:
    """Wait as long as a file stands, which is made now and somebody else removes."""
    Path(file).touch()
    deadline = time.monotonic() + 300
    while os.path.exists(file) and time.monotonic() < deadline:
        time.sleep(0.02)


def _without_locks(_: str) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = refuse


DONE_TO = {
    "pause": _pause,
    "without locks": _without_locks,
    "too many files": _no_more_files,
    "no large files": _no_large_files,
    "not allowed": _not_allowed,
    "removed": shutil.rmtree,
    "full": _fill,
}


class Points:
    """Counts crash points in this process and ends it at one, or has the disk fail from one on.

    Args:
        roots: Folders beneath which something counts.
        stop: Number of the point that the process ends at, from 1; 0 for none.
        file: Descriptor that every point's name is written to, a line each.
        fault: What becomes of the disk; empty for nothing.
    """

    def __init__(self, roots: Sequence[str], stop: int, file: int, fault: Mapping[str, Any]) -> None:
        self.roots, self.stop, self.file, self.count = tuple(f"{root}/" for root in roots), stop, file, 0
        self.real_write, self.real_open = os.write, io.open
        self.fault, self.met = dict(fault), False

    def arm(self) -> None:
        """From here on, everything counts."""
        real_fsync, real_sendfile = os.fsync, os.sendfile

        def fsync(descriptor: int) -> None:
            self.at("fsync", descriptor)
            real_fsync(descriptor)

        def write(descriptor: int, data: Any) -> int:
            if self.at("write", descriptor, end=False):
                self.real_write(descriptor, memoryview(data)[: len(data) // 2])
                self.end("write")
            return self.real_write(descriptor, data)

        def sendfile(out: int, source: int, offset: int, count: int) -> int:
            if self.at("write", out, end=False):
                real_sendfile(out, source, offset, max(1, min(count, os.fstat(source).st_size) // 2))
                self.end("write")
            return real_sendfile(out, source, offset, count)

        os.fsync, os.write, os.sendfile = fsync, write, sendfile  # type: ignore[assignment]
        io.open = builtins.open = self.open  # type: ignore[assignment]
        if self.fault and not self.fault["at"]:
            self._fails("", "")
        sys.addaudithook(self.audit)

    def open(self, file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        """A file whose writes count."""
        opened = self.real_open(file, mode, *args, **options)
        if not isinstance(file, (str, Path)):
            return opened
        if not set(mode) & set("wax+"):
            return self.unreadable(opened, os.path.abspath(file)) if self.fault else opened
        real = opened.write

        def write(data: Any) -> int:
            if self.at("write", file, end=False):
                real(data[: len(data) // 2])
                opened.flush()
                self.end("write")
            return int(real(data))

        opened.write = write  # type: ignore[method-assign]
        return opened

    def unreadable(self, opened: Any, path: str) -> Any:
        """A file that cannot be read where the fault is such."""
        for name in ("read", "readinto", "readline"):
            real = getattr(opened, name, None)

            def read(*args: Any, real: Any = real) -> Any:
                if path.startswith(self.roots) and self._fails("read", path):
                    self.end("read")
                return real(*args)

            if real is not None:
                setattr(opened, name, read)
        return opened

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """What Python itself tells of."""
        if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR):
            self.at("open", args[0])
        elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            self.at(event.removeprefix("os."), args[-3 if event == "os.rename" else 0])

    def at(self, kind: str, place: Any, end: bool = True) -> bool:
        """Pass a point; whether the process is to end here, if it is not ended."""
        path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.path.abspath(os.fsdecode(place))
        if not path.startswith(self.roots):
            return False
        self.count += 1
        self.real_write(self.file, f"{kind} {path}\n".encode())
        ends = self.count == self.stop or self._fails(kind, path)
        if ends and end:
            self.end(kind, path)
        return ends

    def _fails(self, kind: str, path: str) -> bool:
        """Whether the disk fails at this point."""
        if not self.fault:
            return False
        kinds = KINDS_OF.get(self.fault.get("disk", 0), ())
        if not self.met and self.fault["at"] in f"{kind} {path}":
            self.met = True
            self.real_write(self.file, b"met\n")
            if "do" in self.fault:
                DONE_TO[self.fault["do"]](self.fault["what"])
        return self.met and kind in kinds

    def end(self, kind: str, path: str | None = None) -> None:
        """As a plug that is pulled: nothing is flushed, no handler runs; or as the disk has it."""
        if self.fault:
            names = () if kind in ("write", "fsync", "read") else (path,)  # of a descriptor, the system names no file
            raise OSError(self.fault["disk"], os.strerror(self.fault["disk"]), *names)
        os.kill(os.getpid(), signal.SIGKILL)


def _run(asked: Mapping[str, Any], roots: Sequence[str]) -> dict[str, Any]:
    """One command."""
    with tempfile.TemporaryFile() as shown, tempfile.TemporaryFile() as points:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.setsid()
                os.dup2(shown.fileno(), 1)
                os.dup2(shown.fileno(), 2)
                os.environ.update(asked["environment"])
                tempfile.tempdir = None
                Points(roots, asked["point"], points.fileno(), asked["fault"]).arm()
                from spd_lightning.cli.program import main

                status = main(asked["args"])
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        clock = threading.Timer(asked["after"] or 600, os.killpg, (child, signal.SIGKILL))
        clock.start()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        clock.cancel()
        seconds = time.monotonic() - start
        for file in (shown, points):
            file.seek(0)
        passed = points.read().decode().splitlines()
        return {
            "status": code,
            "seconds": seconds,
            "points": [point for point in passed if point != "met"],
            "met": "met" in passed,
            "shown": shown.read().decode(errors="replace"),
        }


class Commands:
    """A process of this module, asked.

    Args:
        roots: Folders beneath which crash points count.
    """

    def __init__(self, *roots: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, *map(str, roots)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(
        self,
        args: Sequence[str],
        point: int = 0,
        after: float = 0,
        environment: Mapping[str, str] | None = None,
        fault: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run a command, stopped at a point or after some seconds, on a disk that fails, or as it is."""
        assert self.process.stdin is not None and self.process.stdout is not None
        asked = {"args": list(args), "point": point, "after": after, "environment": dict(environment or {})}
        asked["fault"] = dict(fault or {})
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.communicate(timeout=60)


if __name__ == "__main__":
    for name in WANTED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line), sys.argv[1:])), flush=True)
