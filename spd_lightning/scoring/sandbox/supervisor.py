"""Watching what was started, judging it, and leaving nothing behind."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import platform
import re
import resource
import select
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import kernel
import usage
from cgroup import Group
from start import Started, Starter

LOOK_S = 0.05  # between two looks at what a program uses
WALL_TIMES = 4  # a program that does not use its processor time is stopped after so many times its limit
START_S = 30.0  # for the interpreter to start, on a busy machine
LAST_WORDS_S = 0.2  # for a program whose end of the line is closed to end too
MAX_REASON = 80
ENDED = ("crash", "gone", "no-verdict")  # how a program looks that something else ended


class Supervisor:
    """Runs programs one after the other under one tier.

    Args:
        settings: Those of `Starter`, and ``by_message`` (believe the hint, where the stack pointer cannot be seen).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.by_message: bool = settings["by_message"]
        self.begun = False  # whether the program that is judged was given the word to run
        self.starter = Starter(settings)
        self.group = Group()
        kernel.LIBC.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if self.starter.tier == 4:
            kernel.LIBC.prctl(kernel.PR_SET_DUMPABLE, 0, 0, 0, 0)

    def close(self) -> None:
        """Remove what the supervisor itself made."""
        os.rmdir(self.starter.root)
        self.group.close()

    def run(self, task: dict[str, Any]) -> dict[str, Any]:
        """Judge one program; afterwards no process and no file of it is left.

        Args:
            task: ``program``, ``timeout_s``, ``memory_mb``, ``tests`` that run after it in its process and, where they
                run in another one, ``apart``: ``tests``, ``definitions``, ``test_classes``, ``modules``, ``names`` and
                ``classes`` (`ProgramParts`).
        """
        self.begun = False
        limits = (task["timeout_s"], task["memory_mb"])
        grouped = self.group.limit(task["memory_mb"])
        started: list[Started] = []
        try:
            apart = task.get("apart")
            if apart is None:
                started.append(self.starter.start(task["program"], *limits, tests=task.get("tests", "")))
            else:
                answers, questions = os.pipe(), os.pipe()
                try:
                    words: tuple[Any, ...] = (apart["test_classes"], apart["classes"])
                    line = (questions[0], answers[1])
                    started.append(self.starter.start(task["program"], *limits, "answering", words, line))
                    words = (apart["definitions"], apart["modules"], apart["names"], apart["classes"])
                    line = (answers[0], questions[1])
                    started.append(self.starter.start(apart["tests"], *limits, "asking", words, line))
                finally:
                    for number in (*answers, *questions):
                        os.close(number)
            for process in started:
                self.starter.finish(process)
            self.kills, killed = self.group.kills(), usage.killed_for_memory()
            found = self.judge(started[-1], started[:-1], task["timeout_s"], None if grouped else task["memory_mb"])
            if self.group.kills() > self.kills:
                found |= {"passed": False, "reason": "memory"}
            elif found["reason"] in ENDED and usage.killed_for_memory() > killed:  # within its limit: no fault of its
                found |= {"begun": False, "problem": "the machine ran out of memory", "number": errno.ENOMEM}
            return found
        finally:
            self.kill_all()
            for process in started:
                process.close()

    # ---- judging

    def judge(self, judged: Started, others: list[Started], timeout_s: float, memory_mb: int | None) -> dict[str, Any]:
        """Watch a process until it passes, fails or its time is over.

        Args:
            judged: The process whose end decides: the tests, or tests and program in one.
            others: The program's process, where it has one of its own. It cannot make the verdict a pass.
            timeout_s: Processor time of all of them together, from when they began.
            memory_mb: What they may hold together, looked at here; None where the kernel does that.
        """
        # In tier 4 the tests' process hides its memory, and with it where it waits. Nothing of the program is in it.
        by_message = self.by_message or (bool(others) and self.starter.tier == 4)
        watches = []
        try:
            for process in (*others, judged):
                watches.append(self.await_start(process))
                if watches[-1] < 0:
                    return verdict(False, failure(process, b""), time.monotonic())
            watch, control = watches[-1], judged.control
            home = None if by_message else self.waiting_at(judged.pid, judged.user, patience_s=START_S)
            if home is None and not by_message:
                return verdict(False, "no-verdict", time.monotonic())
            spent = sum(usage.clock(process.pid) for process in (*others, judged))
            began = time.monotonic()
            look = began + LOOK_S
            self.begun = True
            for process in (*others, judged):
                process.control.send(b"!")
            said = b""
            sources: list[Any] = [control, watch]
            hinted = False
            while (now := time.monotonic()) < began + WALL_TIMES * timeout_s:
                if now >= look:
                    reason = self.exceeded((*others, judged), timeout_s + spent, memory_mb)
                    if reason:
                        return verdict(False, reason, began)
                    look = time.monotonic() + LOOK_S
                patience = 0.001 if hinted else max(0.0, look - now)
                ready: list[Any] = select.select(sources, [], [], patience)[0]
                if control in ready:
                    part = receive(control)
                    said = (said + part)[:MAX_REASON]
                    hinted = hinted or b"." in part
                    if not part:
                        sources.remove(control)  # closed by the program; the process is watched on
                if watch in ready:
                    reason = failure(judged, said)
                    if reason == "gone" and others:
                        reason = self.last_words(others[0], watches[0])
                    return verdict(False, reason, began)
                if hinted and (by_message or self.waiting_at(judged.pid, judged.user) == home):
                    return verdict(True, "passed", began)
            return verdict(False, "timeout", began)
        finally:
            for watch in watches:
                if watch >= 0:
                    os.close(watch)

    def exceeded(self, processes: tuple[Started, ...], seconds: float, memory_mb: int | None) -> str:
        """Which limit the programs that run are beyond, if any."""
        if self.group.kills() > self.kills:
            return "memory"
        with self.as_user(self.starter.users["answering"]):
            pids = usage.descendants(os.getpid())
            if memory_mb is not None and usage.memory(pids) > memory_mb << 20:
                return "memory"
        if any(process.folder and usage.too_large(process.folder, kernel.FOLDER_BYTES) for process in processes):
            return "disk"
        return "timeout" if usage.processor_seconds(pids) > seconds else ""

    def await_start(self, process: Started) -> int:
        """A descriptor that tells when the interpreter ends, once it waits for a word; -1 if it ended before."""
        process.control.setblocking(False)
        watch = os.pidfd_open(process.pid)
        said, began = b"", time.monotonic()
        while b"?" not in said and time.monotonic() - began < START_S:
            if watch in select.select([watch, process.control.fileno()], [], [], 1.0)[0]:
                os.close(watch)
                return -1
            said += receive(process.control)
        if self.starter.namespaces:  # nothing has begun, so the only child of process 1 is its interpreter
            process.pid = kernel.children(process.pid)[0]
            os.close(watch)
            watch = os.pidfd_open(process.pid)
        return watch

    def last_words(self, process: Started, watch: int) -> str:
        """Why the program's process no longer answers."""
        if watch not in select.select([watch], [], [], LAST_WORDS_S)[0]:
            return "no-verdict"  # it closed its end of the line
        said = b""
        while part := receive(process.control):
            said += part
        return failure(process, said[-MAX_REASON:])

    def waiting_at(self, pid: int, user: int, patience_s: float = 0.0) -> tuple[str, str] | None:
        """Stack pointer and program counter of the process's main thread, if it waits in ``read(3, ..., 1)``."""
        end = time.monotonic() + patience_s
        while True:
            try:
                with self.as_user(user), open(f"/proc/{pid}/syscall") as file:
                    words = file.read().split()
            except OSError:
                return None
            if len(words) == 9 and words[0] == str(kernel.READ_CALL.get(platform.machine())):
                return (words[7], words[8]) if (words[1], words[3]) == ("0x3", "0x1") else None
            if time.monotonic() >= end:
                return None
            time.sleep(0.0005)

    @contextlib.contextmanager
    def as_user(self, user: int) -> Iterator[None]:
        """Look as the user of a process: containers often lack the capability to look as another."""
        if not self.starter.other_user:
            yield
            return
        os.setegid(user)
        os.seteuid(user)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)

    # ---- clearing up

    def kill_all(self) -> None:
        """Kill and reap every descendant; orphans come to this process, since it is their reaper."""
        for round_ in itertools.count():
            for pid in kernel.children(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if round_ and round_ % 20 == 0:
                self.end_bomb(by_user=round_ >= 200)
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.0005)
            except ChildProcessError:
                return

    def end_bomb(self, by_user: bool) -> None:
        """Kill processes that start others faster than they are found: what was seen once starts no more.

        Args:
            by_user: Kill all that their user runs too, where that is no account's (and limits may not be changed).
        """
        for pid in usage.descendants(os.getpid()):
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(pid, resource.RLIMIT_NPROC, (0, 0))
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for user in set(self.starter.users.values()) if by_user and self.starter.other_user else ():
            if os.fork() == 0:
                with contextlib.suppress(OSError):
                    kernel.become(user)
                    os.kill(-1, signal.SIGKILL)
                os._exit(0)


def receive(control: socket.socket) -> bytes:
    """What is there to read, at most 64 KiB; empty when the other end is closed."""
    try:
        return control.recv(1 << 16)
    except OSError:
        return b""


def failure(process: Started, said: bytes) -> str:
    """The reason why a process that has ended did not pass; what it said counts only here.

    Above a namespace stands a process that ends with 128 + signal, as shells do.
    """
    code = 0
    for _ in range(100):
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(process.reap, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status)
            if pid:
                break
        time.sleep(0.0005)
    words = said.rpartition(b"!")[2].decode("utf-8", "replace") if b"!" in said else ""
    if code < 0 or code > 128:
        return "crash"
    if words in ("MemoryError", "memory"):
        return "memory"
    if words == "AssertionError":
        return "assertion"
    if words == "syntax":
        return "syntax"
    if re.fullmatch(r"=(gone|no-verdict|(returned|argument) [\w. -]+)", words):  # from the tests' side
        return words[1:]
    return f"error: {words}" if words.isidentifier() else "no-verdict"


def verdict(passed: bool, reason: str, began: float) -> dict[str, Any]:
    """One line of the answer."""
    return {"passed": passed, "reason": reason, "seconds": round(time.monotonic() - began, 4)}
