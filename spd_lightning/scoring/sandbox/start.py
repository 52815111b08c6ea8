"""Starting an interpreter behind the doors of a tier: its namespaces, limits, user and folder."""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import pathlib
import signal
import socket
import tempfile
from typing import Any

import calls
import kernel
import landlock
from leftovers import remove

HERE = pathlib.Path(__file__).parent
SIDES = {
    "": ("pools",),
    "asking": ("plain", "wire", "asking"),
    "answering": ("pools", "plain", "wire", "answering"),
}
PROCESSES, FILES = 128, 512  # of a program
PREFERRED = b"500"  # to end a program's process rather than any other, where memory runs out


class Started:
    """An interpreter that was started.

    Args:
        first: The child of this process on the way to it.
        report: Brings what went wrong before it.
        control: Leads to the interpreter's descriptor 3.
        user: Its user id, where it is not that of the supervisor.
        folder: Its own folder, where it has no namespaces.

    Attributes:
        reap: The child of this process that ends when the interpreter does, with its status.
        pid: The interpreter or, in tiers 1 and 2, process 1 above it.
    """

    def __init__(self, first: int, report: int, control: socket.socket, user: int, folder: str | None) -> None:
        self.reap = self.pid = first
        self.report, self.control, self.user, self.folder = report, control, user, folder

    def close(self) -> None:
        """Give back what belongs to it, when it has ended."""
        os.close(self.report)
        self.control.close()
        if self.folder is not None:
            remove(self.folder)


