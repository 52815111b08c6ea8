"""150 outputs of real models, reworded with their layout kept, collected and labelled by somebody else than who wrote
the rules: `open` was seen while the rules were made; `sealed` was opened after they were committed, and scored once."""

from __future__ import annotations

import ast
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.scoring.answers import extract_code, extract_letter, extract_number, parses

FOLDER = Path(__file__).parents[2] / "data" / "answers"
# What the rules read otherwise than the careful person when `sealed` was opened: 71 of 75 were right. A rule that is
# made to read one of these has seen the sealed half; take it off the list then, and say so.
KNOWN_MISSES = {
    "o090": "two letters are right, two may be false: B is read where nothing was chosen",
    "o110": "a block opened by five backticks and never closed swallows the one behind it",
    "o126": "between 12 and 15 is a range: 15 is read where nothing was chosen",
    "o128": "a stray fence behind prose opens an empty block, and the unfenced code before it is lost",
}


def rows(half: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{half}.jsonl").read_text(encoding="utf-8").splitlines()]


def statements(code: str) -> set[str]:
    """Imports and definitions at the top of a program, whatever their layout; none where it does not parse."""
    kinds = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    try:
        return {ast.dump(s) for s in ast.parse(code.strip()).body if isinstance(s, kinds)}
    except SyntaxError:
        return set()


def is_right(row: dict[str, Any]) -> bool:
    """Whether a completion is read as labelled: that number or letter, or a program with the same definitions."""
    text, expected = row["text"], row["expected"]
    if row["kind"] == "number":
        value = extract_number(text, "flexible")[0]
        return (
            value is None
            if expected is None
            else value is not None and abs(value - Decimal(expected)) <= Decimal("1e-4")
        )
    if row["kind"] == "letter":
        return bool(extract_letter(text, row["letters"])[0] == expected)
    if not row["must_define"]:
        return not parses(extract_code(text))
    wanted = statements(expected)
    assert wanted
    return wanted <= statements(extract_code(text))


def case(row: dict[str, Any]) -> Any:
    known = KNOWN_MISSES.get(row["id"])
    # strict: once the rules read it, the mark fails and its line in KNOWN_MISSES goes
    return pytest.param(row, id=row["id"], marks=[pytest.mark.xfail(strict=True, reason=known)] if known else [])


@pytest.mark.parametrize("row", [case(row) for row in (*rows("open"), *rows("sealed"))])
def test_outputs_are_read_as_a_careful_person_labelled_them(row: dict[str, Any]) -> None:
    assert is_right(row), row["why"]


def test_the_halves_are_what_they_are_said_to_be() -> None:
    halves = {half: rows(half) for half in ("open", "sealed")}
    assert {half: len(found) for half, found in halves.items()} == {"open": 75, "sealed": 75}
    assert len({row["id"] for found in halves.values() for row in found}) == 150
    assert sum(is_right(row) for row in halves["open"]) == 75
    assert sum(is_right(row) for row in halves["sealed"]) == 71
    assert KNOWN_MISSES.keys() <= {row["id"] for row in halves["sealed"]}
