"""A user's own rows as JSON Lines, JSON and CSV: told with file and line, or a task whose examples hold."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_lightning.tasks.task_file import TaskFile
from tests.fuzz.cases import cases, damaged, jsonl, result_of, some_changed, texts, values
from tests.fuzz.test_rows import read_all

ROWS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "Capital of France?", "target": " Paris"},
    "number": {"prompt": "1 + 1?", "target": " It is 2.\n#### 2", "id": "a", "split": "train", "domain": "math"},
    "letter": {"prompt": "A. x\nB. y\nAnswer:", "target": " B", "choices": ["x", "y"]},
    "program": {"prompt": "Write f.", "target": "def f(): return 1", "tests": "assert f() == 1", "correct": [[0, 5]]},
    "rule": {"prompt": "q", "target": "red", "targets": ["Red"], "score": "contains", "normalise": ["case"]},
    "messages": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "completion": {"prompt": "q", "completion": "a"},
}
FIELDS = {**{name: value for row in ROWS.values() for name, value in row.items()}}
part = st.one_of(values, st.sampled_from(list(FIELDS.values())), st.sampled_from(list(FIELDS)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("task-files")


@st.composite
def changed_rows(draw: st.DrawFn) -> list[Any]:
    rows: list[Any] = []
    kind = draw(st.sampled_from(sorted(ROWS)))
    for i in range(draw(st.integers(1, 6))):
        row = {name: f"{value}{i}" if name == "id" else value for name, value in ROWS[kind].items()}
        rows.append(draw(some_changed(row, part)) if draw(st.integers(0, 3)) == 0 else row)
    if draw(st.integers(0, 15)) == 0:
        rows.append(draw(values))
    return rows


def as_csv(rows: list[Any]) -> bytes:
    """The rows as a table of the first one's columns."""
    out = io.StringIO()
    columns = list(rows[0]) if isinstance(rows[0], dict) else ["prompt", "target"]
    table = csv.writer(out)
    table.writerow(columns)
    for row in rows:
        cells = [row.get(name, "") if isinstance(row, dict) else row for name in columns]
        table.writerow([json.dumps(c) if isinstance(c, list | dict) else c for c in cells])
    return out.getvalue().encode("utf-8", "surrogatepass")


@cases(900)
@given(changed_rows(), st.sampled_from(["jsonl", "json", "csv", "tsv"]), st.booleans())
def test_rows(folder: Path, rows: list[Any], suffix: str, wrapped: bool) -> None:
    whole = json.dumps({"data": rows} if wrapped else rows).encode()
    content = {"jsonl": jsonl(rows), "json": whole}.get(suffix) or as_csv(rows)
    path = folder / f"rows.{suffix}"
    path.write_bytes(content)
    result_of(lambda: read_all("custom", task_file=str(path)))


@cases(500)
@given(st.data(), st.sampled_from(["jsonl", "json", "csv", "jsonl.gz", "parquet", "txt"]))
def test_files(folder: Path, data: st.DataObject, suffix: str) -> None:
    rows = [ROWS["text"]] * 3
    path = folder / f"file.{suffix}"
    path.write_bytes(data.draw(damaged(as_csv(rows) if suffix == "csv" else jsonl(rows))))
    result_of(lambda: read_all("custom", task_file=str(path)))


OPTIONS = {"path": "", "columns": {"prompt": "question", "target": "answer"}, "score": "exact", "normalise": ["case"]}


@cases(400)
@given(some_changed({**OPTIONS, "system_prompt": "Be brief.", "num_fewshot": 1}, part), texts)
def test_options(folder: Path, options: dict[str, Any], column: str) -> None:
    path = folder / "options.jsonl"
    path.write_bytes(jsonl([{"question": "q", "answer": "a", column: "c"}] * 5))
    if options.get("path") == "":
        options["path"] = str(path)
    if result_of(lambda: TaskFile.of(options)) is not None:
        result_of(lambda: read_all("custom", task_file=options))
