"""The supervisor: starts each program in a fresh interpreter, watches it, judges it and leaves nothing behind.

Run as ``python _sandbox.py`` by ``execution.py`` so that nothing is ever forked from a process with threads, and so
that ``ctypes`` is never loaded beside a program. Standard input brings JSON lines: first the settings, then one
``{"program", "timeout_s", "memory_mb"}`` each; standard output returns one ``{"passed", "reason", "seconds"}`` each.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import json
import os
import pathlib
import platform
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NoReturn

LIBC = ctypes.CDLL(None, use_errno=True)
FOLDER_BYTES = 64 << 20  # a program's own folder in tiers 1 and 2
START_S = 30.0  # for the interpreter to start, on a busy machine
MAX_REASON = 80

# <linux/sched.h>, <sys/mount.h>, <linux/prctl.h>
NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mount, uts, ipc, pid, net
NEWUSER = 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 36, 38
SYS_MOUNT_SETATTR = 442  # the same on every architecture, as are all newer calls

# Calls refused to a program: other processes' memory, files that are only memory, new namespaces, the network.
# Columns: x86_64, aarch64.
DENIED_CALLS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "memfd_create": (319, 279),
    "execveat": (322, 281),
    "personality": (135, 92),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "kcmp": (312, 272),
    "open_by_handle_at": (304, 265),
    "socket": (41, 198),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
}
MACHINES = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}  # column, audit name, clone
CLONE3 = 435
READ_CALL = {"x86_64": 0, "aarch64": 63}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def check(result: int) -> int:
    """The result of a libc call, or the OSError it stands for."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def seccomp_program() -> bytes | None:
    """The filter of system calls (struct sock_filter[]), or None on a machine whose numbers are not known."""
    if platform.machine() not in MACHINES:
        return None
    column, audit_name, clone = MACHINES[platform.machine()]
    allow, deny, absent = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38  # EPERM, ENOSYS

    def step(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, k)

    load, equal, any_bit, at_least, give = 0x20, 0x15, 0x45, 0x35, 0x06
    steps = [step(load, 4), step(equal, audit_name, 1, 0), step(give, deny), step(load, 0)]
    if column == 0:  # the x32 twins of the calls
        steps += [step(at_least, 0x40000000, 0, 1), step(give, deny)]
    for numbers in DENIED_CALLS.values():
        steps += [step(equal, numbers[column], 0, 1), step(give, deny)]
    steps += [step(equal, CLONE3, 0, 1), step(give, absent)]  # its flags cannot be read here; libc falls back to clone
    steps += [step(equal, clone, 0, 3), step(load, 16), step(any_bit, 0x7E020000, 0, 1), step(give, deny)]
    return b"".join([*steps, step(give, allow)])


def refuse_calls(program: bytes | None) -> None:
    """Install the filter on this process and all it starts; no new privileges either."""
    check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if program is not None:
        steps = ctypes.create_string_buffer(program, len(program))

        class Filter(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

        wanted = Filter(len(program) // 8, ctypes.addressof(steps))
        check(LIBC.prctl(PR_SET_SECCOMP, 2, ctypes.byref(wanted), 0, 0))


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    check(LIBC.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]))


