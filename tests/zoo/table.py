"""The table of `docs/models.md`, from `results.json`.

``python -m tests.zoo.table [FAMILY ..]`` measures families, by default all (three minutes), and writes both files.
``--write`` alone writes the table of the results that there are.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.zoo.columns import COLUMNS, put_through
from tests.zoo.families import FAMILIES

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- tests/zoo/table.py writes from here -->", "<!-- to here -->"


def read_results() -> dict[str, dict[str, Any]]:
    """By family, as `put_through` gives them."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def passed(row: dict[str, Any]) -> bool:
    """Whether a family went through every column."""
    return all(row.get(column) == "ok" for column in COLUMNS)


def render(results: dict[str, dict[str, Any]]) -> str:
    """Families that pass, then those that do not, as Markdown."""
    good = {family: row for family, row in results.items() if passed(row)}
    lines = [
        f"{len(good)} of {len(results)} families pass every column.",
        "",
        "| family | config class | layers | sites (`middle_last`) | default adapters | blocks |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for family, row in good.items():
        what = FAMILIES[family]["config"]
        adapters = ", ".join(f"`{name}`" for name in row["adapters"].split())
        lines.append(f"| {family} | `{what}` | {row['layers']} | {row['sites']} | {adapters} | {row['blocks']} |")
    lines += ["", "| family | config class | what is refused, or does not hold |", "| --- | --- | --- |"]
    for family, row in results.items():
        if family not in good:
            wrong = row.get("refused") or "; ".join(f"{c}: {row[c]}" for c in COLUMNS if row.get(c) != "ok")
            lines.append(f"| {family} | `{FAMILIES[family]['config']}` | {wrong} |")
    return "\n".join(lines)


def page_with(table: str) -> str:
    """The page with another table."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}"


def main(names: list[str]) -> None:
    """Measure families and write what was found."""
    results = read_results()
    for family in [] if names == ["--write"] else names or list(FAMILIES):
        with tempfile.TemporaryDirectory() as folder:
            results[family] = put_through(family, Path(folder))
        print(family, "passes" if passed(results[family]) else results[family], flush=True)
        ordered = {name: results[name] for name in FAMILIES if name in results}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page_with(render(read_results())), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
