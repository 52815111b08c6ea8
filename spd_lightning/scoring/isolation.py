"""Which isolation tier works on this machine, and a supervisor process under it that runs one program at a time.

What each tier closes, and what leaks, is the tested table of ``docs/sandbox.md``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import select
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spd_lightning.errors import AGAIN, DISK_FAULTS, UserError
from spd_lightning.scoring.parts import ProgramParts

CONSENT_VARIABLE = "HF_ALLOW_CODE_EVAL"
LANDLOCK = "landlock"
# In the order in which they are tried.
TIERS: dict[int | str, str] = {
    1: "bubblewrap",
    2: "namespaces",
    LANDLOCK: LANDLOCK,
    3: "unprivileged uid",
    4: "plain subprocess",
}
SCOPES_SINCE = 6  # the version of Landlock that keeps signals and abstract sockets inside
_SUPERVISOR = Path(__file__).with_name("sandbox")
WALL_TIMES = 4  # the supervisor's
NO_TIER_S = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)  # a weaker one would meet it, too
_START_S = 45.0  # beyond a program's own time, until a supervisor that does not answer is given up

# What a sandbox promises, asked from inside when the tier is probed.
_CLOSED = """
import socket
for path in ("/proc/cpuinfo", "/proc/self/status", "/etc/passwd", "/etc/hostname"):
    try:
        open(path)
    except OSError:
        continue
    raise AssertionError(path)
for path in ("/x", "/dev/x", "/dev/shm/x", "/var/tmp/x", "/home/x", "/root/x", "/lib/x"):
    try:
        open(path, "w")
    except OSError:
        continue
    raise AssertionError(path)
try:
    socket.create_connection(("127.0.0.1", 9), 1)
except ConnectionRefusedError:
    raise AssertionError("network")
except OSError:
    pass