class Starter:
    """Starts interpreters under one tier.

    Args:
        settings: ``tier``, ``python`` (interpreter), ``visible`` (paths that the interpreter needs).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.tier: int | str = settings["tier"]
        self.python: str = settings["python"]
        self.visible: list[str] = settings["visible"]
        self.runner = (HERE / "runner.py").read_text(encoding="utf-8")
        self.modules = {}
        for name in {name for names in SIDES.values() for name in names}:
            self.modules[name] = compile((HERE / f"{name}.py").read_bytes(), f"<{name}>", "exec", 0, True)
        self.as_root = os.getuid() == 0
        self.namespaces = self.tier in (1, 2)
        self.other_user = self.as_root and self.tier in (3, "landlock")
        # Started by root: user ids that no account has, others for each supervisor and for each side, so that no two
        # programs, nor a program and its tests, can signal one another or share a limit of processes.
        self.users = {side: 53000 + 4096 * (side == "asking") + os.getpid() % 4096 for side in SIDES}
        self.filter = calls.program(without_effect=self.tier == "landlock" and not self.as_root)
        self.root = tempfile.mkdtemp(prefix="spd-root-")
        if self.as_root:
            os.chmod(self.root, 0o755)

    def start(
        self,
        source: str,
        timeout_s: float,
        memory_mb: int,
        side: str = "",
        arguments: tuple[Any, ...] = (),
        line: tuple[int, ...] = (),
        tests: str = "",
    ) -> Started:
        """Start an interpreter that waits for a word on its descriptor 3 before it runs what it was given.

        `finish` must follow, so that several can be started at a time.

        Args:
            source: The program, or the tests.
            timeout_s: Its time limit, seconds.
            memory_mb: Its limit of address space, MiB.
            side: A key of ``SIDES``.
            arguments: Of that side's function (plain values).
            line: Descriptors from and to the other side; none where program and tests share a process.
            tests: To run after ``source``, in its process.
        """
        user = self.users[side]
        folder = None
        if not self.namespaces:
            folder = tempfile.mkdtemp(prefix="spd-program-")
            if self.other_user:
                os.chown(folder, user, user)
        task = {
            "source": source.encode("utf-8", "surrogatepass"),
            "tests": tests.encode("utf-8", "surrogatepass"),
            "modules": [(name, self.modules[name]) for name in SIDES[side]],
            "side": side,
            "arguments": arguments,
        }
        limits = self.limits(timeout_s, memory_mb, user, side)
        ours, theirs = socket.socketpair()
        try:
            with theirs, os.fdopen(os.memfd_create("task"), "r+b") as file:  # a full disk keeps no program from it
                file.write(marshal.dumps(task))
                file.seek(0)
                first, report = self.fork((file.fileno(), theirs.fileno(), *line), user, folder, limits)
        except OSError:
            ours.close()
            if folder is not None:
                remove(folder)
            raise
        return Started(first, report, ours, user, folder)

    def limits(self, timeout_s: float, memory_mb: int, user: int, side: str) -> str:
        """The limits of a process, as the runner reads them."""
        limits = {
            "AS": memory_mb << 20,
            "CPU": int(timeout_s) + 2,
            "FSIZE": 16 << 20,
            "CORE": 0,
            "NOFILE": FILES,
            "NPROC": PROCESSES if self.namespaces or self.other_user else PROCESSES + kernel.own_threads(),
        }
        if self.tier == 1 and self.as_root:
            limits["UID"] = user
        if self.tier == 4 and side == "asking":
            limits["PRIVATE"] = 1
        return " ".join(f"{name}={value}" for name, value in limits.items())

    def fork(self, descriptors: tuple[int, ...], user: int, folder: str | None, limits: str) -> tuple[int, int]:
        """The first process on the way to the interpreter, and a descriptor that brings its report."""
        report_read, report_write = os.pipe()
        first = os.fork()
        if first == 0:
            try:
                self.child(descriptors, report_write, user, folder, limits)
            except BaseException as error:
                for number in (report_write, 4):  # where it was, and where `child` moves it
                    with contextlib.suppress(OSError):
                        os.write(number, f"!{type(error).__name__}: {error}".encode())
            os._exit(1)
        os.close(report_write)
        return first, report_read

    def finish(self, started: Started) -> None:
        """Wait until the interpreter is there, and note its process ids.

        Raises:
            OSError: Why it is not.
        """
        if self.tier == 2:  # its child waits until it is ours, or its parent's death would kill it
            os.waitpid(started.reap, 0)
            started.control.send(b"!")
        report = b""
        while part := os.read(started.report, 4096):
            report += part
            if self.tier == 1 and report.rstrip().endswith(b"}"):
                break
        if self.tier == 1 and report.startswith(b"{"):
            started.pid = int(json.loads(report)["child-pid"])
        elif self.tier == 2:
            pid, _, problem = report.partition(b"!")
            if problem or not pid:
                raise OSError(problem.decode(errors="replace") or "the namespace did not start")
            started.reap = started.pid = int(pid)
        elif report:
            raise OSError(report[1:].decode(errors="replace"))

    def child(self, descriptors: tuple[int, ...], report: int, user: int, folder: str | None, limits: str) -> None:
        """In the forked process: close the doors of the tier, then become the interpreter."""
        source, control, *line = descriptors
        os.setsid()
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(PREFERRED)
        if self.tier == 2:
            kernel.enter_namespaces(self.as_root)
            second = os.fork()
            if second:
                os.write(report, str(second).encode())
                os._exit(0)
            os.read(control, 1)
        kernel.LIBC.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for name in signal.valid_signals():
            with contextlib.suppress(OSError, ValueError):
                signal.signal(name, signal.SIG_DFL)
        # Safe numbers first, since low ones may be in use by what is moved.
        wanted = [os.dup2(number, 100 + i) for i, number in enumerate((source, null, null, control, report, *line))]
        for place, number in enumerate(wanted):
            os.dup2(number, place)
        os.set_inheritable(4, False)
        os.closerange(len(wanted), 4096)
        command = [self.python, "-P", "-s", "-S", "-B", "-W", "ignore", "-c", self.runner, limits]
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": folder or "/tmp"}
        environment |= {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1"}  # a verdict repeats; threads reserve little
        if folder is not None:
            environment["TMPDIR"] = folder
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        if self.tier == 1:
            self.exec_bubblewrap(command, environment)
        if self.tier == 2:
            kernel.build_root(self.root, self.visible, user if self.as_root else 0)
            kernel.drop_capabilities()
            third = os.fork()
            if third:
                kernel.be_process_one(third)
        if folder is not None:
            os.chdir(folder)
        if self.tier == "landlock":
            landlock.restrict(self.visible, folder or "/")
        if self.other_user or (self.as_root and self.tier == 2):
            kernel.become(user)
            kernel.LIBC.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # changing user cleared it
        calls.refuse(self.filter)
        os.execve(self.python, command, environment)

    def exec_bubblewrap(self, command: list[str], environment: dict[str, str]) -> None:
        """Become bubblewrap, which becomes the interpreter as process 1 of its own namespaces."""
        os.set_inheritable(4, True)
        options = ["--die-with-parent", "--new-session", "--info-fd", "4", "--cap-drop", "ALL"]
        options += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
        if self.as_root:  # no user namespace, so that the runner can give up root for a user of its own
            options += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            options += ["--unshare-user"]
        for folder in sorted({str(above) for path in self.visible for above in pathlib.PurePath(path).parents} - {"/"}):
            options += ["--perms", "0755", "--dir", folder]  # else they take the modes they have outside
        for path in self.visible:
            if os.path.islink(path):
                options += ["--symlink", os.readlink(path), path]
            else:
                options += ["--ro-bind", path, path]
        for device in ("null", "zero", "urandom"):
            options += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
        options += ["--perms", "1777", "--size", str(kernel.FOLDER_BYTES), "--tmpfs", "/tmp"]
        options += ["--chdir", "/tmp", "--remount-ro", "/"]
        if self.filter is not None:
            filter_read, filter_write = os.pipe()
            os.write(filter_write, self.filter)
            os.close(filter_write)
            os.set_inheritable(filter_read, True)
            options += ["--seccomp", str(filter_read)]
        os.execvpe("bwrap", ["bwrap", *options, "--", *command], {**environment, "PATH": os.environ["PATH"]})
