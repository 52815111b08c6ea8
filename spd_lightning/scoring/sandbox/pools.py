"""Beside the program, in its process: `multiprocessing` where there is no ``/dev/shm``.

A sandbox has none, since what stands there is everybody's. A semaphore is as many bytes in a pipe as it has places;
what else would stand there stands in the program's own folder. Nothing here is relied upon.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST = 32767  # places of a semaphore; a pipe holds more bytes


def semaphore_class() -> type:
    """A class that does what ``_multiprocessing.SemLock`` does."""
    import fcntl
    import os
    import select
    import struct
    import termios
    import threading
    import time

    class SemLock:
        """A semaphore, or a lock that its thread may take again (``kind`` 0), shared by processes that are forked."""

        SEM_VALUE_MAX = MOST

        def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
            self.kind, self.maxvalue, self.name = kind, maxvalue, None if unlink else name
            self._taken, self._owner = 0, 0
            self.handle, self._write_end = os.pipe()
            os.set_blocking(self.handle, False)
            os.write(self._write_end, bytes(value))

        def __del__(self) -> None:
            for number in (self.handle, self._write_end):
                os.close(number)

        def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
            if self.kind == 0 and self._is_mine():
                self._taken += 1
                return True
            end = None if timeout is None else time.monotonic() + max(0.0, timeout)
            poll = select.poll()
            poll.register(self.handle, select.POLLIN)
            while True:
                try:
                    os.read(self.handle, 1)
                except BlockingIOError:
                    left = None if end is None else end - time.monotonic()
                    if not block or (left is not None and left <= 0):
                        return False
                    poll.poll(None if left is None else 1000 * left)
                else:
                    self._taken, self._owner = self._taken + 1, threading.get_ident()
                    return True

        __enter__ = acquire

        def release(self) -> None:
            if self.kind == 0:
                if not self._is_mine():
                    raise AssertionError("attempt to release recursive lock not owned by thread")
                if self._taken > 1:
                    self._taken -= 1
                    return
            elif self._get_value() >= self.maxvalue:
                raise ValueError("semaphore or lock released too many times")
            self._taken -= 1
            os.write(self._write_end, b"\0")

        def __exit__(self, *error: object) -> None:
            self.release()

        def _count(self) -> int:
            return self._taken

        def _is_mine(self) -> bool:
            return self._taken > 0 and self._owner == threading.get_ident()

        def _get_value(self) -> int:
            return struct.unpack("i", fcntl.ioctl(self.handle, termios.FIONREAD, bytes(4)))[0]

        def _is_zero(self) -> bool:
            return self._get_value() == 0

        def _after_fork(self) -> None:
            self._taken = 0

    return SemLock


def semaphores(module: Any) -> None:
    """Of ``_multiprocessing``."""
    module.SemLock = semaphore_class()


def shared_memory(module: Any) -> None:
    """Of ``_posixshmem``: a file of the program's own folder."""
    import os

    home = os.environ["HOME"]
    module.shm_open = lambda path, flags, mode=0o777: os.open(home + path, flags, mode)
    module.shm_unlink = lambda path: os.unlink(home + path)


def arenas(module: Any) -> None:
    """Of ``multiprocessing.heap``: the folder for temporary files does too."""
    module.Arena._dir_candidates = []


def forking(module: Any) -> None:
    """Of ``multiprocessing.context``: a program that is in no file can only be forked; later Pythons start another."""
    module._default_context._default_context = module._concrete_contexts["fork"]


MENDED = {
    "_multiprocessing": semaphores,
    "_posixshmem": shared_memory,
    "multiprocessing.heap": arenas,
    "multiprocessing.context": forking,
}


class Finder:
    """Finds modules as others do, and mends some when they are loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in MENDED:
            return None
        for finder in sys.meta_path:
            spec: Any = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader.exec_module = mending(name, spec.loader.exec_module)
                return spec
        return None


def mending(name: str, load: Any) -> Any:
    """A loader's function that mends what it has loaded."""

    def load_and_mend(module: Any) -> None:
        load(module)
        MENDED[name](module)

    return load_and_mend


sys.meta_path.insert(0, Finder())
