"""Honest programs that do unusual things pass, with the same verdict in every tier."""

from __future__ import annotations

from pathlib import Path

import pytest

from spd_lightning.scoring import isolation
from spd_lightning.scoring.isolation import LANDLOCK, probe_isolation
from tests.attacks.cases import judge, load, words

PROGRAMS = Path(__file__).with_name("programs")
LIMIT_S = 5.0
QUICK = (
    "asyncio_run",
    "main_guard_exit",
    "doctest_testmod",
    "cprofile",
    "types_coroutine",
    "pool_map",
    "process_value_and_lock",
    "shared_memory",
    "forty_threads",
    "two_hundred_files",
    "open_str_subclass",
    "copy_trees",
)


def test_each_of_the_85_says_what_it_does() -> None:
    said = words(PROGRAMS)
    assert len(said) == len(set(said.values())) == 85
    assert all(len(line) > 15 and line.endswith(".") for line in said.values())


def test_some_honest_programs_pass() -> None:
    programs = load(PROGRAMS)
    found = judge({name: programs[name] for name in QUICK}, probe_isolation().tier, LIMIT_S)
    assert {name: v.result for name, v in found.items() if not v.result.passed} == {}


@pytest.mark.slow
@pytest.mark.parametrize("tier", [1, 2, LANDLOCK, 3, 4])
def test_every_honest_program_passes_in_every_tier(tier: int | str) -> None:
    if isolation._try_tier(tier).name == "none":
        pytest.skip(f"isolation tier {tier} does not work here ({isolation._try_tier(tier).detail}): mend that")
    found = judge(load(PROGRAMS), tier, LIMIT_S)
    assert not any(v.shared for v in found.values())
    assert {name: v.result for name, v in found.items() if not v.result.passed} == {}
    assert len(found) == 85


def test_one_process_runs_most_of_them_too() -> None:
    """A hook refuses what could move where a process with its tests stands; the rest is let through."""
    programs = load(PROGRAMS)
    names = ("asyncio_run", "doctest_testmod", "cprofile", "types_coroutine", "open_str_subclass", "code_objects")
    found = judge({name: programs[name] for name in names}, probe_isolation().tier, LIMIT_S, one_process=True)
    assert {n: v.one_process for n, v in found.items() if not (v.one_process and v.one_process.passed)} == {}
