"""What the report says of programs that the two ways of running judge differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spd_lightning.report.runs import Run
from spd_lightning.report.sections import program_notes


def run_with(facts: dict[str, Any]) -> Run:
    return Run(Path("run"), {}, {}, {"benchmarks": {"humaneval.base": facts}}, {}, ())


def test_disagreements_are_named_and_the_rest_counted() -> None:
    differ = [{"id": f"HumanEval/{i}", "sample": 0, "correct": False, "reason": "returned Liar"} for i in range(7)]
    lines = program_notes([run_with({"one_process": {"shared": 3, "disagreements": differ}})])
    assert lines[0].startswith("humaneval.base: judged otherwise in one process: HumanEval/0 (returned Liar), ")
    assert lines[0].endswith("HumanEval/4 (returned Liar), 2 more in results.json.")
    assert lines[1] == "humaneval.base: 3 could only be run in one process: their tests name a class of theirs."


def test_nothing_is_said_where_both_agree() -> None:
    assert program_notes([run_with({"one_process": {"shared": 0, "disagreements": []}}), run_with({})]) == []
    assert program_notes([Run(Path("run"), {}, {}, {}, {}, ())]) == []
