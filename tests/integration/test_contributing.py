"""The worked examples of CONTRIBUTING.md run as they stand, and its tour names the rooms in the order of the rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.scoring.verdicts import KINDS
from spd_lightning.subspace.layouts import LAYOUTS
from spd_lightning.tasks import TASKS
from tests.unit.test_architecture import FLOORS

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = {
    part.partition("\n")[0]: re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    for part in TEXT.partition("## Three examples")[2].split("\n### ")[1:]
}


@pytest.fixture
def tables() -> Iterator[list[dict[Any, Any]]]:
    """The tables to which an example adds its row; other tests do without it."""
    tables: list[dict[Any, Any]] = [TASKS, LAYOUTS, KINDS]
    before = [dict(table) for table in tables]
    yield tables
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


def test_there_are_three_short_ones() -> None:
    assert list(EXAMPLES) == ["A task", "An architecture", "An answer type"]
    assert all(len(code.splitlines()) < 60 for (code,) in EXAMPLES.values())


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_example_runs_and_adds_one_row(name: str, tables: list[dict[Any, Any]]) -> None:
    rows = sum(map(len, tables))
    (code,) = EXAMPLES[name]
    exec(compile(code, f"CONTRIBUTING.md, {name}", "exec"), {"__name__": "example"})
    assert sum(map(len, tables)) == rows + 1


def test_the_tour_names_the_rooms_floor_by_floor() -> None:
    rows = re.findall(r"^\| ((?:`[^|]+`(?:, )?)+) \|", TEXT, re.MULTILINE)
    tour = [{room.strip("`/ ") for room in row.split(",")} for row in rows]
    assert tour == [set(floor) for floor in reversed(FLOORS)]
