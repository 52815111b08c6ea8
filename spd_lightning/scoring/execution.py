"""Run programs that a model wrote in fresh interpreters, and say whether the last statement of the tests was reached.

`judge_programs` runs tests and program in two processes, between which only plain values pass;
`run_program` runs one text in one process. Under ``sandbox/`` a supervisor (one process per core) starts, watches and
kills. What each isolation tier closes, and what leaks, is the tested table of ``docs/sandbox.md``.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from spd_lightning.errors import UserError
from spd_lightning.scoring.isolation import ExecutionResult, Supervisor, probe_isolation, task_for
from spd_lightning.scoring.parts import ProgramParts

PAUSES_S = (0.5, 2.0, 5.0)  # until a program is tried again that could not be started


@dataclass(frozen=True)
class TestedProgram:
    """A program and what decides whether it is right.

    Attributes:
        program: Source: what the prompt gives, and the completion.
        parts: Its tests and what they need; see `parts.split`.
    """

    __test__ = False  # it is no test of ours

    program: str
    parts: ProgramParts


@dataclass(frozen=True)
class ProgramVerdict:
    """What became of a program and its tests.

    Attributes:
        result: With tests and program in two processes; in one where the tests force it.
        one_process: With both in one process, one after the other in one scope; None where that was not asked for.
        shared: Whether the tests forced one process.
    """

    result: ExecutionResult
    one_process: ExecutionResult | None
    shared: bool


def run_program(program: str, *, timeout_s: float = 5.0, memory_mb: int = 1024) -> ExecutionResult:
    """Run one program; it passes only if its last statement was reached without an error.

    Args:
        program: Python source, tests included.
        timeout_s: Limit of processor time, seconds; of wall time four times as much.
        memory_mb: Limit of memory of it and all it starts together, and of the address space of each process, MiB.

    Raises:
        UserError: If no tier works on this machine, or it has no room to start a program.
    """
    return run_programs([program], timeout_s=timeout_s, memory_mb=memory_mb)[0]


def run_programs(
    programs: list[str], *, timeout_s: float = 5.0, memory_mb: int = 1024, workers: int | None = None
) -> list[ExecutionResult]:
    """Run programs in parallel; results in the order of the programs.

    Consent is not asked here: see `may_execute`.

    Args:
        programs: Python sources, tests included.
        timeout_s: See `run_program`.
        memory_mb: See `run_program`.
        workers: How many run at once; None for as many as there are cores.

    Raises:
        UserError: If no tier works on this machine, or it has no room to start a program.

    Ranks:
        Issues no collective; each rank runs its own programs.
    """
    return _run([task_for(program, None, timeout_s, memory_mb) for program in programs], workers)


def judge_programs(
    programs: list[TestedProgram],
    *,
    timeout_s: float = 5.0,
    memory_mb: int = 1024,
    workers: int | None = None,
    one_process: bool = True,
) -> list[ProgramVerdict]:
    """Run the tests of programs, each in a process of its own beside that of its program; in order.

    Args:
        programs: Programs with their tests.
        timeout_s: See `run_program`; of program and tests together.
        memory_mb: See `run_program`; of program and tests together.
        workers: How many are judged at once; None for as many as there are cores.
        one_process: Whether each is also run in one process with its tests, for comparison.

    Raises:
        UserError: If no tier works on this machine, or it has no room to start a program.

    Ranks:
        Issues no collective; each rank runs its own programs.
    """
    tasks, places = [], []
    for i, program in enumerate(programs):
        if not program.parts.shared:
            places.append((i, "apart"))
            tasks.append(task_for(program.program, program.parts, timeout_s, memory_mb))
        if program.parts.shared or one_process:
            places.append((i, "one"))
            tasks.append(task_for(program.program, None, timeout_s, memory_mb, program.parts.tests))
    found = dict(zip(places, _run(tasks, workers), strict=True))
    return [
        ProgramVerdict(found.get((i, "apart")) or found[i, "one"], found.get((i, "one")), program.parts.shared)
        for i, program in enumerate(programs)
    ]


def programs_at_once(world_size: int = 1) -> int:
    """Programs that this process runs at once, beside those of the machine's other processes."""
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return max(1, (os.cpu_count() or 1) // neighbours)


def _result(supervisor: Supervisor, task: dict[str, Any]) -> ExecutionResult:
    """What became of a program; one that the machine kept from running is none that failed, and is tried again.

    So is one whose supervisor ended: once that may be anyone's doing, twice it is the program's.

    Raises:
        UserError: If the machine has no room for it in all that time.
    """
    ended = False
    for pause in (*PAUSES_S, None):
        found = supervisor.run(task)
        if supervisor.begun and (ended or pause is None or supervisor.process is not None):
            return found
        ended = supervisor.begun
        time.sleep(pause or 0.0)
    raise supervisor.not_started()


def _run(tasks: list[dict[str, Any]], workers: int | None) -> list[ExecutionResult]:
    """Results of the supervisors' tasks, in order."""
    isolation = probe_isolation()
    if isolation.name == "none":
        raise UserError(f"Programs cannot be run on this machine: {isolation.detail}. Leave out the tasks of code.")
    if not tasks:
        return []
    count = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    local = threading.local()
    started: list[Supervisor] = []

    def run(task: dict[str, Any]) -> ExecutionResult:
        if not hasattr(local, "supervisor"):
            local.supervisor = Supervisor(isolation)
            started.append(local.supervisor)
        return _result(local.supervisor, task)

    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, tasks))
    finally:
        for supervisor in started:
            supervisor.close()