def build_root(root: str, visible: list[str], user: int) -> None:
    """Make ``root`` the root folder: the interpreter's files, read-only, an empty private /tmp, nothing else."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in visible:
        place = root + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), place)
            continue
        if os.path.isdir(path):
            os.makedirs(place, exist_ok=True)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        mount(path, place, None, MS_BIND | MS_REC)
    for folder in ("/tmp", "/dev"):
        os.makedirs(root + folder, exist_ok=True)
    for device in ("null", "zero", "urandom"):
        os.close(os.open(f"{root}/dev/{device}", os.O_CREAT | os.O_WRONLY))
        mount(f"/dev/{device}", f"{root}/dev/{device}", None, MS_BIND)
    attributes = (ctypes.c_uint64 * 4)(MS_RDONLY | MS_NOSUID, 0, 0, 0)
    here, recursive = -100, 0x8000  # AT_FDCWD, AT_RECURSIVE
    check(LIBC.syscall(SYS_MOUNT_SETATTR, here, os.fsencode(root), recursive, attributes, ctypes.sizeof(attributes)))
    options = f"size={FOLDER_BYTES},nr_inodes=4096,mode=700,uid={user},gid={user}"
    mount("tmpfs", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    os.chdir(root)
    check(LIBC.syscall(PIVOT_ROOT[platform.machine()], b".", b"."))
    check(LIBC.umount2(b".", MNT_DETACH))
    os.chdir("/tmp")


def enter_namespaces(as_root: bool) -> None:
    """Leave the machine's mounts, processes, network, names and (unless root) users; the next fork is process 1."""
    user, group = os.getuid(), os.getgid()
    check(LIBC.unshare(NEW_NAMESPACES | (0 if as_root else NEWUSER)))
    if not as_root:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def become(user: int) -> None:
    """Give up root for good."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def drop_capabilities() -> None:
    """Empty the bounding set, so that the program starts without capabilities even as uid 0 of its namespace."""
    for capability in range(64):
        if LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break


class Supervisor:
    """Runs programs one after the other under one tier.

    Args:
        settings: ``tier``, ``python`` (interpreter), ``runner`` (source of ``_runner.py``), ``visible`` (paths that
            the interpreter needs), ``by_message`` (believe the hint, where the stack pointer cannot be seen).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.tier: int = settings["tier"]
        self.python: str = settings["python"]
        self.runner: str = settings["runner"]
        self.visible: list[str] = settings["visible"]
        self.by_message: bool = settings["by_message"]
        self.as_root = os.getuid() == 0
        # Started by root: a user id that no account has, another one for each supervisor, so that the programs of
        # two can neither signal one another nor share a limit of processes.
        self.user = 61184 + os.getpid() % 4096
        self.filter = seccomp_program()
        self.root = tempfile.mkdtemp(prefix="spd-root-")
        if self.as_root:
            os.chmod(self.root, 0o755)
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def close(self) -> None:
        """Remove what the supervisor itself made."""
        os.rmdir(self.root)

    def run(self, program: str, timeout_s: float, memory_mb: int) -> dict[str, Any]:
        """Judge one program; afterwards no process and no file of it is left."""
        folder = None
        if self.tier >= 3:
            folder = tempfile.mkdtemp(prefix="spd-program-")
            if self.tier == 3:
                os.chown(folder, self.user, self.user)
        source = tempfile.TemporaryFile()  # noqa: SIM115 (closed below, once the child has it)
        source.write(program.encode("utf-8", "surrogatepass"))
        source.seek(0)
        ours, theirs = socket.socketpair()
        try:
            try:
                pid = self.start(source.fileno(), ours, theirs.fileno(), folder, timeout_s, memory_mb)
            finally:
                source.close()
                theirs.close()
            return self.judge(pid, ours, timeout_s)
        finally:
            ours.close()
            self.kill_all()
            if folder is not None:
                remove(folder)

    # ---- starting

    def start(
        self, source: int, ours: socket.socket, control: int, folder: str | None, timeout_s: float, memory_mb: int
    ) -> int:
        """Start the interpreter; returns its process id or, in tiers 1 and 2, that of process 1 above it."""
        report_read, report_write = os.pipe()
        first = os.fork()
        if first == 0:
            try:
                self.child(source, control, report_write, folder, timeout_s, memory_mb)
            except BaseException as error:
                for number in (report_write, 4):  # where it was, and where `child` moves it
                    with contextlib.suppress(OSError):
                        os.write(number, f"!{type(error).__name__}: {error}".encode())
            os._exit(1)
        os.close(report_write)
        if self.tier == 2:  # its child waits until it is ours, or its parent's death would kill it
            os.waitpid(first, 0)
            ours.send(b"!")
        report = b""
        while part := os.read(report_read, 4096):
            report += part
            if self.tier == 1 and report.rstrip().endswith(b"}"):
                break
        os.close(report_read)
        if self.tier == 1 and report.startswith(b"{"):
            return int(json.loads(report)["child-pid"])
        if self.tier == 2:
            pid, _, problem = report.partition(b"!")
            if problem or not pid:
                raise OSError(problem.decode(errors="replace") or "the namespace did not start")
            return int(pid)
        if report:
            raise OSError(report[1:].decode(errors="replace"))
        return first

    def child(
        self, source: int, control: int, report: int, folder: str | None, timeout_s: float, memory_mb: int
    ) -> None:
        """In the forked process: close the doors of the tier, then become the interpreter."""
        os.setsid()
        if self.tier == 2:
            enter_namespaces(self.as_root)
            second = os.fork()
            if second:
                os.write(report, str(second).encode())
                os._exit(0)
            os.read(control, 1)
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for name in signal.valid_signals():
            with contextlib.suppress(OSError, ValueError):
                signal.signal(name, signal.SIG_DFL)
        # Safe numbers first, since 0 to 5 may be in use by what is moved.
        wanted = [os.dup2(number, 100 + i) for i, number in enumerate((source, null, null, control, report))]
        for place, number in enumerate(wanted):
            os.dup2(number, place)
        os.set_inheritable(4, False)
        os.closerange(5, 4096)
        limits = {
            "AS": memory_mb << 20,
            "CPU": int(timeout_s) + 2,
            "FSIZE": 16 << 20,
            "CORE": 0,
            "NOFILE": 64,
            "NPROC": 32 if self.tier < 4 else 32 + own_threads(),
        }
        if self.tier == 1 and self.as_root:
            limits["UID"] = self.user
        limit_words = " ".join(f"{name}={value}" for name, value in limits.items())
        command = [self.python, "-P", "-s", "-S", "-B", "-W", "ignore", "-c", self.runner, limit_words]
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": folder or "/tmp"}
        environment |= {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1"}  # a verdict repeats; threads reserve little
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        if self.tier == 1:
            self.exec_bubblewrap(command, environment)
        if self.tier == 2:
            build_root(self.root, self.visible, self.user if self.as_root else 0)
            drop_capabilities()
            third = os.fork()
            if third:
                be_process_one(third)
        if folder is not None:
            os.chdir(folder)
        if self.as_root and self.tier in (2, 3):
            become(self.user)
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # changing user cleared it
        refuse_calls(self.filter)
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
        options += ["--perms", "1777", "--size", str(FOLDER_BYTES), "--tmpfs", "/tmp"]
        options += ["--chdir", "/tmp", "--remount-ro", "/"]
        if self.filter is not None:
            filter_read, filter_write = os.pipe()
            os.write(filter_write, self.filter)
            os.close(filter_write)
            os.set_inheritable(filter_read, True)
            options += ["--seccomp", str(filter_read)]
        os.execvpe("bwrap", ["bwrap", *options, "--", *command], {**environment, "PATH": os.environ["PATH"]})

    # ---- judging

    def judge(self, pid: int, control: socket.socket, timeout_s: float) -> dict[str, Any]:
        """Watch one process until it passes, fails or its time is over."""
        control.setblocking(False)
        watch = os.pidfd_open(pid)
        try:
            said, began = b"", time.monotonic()
            while b"?" not in said and time.monotonic() - began < START_S:
                if watch in select.select([watch, control.fileno()], [], [], 1.0)[0]:
                    return verdict(False, failure(b""), began)
                said += receive(control)
            if self.tier <= 2:  # the program has not begun, so the only child of process 1 is its interpreter
                pid = children(pid)[0]
                os.close(watch)
                watch = os.pidfd_open(pid)
            home = None if self.by_message else self.waiting_at(pid, patience_s=START_S)
            if home is None and not self.by_message:
                return verdict(False, "no-verdict", began)
            said, began = b"", time.monotonic()
            control.send(b"!")
            sources: list[Any] = [control, watch]
            hinted = False
            while (left := began + timeout_s - time.monotonic()) > 0:
                ready: list[Any] = select.select(sources, [], [], min(left, 0.001) if hinted else left)[0]
                if control in ready:
                    part = receive(control)
                    said = (said + part)[:MAX_REASON]
                    hinted = hinted or b"." in part
                    if not part:
                        sources.remove(control)  # closed by the program; the process is watched on
                if watch in ready:
                    return verdict(False, failure(said), began)
                if hinted and (self.by_message or self.waiting_at(pid) == home):
                    return verdict(True, "passed", began)
            return verdict(False, "timeout", began)
        finally:
            os.close(watch)

    def waiting_at(self, pid: int, patience_s: float = 0.0) -> tuple[str, str] | None:
        """Stack pointer and program counter of the process's main thread, if it waits in ``read(3, ..., 1)``."""
        end = time.monotonic() + patience_s
        while True:
            try:
                with self.same_user(), open(f"/proc/{pid}/syscall") as file:
                    words = file.read().split()
            except OSError:
                return None
            if len(words) == 9 and words[0] == str(READ_CALL.get(platform.machine())):
                return (words[7], words[8]) if (words[1], words[3]) == ("0x3", "0x1") else None
            if time.monotonic() >= end:
                return None
            time.sleep(0.0005)

    @contextlib.contextmanager
    def same_user(self) -> Iterator[None]:
        """In tier 3 look as the user of the process: containers often lack the capability to look as another."""
        if self.tier != 3:
            yield
            return
        os.setegid(self.user)
        os.seteuid(self.user)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)

    # ---- clearing up

    def kill_all(self) -> None:
        """Kill and reap every descendant; orphans come to this process, since it is their reaper."""
        while True:
            for pid in children(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.0005)
            except ChildProcessError:
                return


