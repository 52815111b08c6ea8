"""Every reference solution of HumanEval and MBPP passes where the code runs, and an emptied body fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts import read_jsonl
from spd_lightning.evaluation.execution import run_programs


def humaneval(rows: list[dict[str, Any]], body: str | None = None) -> list[str]:
    return [
        f"{row['prompt']}{row['canonical_solution'] if body is None else body}\n{row['test']}\n"
        f"check({row['entry_point']})"
        for row in rows
    ]


def mbpp(rows: list[dict[str, Any]]) -> list[str]:
    return ["\n".join([row["code"], row["test_setup_code"], *row["test_list"]]) for row in rows]


def sanitized(rows: list[dict[str, Any]]) -> list[str]:
    return ["\n".join([*row["test_imports"], row["code"], *row["test_list"]]) for row in rows]


def rows(data_dir: str, path: str, count: int) -> list[dict[str, Any]]:
    found = list(read_jsonl(Path(data_dir) / path))
    assert len(found) == count
    return found


def failures(programs: list[str]) -> list[tuple[int, str]]:
    results = run_programs(programs, timeout_s=30.0)
    return [(i, result.reason) for i, result in enumerate(results) if not result.passed]


def test_some_reference_solutions_pass(data_dir: str) -> None:
    assert failures(humaneval(rows(data_dir, "humaneval/test.jsonl.gz", 164)[:8])) == []
    assert failures(mbpp(rows(data_dir, "mbpp/full.jsonl.gz", 974)[:8])) == []
    assert failures(sanitized(rows(data_dir, "mbpp/sanitized.jsonl.gz", 427)[:8])) == []


def test_some_emptied_bodies_fail(data_dir: str) -> None:
    some = rows(data_dir, "humaneval/test.jsonl.gz", 164)[:8]
    assert len(failures(humaneval(some, "    pass\n"))) == 8


@pytest.mark.slow
def test_all_humaneval_solutions_pass(data_dir: str) -> None:
    assert failures(humaneval(rows(data_dir, "humaneval/test.jsonl.gz", 164))) == []


@pytest.mark.slow
def test_all_emptied_bodies_fail(data_dir: str) -> None:
    programs = humaneval(rows(data_dir, "humaneval/test.jsonl.gz", 164), "    pass\n")
    assert len(failures(programs)) == 164


@pytest.mark.slow
def test_all_mbpp_solutions_pass(data_dir: str) -> None:
    assert failures(mbpp(rows(data_dir, "mbpp/full.jsonl.gz", 974))) == []


@pytest.mark.slow
def test_all_sanitized_mbpp_solutions_pass(data_dir: str) -> None:
    assert failures(sanitized(rows(data_dir, "mbpp/sanitized.jsonl.gz", 427))) == []
