"""``python -m tests.attacks TIER [KIND] [--one-process]``: run the attacks under a tier and say what became of each.

Needs nothing but this repository and a Python. Ends with status 1 if one of them passed. Run it as a user who is not
root for tier 4: there an attack reaches whatever the user can.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from spd_lightning.scoring.execution import TestedProgram, judge_programs
from spd_lightning.scoring.isolation import Isolation, _settings, forced_tier
from tests.attacks.cases import PROGRAMS, load

LIMIT_S = 1.0
TWICE = "left/"  # what one program leaves another one finds
# In tier 4 these end or stop the user's other processes, this one among them.
END_ALL_OF_A_USER = (
    "processes/end_others",
    "processes/stop_others",
    "channel/owner_of_signals",
    "channel/peer_looked_up",
)


def attack(tier: int | str, kind: str = "", one_process: bool = False) -> dict[str, dict[str, Any]]:
    """``passed``, ``reason``, ``seconds``, ``one_process`` and ``shared`` of each attack, by its name."""
    programs = {name: p for name, p in load(PROGRAMS).items() if name.startswith(kind)}
    if tier == 4:
        programs = {name: p for name, p in programs.items() if name not in END_ALL_OF_A_USER}
    names: list[str] = [*programs, *(name for name in programs if name.startswith(TWICE))]
    tested: list[TestedProgram] = [programs[name] for name in names]
    with forced_tier(tier):
        verdicts = judge_programs(tested, timeout_s=LIMIT_S, one_process=one_process)
    found: dict[str, dict[str, Any]] = {}
    for name, v in zip(names, verdicts, strict=True):
        before = found.get(name, {"passed": False})
        found[name] = {
            "passed": v.result.passed or before["passed"],
            "reason": v.result.reason,
            "seconds": v.result.seconds,
            "one_process": None if v.one_process is None else v.one_process.passed,
            "shared": v.shared,
        }
    return found


def attack_as_nobody(tier: int | str) -> dict[str, dict[str, Any]]:
    """`attack`, in a process that is not root."""
    if os.getuid() != 0:
        return attack(tier)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [_settings(Isolation(3, "", ""))["python"], "-B", "-m", "tests.attacks", str(tier), "--json"],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd=root,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def main(arguments: list[str]) -> int:
    """See above."""
    words = [word for word in arguments if not word.startswith("-")]
    if not words:
        sys.exit("Type: python -m tests.attacks TIER [KIND] [--one-process]; docs/sandbox.md has the tiers.")
    tier, *rest = words
    found = attack(int(tier) if tier.isdigit() else tier, *rest, one_process="--one-process" in arguments)
    if "--json" in arguments:
        print(json.dumps(found))
    else:
        for name, facts in found.items():
            one = "" if facts["one_process"] is None else f"  one process: {'PASSED' if facts['one_process'] else '-'}"
            print(f"{'PASSED' if facts['passed'] else '-':<7}{name:<45}{facts['reason']}{one}")
        print(f"{sum(facts['passed'] for facts in found.values())} of {len(found)} passed")
    return int(any(facts["passed"] for facts in found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
