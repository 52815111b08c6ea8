"""Every reference solution of HumanEval and MBPP passes where the code runs, in both ways; an emptied body fails."""

from __future__ import annotations

from typing import Any

import pytest

from spd_lightning.scoring.execution import ProgramVerdict, TestedProgram, judge_programs
from spd_lightning.scoring.parts import split
from spd_lightning.tasks import load_task
from spd_lightning.tasks.coding import solution
from spd_lightning.tasks.task import Example

SIZES = {"humaneval": 164, "mbpp": 974, "mbpp_sanitized": 427}
SHARED = {"humaneval": [], "mbpp": ["367", "601", "927"], "mbpp_sanitized": []}  # tests that name a class of the answer


def examples(data_dir: str, name: str) -> list[Example]:
    """All rows of a set, whatever their split."""
    task: Any = load_task(name, data_dir)
    if name == "humaneval":
        return list(task.examples("test"))
    docs = task.rows(task.source, "prompt", "test", "validation", "train")
    return [task.example(doc, "all", i) for i, doc in enumerate(docs)]


def judge(found: list[Example], body: str | None = None) -> list[ProgramVerdict]:
    programs = []
    for e in found:
        parts = split(e.meta["program_prefix"], e.meta["program_suffix"], e.meta["continues"])
        programs.append(TestedProgram(solution(e, e.target if body is None else body), parts))
    return judge_programs(programs, timeout_s=30.0)


def failures(found: list[Example], body: str | None = None) -> dict[str, tuple[str, str]]:
    """Reasons in both ways, of those that do not pass in both."""
    reasons = {
        e.id: (v.result.reason, "" if v.one_process is None else v.one_process.reason)
        for e, v in zip(found, judge(found, body), strict=True)
    }
    return {key: pair for key, pair in reasons.items() if pair != ("passed", "passed")}


@pytest.mark.parametrize("name", SIZES)
def test_some_reference_solutions_pass_in_both_ways(data_dir: str, name: str) -> None:
    assert failures(examples(data_dir, name)[:6]) == {}


def test_some_emptied_bodies_fail(data_dir: str) -> None:
    assert len(failures(examples(data_dir, "humaneval")[:6], "    pass\n")) == 6


def test_tests_that_need_something_of_the_prompt_or_a_module_have_it(data_dir: str) -> None:
    """`poly`, `encode_cyclic`, `encode_shift` stand in prompts; MBPP 596 names `sys`; MBPP 126 asks for a `sum`."""
    humaneval = {e.id: e for e in examples(data_dir, "humaneval")}
    mbpp = {e.id: e for e in examples(data_dir, "mbpp")}
    some = [*(humaneval[f"HumanEval/{i}"] for i in (10, 32, 38, 50)), *(mbpp[i] for i in ("126", "596"))]
    assert failures(some) == {}


@pytest.mark.parametrize("name", SIZES)
def test_the_text_of_the_tests_decides_what_shares_a_process(data_dir: str, name: str) -> None:
    shared = []
    for e in examples(data_dir, name):
        parts = split(e.meta["program_prefix"], e.meta["program_suffix"], e.meta["continues"])
        assert parts.shared or len(parts.names) == 1
        if name == "humaneval":
            assert parts.names == (e.meta["entry_point"],)
        shared += [e.id] if parts.shared else []
    assert shared == SHARED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_all_reference_solutions_pass_in_both_ways(data_dir: str, name: str) -> None:
    """Arguments cross by value and changes in place are not seen: so no test of these sets needs them."""
    found = examples(data_dir, name)
    assert len(found) == SIZES[name]
    assert failures(found) == {}


@pytest.mark.slow
def test_all_emptied_bodies_fail_in_both_ways(data_dir: str) -> None:
    verdicts = judge(examples(data_dir, "humaneval"), "    pass\n")
    assert [v.result.passed or bool(v.one_process and v.one_process.passed) for v in verdicts] == [False] * 164
