"""No program forges its verdict, whatever it does to its own process; what tier 4 lets it reach is a list."""
# ruff: noqa: E501, SIM905 (a list of words is easier to read)

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spd_lightning.scoring import isolation
from spd_lightning.scoring.isolation import LANDLOCK, probe_isolation
from tests.attacks.__main__ import END_ALL_OF_A_USER, attack, attack_as_nobody
from tests.attacks.cases import PROGRAMS, judge, load, words

DOCS = Path(__file__).parents[2] / "docs" / "sandbox.md"
QUICK = """
equality/equal_to_all equality/subclass_of_int equality/field_in_place_of_method source/continuation source/check_defined
wire/echo_of_anything wire/first_answer_names_a_function wire/stop_raised_in_the_tests exits/in_call exits/by_exec
channel/every_descriptor channel/hint_and_wait channel/runner_started_again patched/builtins patched/module_in_sys_modules
memory/kept_view_own_code memory/ctypes_constants memory/own_memory_by_folder memory/memory_of_the_tests
introspection/answerer_replaced introspection/trace_jump processes/killed_parent processes/signal_zero processes/fork_bomb
kernel/namespaces kernel/datagram_pair kernel/network left/file_for_the_next resources/low_recursion_limit
""".split()

# In tier 4 a program runs as the user, so it can ask for, signal and end the user's processes, the supervisor among them.
REACHED_IN_TIER_4 = {"processes/signal_zero", "processes/signal_by_descriptor"}
# What one process cannot keep out (docs/sandbox.md), besides a scope and builtins that completion and tests share.
FORGES_IN_ONE_PROCESS = {
    "memory/kept_view_own_code",
    "memory/kept_view_constants",
    "memory/kept_view_integers",
}
BY_PROC = {"memory/own_memory_by_folder", "memory/own_memory_by_race", "memory/own_memory_from_a_child"}
SHARED_SCOPE = ("equality/", "patched/", "source/")


def works(tier: int | str) -> None:
    if isolation._try_tier(tier).name == "none":
        pytest.skip(f"isolation tier {tier} does not work here ({isolation._try_tier(tier).detail}): mend that")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, which any user may enter; nothing is left in it."""
    with tempfile.TemporaryDirectory(prefix="spd-test-") as place:
        os.chmod(place, 0o711)
        monkeypatch.setenv("TMPDIR", place)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(place)
        assert list(Path(place).iterdir()) == []


def test_there_are_enough_and_each_says_what_it_tries() -> None:
    said = words(PROGRAMS)
    assert len(said) >= 200 and len(set(said.values())) == len(said)
    assert all(len(line) > 10 and line.endswith(".") for line in said.values())
    texts = [p.program.split("\n", 1)[1] + p.parts.tests for p in load(PROGRAMS).values()]
    assert len(set(texts)) == len(texts)
    assert set(QUICK) | set(END_ALL_OF_A_USER) | REACHED_IN_TIER_4 | FORGES_IN_ONE_PROCESS | BY_PROC <= set(said)


def test_no_attack_shares_a_process_with_its_tests() -> None:
    assert [name for name, p in load(PROGRAMS).items() if p.parts.shared] == []


def test_some_attacks_fail() -> None:
    if not probe_isolation().sandboxed:
        pytest.skip("no sandbox here: install bubblewrap or allow user namespaces to run this")
    programs = load(PROGRAMS)
    found = judge({name: programs[name] for name in QUICK}, probe_isolation().tier, 0.5)
    assert {name: v.result for name, v in found.items() if v.result.passed} == {}


@pytest.mark.slow
@pytest.mark.parametrize("tier", [1, 2, LANDLOCK, 3])
def test_no_attack_passes(tier: int | str, temporary: Path) -> None:
    works(tier)
    found = attack(tier)
    assert {name for name, facts in found.items() if facts["passed"]} == set()
    assert len(found) == len(words(PROGRAMS))


@pytest.mark.slow
@pytest.mark.parametrize("tier", [1, 2, LANDLOCK])
def test_no_attack_passes_where_nobody_is_root(tier: int | str) -> None:
    works(tier)
    assert {name for name, facts in attack_as_nobody(tier).items() if facts["passed"]} == set()


@pytest.mark.slow
def test_in_tier_4_only_what_reaches_into_other_processes_passes() -> None:
    """As a user who is not root; those that would end all of the user's processes are not run."""
    works(4)
    found = attack_as_nobody(4)
    assert {name for name, facts in found.items() if facts["passed"]} == REACHED_IN_TIER_4
    assert len(found) == len(words(PROGRAMS)) - len(END_ALL_OF_A_USER)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="places in memory are those of Python 3.11: run it there")
def test_what_one_process_cannot_keep_out() -> None:
    """The attacks are real: with their tests in one process many pass, and the docs say of which kinds."""
    found = attack(3 if os.getuid() == 0 else probe_isolation().tier, one_process=True)
    forged = {name for name, facts in found.items() if facts["one_process"]}
    beside_scope = {name for name in forged if not name.startswith(SHARED_SCOPE)}
    assert FORGES_IN_ONE_PROCESS <= beside_scope <= FORGES_IN_ONE_PROCESS | BY_PROC
    assert len(forged) >= 60
    text = DOCS.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in FORGES_IN_ONE_PROCESS | BY_PROC)