def receive(control: socket.socket) -> bytes:
    """What is there to read, at most 64 KiB; empty when the other end is closed."""
    try:
        return control.recv(1 << 16)
    except OSError:
        return b""


def children(parent: int) -> list[int]:
    """Ids of the living children of a process."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        pass
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{int(name)}/stat", "rb") as file:
            if int(file.read().rsplit(b")", 1)[1].split()[1]) == parent:
                found.append(int(name))
    return found


def own_threads() -> int:
    """How many threads this user has; the limit of processes counts them all outside a namespace."""
    count, user = 0, os.getuid()
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if os.stat(f"/proc/{int(name)}").st_uid == user:
                count += len(os.listdir(f"/proc/{int(name)}/task"))
    return count


def be_process_one(program: int) -> NoReturn:
    """Reap orphans until the program's process ends, and end likewise; the namespace and all in it end with this."""
    os.closerange(0, 5)
    while True:
        pid, status = os.wait()
        if pid == program:
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def failure(said: bytes) -> str:
    """The reason why a process that has ended did not pass; what it said counts only here.

    Above a namespace stands a process that ends with 128 + signal, as shells do.
    """
    code = 0
    for _ in range(100):
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(-1, os.WNOHANG)
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
    return f"error: {words}" if words.isidentifier() else "no-verdict"


def verdict(passed: bool, reason: str, began: float) -> dict[str, Any]:
    """One line of the answer."""
    return {"passed": passed, "reason": reason, "seconds": round(time.monotonic() - began, 4)}


def remove(folder: str) -> None:
    """Remove a folder whatever its modes; links in it are not followed."""
    for place, _, _ in os.walk(folder):
        if not stat.S_ISLNK(os.lstat(place).st_mode):
            with contextlib.suppress(OSError):
                os.chmod(place, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def serve() -> None:
    """Answer programs until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process by closing the pipe
    supervisor = Supervisor(json.loads(sys.stdin.readline()))
    try:
        for line in sys.stdin:
            task = json.loads(line)
            try:
                answer = supervisor.run(task["program"], task["timeout_s"], task["memory_mb"])
            except OSError as error:
                answer = {"passed": False, "reason": "no-verdict", "seconds": 0.0, "problem": str(error)}
            print(json.dumps(answer), flush=True)
    finally:
        supervisor.close()


if __name__ == "__main__":
    serve()
