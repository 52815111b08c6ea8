"""Programs in files of their own, as a model would have written them, each with the tests that judge it.

The first line says what the program is or tries. Tests stand after a line ``# ---- tests``; without one they are
``TESTS``. A second line ``# begins with _NAME.py`` puts that file of the same folder before the program. An attack
never computes what its tests ask for, so that a pass is a forged one.
"""

from __future__ import annotations

import re
from pathlib import Path

from spd_lightning.scoring.execution import ProgramVerdict, TestedProgram, judge_programs
from spd_lightning.scoring.isolation import forced_tier
from spd_lightning.scoring.parts import split

PROGRAMS = Path(__file__).with_name("programs")
TESTS = "assert f(1) == 2"
MARK = "# ---- tests\n"
BEGINS = re.compile(r"# begins with (_\w+\.py)\n")


def load(folder: Path) -> dict[str, TestedProgram]:
    """The programs below a folder by their names (``kind/name``)."""
    found = {}
    for path in _files(folder):
        program, _, tests = path.read_text(encoding="utf-8").partition(MARK)
        if begins := BEGINS.search(program):
            program = path.with_name(begins[1]).read_text(encoding="utf-8") + program
        name = path.relative_to(folder).with_suffix("").as_posix()
        found[name] = TestedProgram(program, split("", tests or TESTS))
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if not path.name.startswith("_"))


def words(folder: Path) -> dict[str, str]:
    """What each program's first line says."""
    lines = {path: path.read_text(encoding="utf-8").splitlines()[0] for path in _files(folder)}
    return {p.relative_to(folder).with_suffix("").as_posix(): re.sub("^# ", "", line) for p, line in lines.items()}


def judge(
    programs: dict[str, TestedProgram], tier: int | str, timeout_s: float, one_process: bool = False
) -> dict[str, ProgramVerdict]:
    """Verdicts by name, under a tier."""
    with forced_tier(tier):
        found = judge_programs(list(programs.values()), timeout_s=timeout_s, one_process=one_process)
    return dict(zip(programs, found, strict=True))