"""


@dataclass(frozen=True)
class ExecutionResult:
    """What became of one program.

    Attributes:
        passed: Whether its last statement was reached without an error.
        reason: ``passed``, ``assertion``, ``syntax``, ``timeout``, ``memory``, ``disk``, ``crash`` (by a signal),
            ``no-verdict`` (it ended by itself) or ``error: <class of the exception>``; where
            tests and program are two processes also ``returned <type>`` (a value that is not plain data) and
            ``argument <type>`` (one that the tests cannot hand over).
        seconds: Wall time of the program, without the interpreter's start.
    """

    passed: bool
    reason: str
    seconds: float


@dataclass(frozen=True)
class Isolation:
    """How programs are kept apart from this machine.

    Attributes:
        tier: 1 bubblewrap, 2 namespaces, ``landlock``, 3 unprivileged uid, 4 plain subprocess.
        name: The tier in words, for ``environment.json`` and the results.
        detail: What was found when the tiers were probed.
        verified: Whether verdicts rest on the process's observed state; if not (``/proc/<pid>/syscall`` cannot be
            read), a program that knows the runner can forge one where it shares a process with its tests.
        landlock: Version of the kernel's Landlock, in that tier.
    """

    tier: int | str
    name: str
    detail: str
    verified: bool = True
    landlock: int = 0

    @property
    def label(self) -> str:
        """How results name it."""
        return self.name if self.tier == LANDLOCK else f"{self.tier} {self.name}"

    @property
    def sandboxed(self) -> bool:
        """Whether programs may run in it without asking."""
        return self.verified and (self.tier in (1, 2) or (self.tier == LANDLOCK and self.landlock >= SCOPES_SINCE))


def task_for(
    program: str, parts: ProgramParts | None, timeout_s: float, memory_mb: int, tests: str = ""
) -> dict[str, Any]:
    """What a supervisor is asked: a program in one process and ``tests`` after it, or apart from those in ``parts``."""
    apart = None if parts is None else asdict(parts)
    return {"program": program, "tests": tests, "apart": apart, "timeout_s": timeout_s, "memory_mb": memory_mb}


class Supervisor:
    """One supervisor's process; answers one program at a time."""

    def __init__(self, isolation: Isolation) -> None:
        self.settings = _settings(isolation)
        self.process: subprocess.Popen[bytes] | None = None
        self.begun, self.problem, self.number = True, "", 0  # whether the last was run at all; if not, why (and errno)
        self.landlock = 0

    def run(self, task: dict[str, Any]) -> ExecutionResult:
        """Judge one task. A supervisor that is gone (only a program in tier 4 can do that) is started anew."""
        try:
            answer = self._ask(task, WALL_TIMES * task["timeout_s"] + _START_S)
        except (OSError, ValueError) as error:
            self.begun, self.number = self.process is not None, getattr(error, "errno", None) or 0
            self.close(kill=True)
            self.problem = f"the supervisor {'ended' if self.begun else 'did not start'} ({error})"
            return ExecutionResult(False, "no-verdict", 0.0)
        self.problem, self.begun = answer.get("problem", ""), answer.get("begun", True)
        self.number, self.landlock = answer.get("number", 0), answer["landlock"]
        return ExecutionResult(answer["passed"], answer["reason"], answer["seconds"])

    def not_started(self) -> UserError:
        advice = DISK_FAULTS.get(self.number, "Wait until the machine has room for it")
        return UserError(f"No program of a model can be started to be judged: {self.problem}. {advice}, {AGAIN}.")

    def _ask(self, task: dict[str, Any], limit_s: float) -> dict[str, Any]:
        if self.process is None:
            self.process = subprocess.Popen(
                [self.settings["python"], "-I", "-S", "-B", str(_SUPERVISOR)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self.process.stdin.write(json.dumps(self.settings).encode() + b"\n")  # type: ignore[union-attr]
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(task).encode() + b"\n")
        stdin.flush()
        if not select.select([stdout], [], [], limit_s)[0]:
            raise OSError("no answer")
        return json.loads(stdout.readline())

    def close(self, kill: bool = False) -> None:
        """End the process by closing its input, or by force."""
        if self.process is None:
            return
        process, self.process = self.process, None
        if kill:
            process.kill()
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        process.stdout.close()  # type: ignore[union-attr]
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_forced: Isolation | None = None


def probe_isolation() -> Isolation:
    """The strongest tier that works here, found by trying; tried once per process."""
    return _forced or _probe()


@contextlib.contextmanager
def forced_tier(tier: int | str) -> Iterator[Isolation]:
    """For tests: use this tier whatever stronger one there is.

    Raises:
        UserError: If the tier does not work here.
    """
    global _forced
    isolation = _try_tier(tier)
    if isolation.name == "none":
        raise UserError(f"Isolation tier {tier} does not work here: {isolation.detail}.")
    before, _forced = _forced, isolation
    try:
        yield isolation
    finally:
        _forced = before


@functools.cache
def _probe() -> Isolation:
    refused: list[str] = []
    for tier in TIERS:
        isolation = _try_tier(tier)
        if isolation.name != "none":
            detail = "; ".join([*refused, isolation.detail])
            return replace(isolation, detail=detail)
        refused.append(f"not {TIERS[tier]}: {isolation.detail}")
    return Isolation(4, "none", "; ".join(refused), verified=False)


@functools.cache
def _try_tier(tier: int | str) -> Isolation:
    """Run a first program under a tier; the name is ``none`` where that does not work."""

    def unavailable(why: str) -> Isolation:
        return Isolation(tier, "none", why, verified=False)

    if not sys.platform.startswith("linux"):
        return unavailable(f"needs Linux, this is {sys.platform}")
    if tier == 1 and shutil.which("bwrap") is None:
        return unavailable("bwrap is not installed")
    if tier == 3 and os.getuid() != 0:
        return unavailable("only root can start programs as another user")
    problem = ""
    for verified in (True, False):
        isolation = Isolation(tier, TIERS[tier], "", verified)
        supervisor = Supervisor(isolation)
        try:
            result = supervisor.run(task_for(_CLOSED if tier in (1, 2, LANDLOCK) else "", None, 10.0, 1024))
        finally:
            supervisor.close()
        if result.passed:
            python = supervisor.settings["python"]
            note = "" if verified else ", verdicts by message only: /proc/<pid>/syscall cannot be read"
            found = replace(isolation, landlock=supervisor.landlock if tier == LANDLOCK else 0)
            if tier == LANDLOCK:
                weak = "" if found.landlock >= SCOPES_SINCE else f", below {SCOPES_SINCE} signals leave it"
                note = f" (version {found.landlock}{weak}){note}"
            return replace(
                found, detail=f"{TIERS[tier]}{note}, {python}" if tier == LANDLOCK else f"{TIERS[tier]}, {python}{note}"
            )
        if not supervisor.begun and supervisor.number in NO_TIER_S:
            raise supervisor.not_started()
        problem = problem or supervisor.problem or result.reason
    return unavailable(problem)


def may_execute(allow_code_execution: bool | None) -> bool:
    """Whether programs may run: in a sandbox (`Isolation.sandboxed`) without asking, elsewhere with consent.

    Args:
        allow_code_execution: The user's option; None where nothing was said. False forbids in every tier.
    """
    isolation = probe_isolation()
    if isolation.name == "none" or allow_code_execution is False:
        return False
    if isolation.sandboxed:
        return True
    return bool(allow_code_execution) or os.environ.get(CONSENT_VARIABLE) == "1"


def consent_message() -> str:
    """Why a task of code was not run, and what to type to run it."""
    isolation = probe_isolation()
    if isolation.name == "none":
        return f"Programs cannot be run on this machine: {isolation.detail}."
    return (
        f"Not run: scoring executes programs that a model wrote, and this machine offers only isolation tier "
        f"{isolation.tier} ({isolation.name}), which is not a sandbox (docs/sandbox.md). Install bubblewrap, or set "
        f"allow_code_execution=true (--evaluation.allow_code_execution), or {CONSENT_VARIABLE}=1, to run them."
    )


def _settings(isolation: Isolation) -> dict[str, Any]:
    """What a supervisor must know."""
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)  # of Python 3.11
    if isolation.tier in (LANDLOCK, 3) and os.getuid() == 0 and not _open_to_all(python):
        # an interpreter in root's home; look for its like
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        python = os.path.realpath(shutil.which(name, path="/usr/bin:/usr/local/bin") or python)
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    own = [python, *(sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib"))]
    own += [sysconfig.get_config_var("LIBDIR") or ""]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/nix/store"]
    paths = sorted({os.path.realpath(path) for path in own if path} | set(system))
    visible: list[str] = []
    for path in paths:
        if os.path.lexists(path) and not any(path.startswith(above + "/") for above in visible):
            visible.append(path)
    return {
        "tier": isolation.tier,
        "python": python,
        "visible": visible,
        "by_message": not isolation.verified,
    }


def _open_to_all(path: str) -> bool:
    """Whether another user may execute a file: its mode, and that of every folder above."""
    return all(os.stat(place).st_mode & 0o001 for place in (path, *map(str, Path(path).parents)))
