"""Tables of scores by subject and category, a column for each method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spd_lightning.report.render import Heading, Table
from spd_lightning.report.runs import Run
from spd_lightning.report.sections import group_blocks


def run_of(benchmarks: dict[str, Any]) -> Run:
    return Run(Path("run"), config={}, environment={}, results={"benchmarks": benchmarks}, subspace={}, spectra=())


def share(value: float, n: int) -> dict[str, Any]:
    return {"value": value, "n": n, "ci95": [0.0, 1.0]}


def test_one_table_each_and_a_dash_where_a_method_has_no_score() -> None:
    blocks = group_blocks(
        run_of(
            {
                "mmlu.spd": {"by_subject": {"college_physics": share(0.5, 4)}},
                "mmlu.base": {"by_subject": {"college_physics": share(0.25, 4), "law": share(1.0, 2)}},
                "gsm8k.base": {"value": 0.5},
            }
        )
    )
    heading, table = blocks
    assert isinstance(heading, Heading) and heading.text == "mmlu by subject"
    assert isinstance(table, Table) and table.header == ("subject", "n", "base", "spd")
    assert [row[:2] for row in table.rows] == [("college physics", "4"), ("law", "2")]
    assert table.rows[0][2].startswith("25.0 [") and table.rows[0][3].startswith("50.0 [")
    assert table.rows[1][3] == "-"


def test_nothing_where_no_benchmark_has_groups() -> None:
    assert group_blocks(run_of({"gsm8k.base": {"value": 0.5}})) == []
