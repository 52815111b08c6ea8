"""A user's own rows as they are: every format gives the same examples, and every mistake is told with its place."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.errors import UserError
from spd_lightning.tasks import load_task
from spd_lightning.tasks import task_file as reading
from spd_lightning.tasks.task_file import TaskFile, content_sha256, system_prompt_of

ROWS = [{"prompt": f"What is {i}, say?", "target": f'the "{i:03}"', "split": "train"} for i in range(3)]


def asked(task_file: Any) -> list[tuple[str, str]]:
    return [(e.prompt, e.target) for e in load_task("custom", task_file=task_file).examples("train")]


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    import csv

    path = folder / name
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter="," if kind == "csv" else "\t")
            table.writeheader()
            table.writerows(rows)
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.tsv", "a.parquet", "a.txt"])
def test_every_format_gives_the_same_examples(name: str, tmp_path: Path) -> None:
    expected = [(row["prompt"], row["target"]) for row in ROWS]
    assert asked(str(write(tmp_path, name, ROWS))) == expected
    theirs = [{"question": p, "answer": t, "source": "web"} for p, t in expected]
    columns = {"prompt": "question", "target": "answer"}
    assert asked({"path": str(write(tmp_path, name, theirs)), "columns": columns}) == expected


def test_rows_under_a_key_and_lines_under_the_name_of_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"version": 1, "data": ROWS}))
    (tmp_path / "b.json").write_text("\n".join(map(json.dumps, ROWS)))
    assert (
        asked(str(tmp_path / "a.json")) == asked(str(tmp_path / "b.json")) == [(r["prompt"], r["target"]) for r in ROWS]
    )


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []

    def load_dataset(*args: Any, **named: Any) -> Any:
        called.append((*args, named["split"]))
        return [{"question": "Q?", "answer": 7}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr(reading, "commit_of", lambda hub_id: None)
    for address in ("hf://me/set", "hf://me/set:small", "hf://me/set:small/dev"):
        columns = {"prompt": "question", "target": "answer"}
        assert asked({"path": address, "columns": columns}) == [("Q?", "7")], "a number in a named column is text"
    assert called == [("me/set", None, "train"), ("me/set", "small", "train"), ("me/set", "small", "dev")]
    with pytest.raises(UserError, match="is no data set of the hub"):
        asked("hf://set")


def test_a_hub_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **named: Any) -> Any:
        raise ConnectionError("offline\nmore")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr(reading, "commit_of", lambda hub_id: None)
    with pytest.raises(UserError, match=r"me/set \(default, train\) is neither downloaded nor reachable: offline Set"):
        asked("hf://me/set")


def test_rows_as_trl_takes_them(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Hello?", "completion": " Hi", "split": "train"},
        {
            "messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}],
            "split": "train",
        },
    ]
    assert asked(str(write(tmp_path, "a.jsonl", rows))) == [("Hello?", " Hi"), ("Who?", "Me")]


def test_turns_of_the_system_are_one_for_the_file(tmp_path: Path) -> None:
    def turns(system: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": system}, {"role": "user", "content": "Who?"}]

    answer = [{"role": "assistant", "content": "Me"}]
    rows = [{"prompt": turns("Be brief."), "completion": answer}, {"messages": turns("Be brief.") + answer}]
    task = load_task("custom", task_file=str(write(tmp_path, "a.jsonl", rows)))
    assert task.system_prompt == "Be brief." and task.examples("train")[1].prompt == "Who?"
    rows[1] = {"messages": turns("Be long.") + answer}
    with pytest.raises(UserError, match=r"line 2 has the system prompt 'Be long\.', line 1 the system"):
        load_task("custom", task_file=str(write(tmp_path, "a.jsonl", rows)))


def test_lists_in_a_cell(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "target": "a", "targets": '["b", "c"]', "score": "contains", "split": "test"}]
    (example,) = load_task("custom", task_file=str(write(tmp_path, "a.csv", rows))).benchmark().examples
    assert example.expected == "a | b | c"
    rows[0]["targets"] = '["b",'
    with pytest.raises(UserError, match=r"a\.csv, line 2: `targets` is .*, which is no JSON list"):
        load_task("custom", task_file=str(write(tmp_path, "a.csv", rows)))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "[1]", r"a\.json, row 1: a JSON object is needed, found int"),
        ("a.json", "[{]", r"a\.json, line 1: not valid JSON"),
        ("a.csv", "prompt,target\na,b,c\n", r"a\.csv, line 2: the row has more or fewer cells"),
        ("a.csv", 'prompt,target\n"a,b\n', r"a\.csv, line \d: not a table"),
        ("a.csv", "question,answer\na,b\n", r"unknown field 'answer'.*columns: \{prompt: question, target: answer\}"),
        ("a.parquet", "no", r"a\.parquet cannot be read as Parquet"),
        ("a.jsonl.gz", "no", r"a\.jsonl\.gz cannot be read as UTF-8 text"),
        ("a.csv", "", r"a\.csv holds no rows"),
    ],
)
def test_files_that_are_not_what_their_name_says(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        load_task("custom", task_file=str(tmp_path / name))


def test_text_of_a_damaged_table_is_told(tmp_path: Path) -> None:
    """A changed byte within a text is nothing to Arrow, and to Python no UTF-8."""
    import pyarrow
    from pyarrow.parquet import write_table

    file = tmp_path / "a.parquet"
    write_table(pyarrow.table({"prompt": ["Q: one two"], "target": ["3"]}), file, compression="none")
    file.write_bytes(file.read_bytes().replace(b"Q: one two", b"Q: one \xd7wo"))
    with pytest.raises(UserError, match=r"a\.parquet cannot be read as Parquet \(UnicodeDecodeError.*Copy it again"):
        load_task("custom", task_file=str(file))


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.csv").write_text("prompt,target\na,b\n")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"a\.csv cannot be read as UTF-8 text \(.*Permission denied"):
        load_task("custom", task_file=str(tmp_path / "a.csv"))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_what_was_put_in_the_place_of_a_file_is_named(name: str, tmp_path: Path) -> None:
    for text, said in {
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "is a Git LFS pointer, not the file itself",
        "<!DOCTYPE html><title>Sign in</title>\n": "is a web page",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=rf"{name} {said}.*to the file itself"):
            load_task("custom", task_file=str(tmp_path / name))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"path": "a", "colums": {}}, "Unknown key of task_file 'colums'. Did you mean 'columns'"),
        ({"columns": {}}, "names no path"),
        ({"path": "a", "columns": "question"}, "task_file.columns='question' is not possible"),
        ({"path": "a", "score": 3}, "task_file.score=3 is not possible"),
    ],
)
def test_what_the_option_may_say(value: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        TaskFile.of(value)


def test_several_files_are_several_tasks(tmp_path: Path) -> None:
    """Each with its own rules; what a name or a typing mistake stands for is told."""
    first = write(tmp_path, "a.csv", ROWS)
    second = write(tmp_path, "b.csv", [{"q": f"Capital {i}?", "a": "Rome"} for i in range(5)])
    options = {"path": str(second), "columns": {"prompt": "q", "target": "a"}, "score": "contains"}
    files = {"sums": str(first), "capitals": options}
    task = load_task("custom:capitals", task_file=files)
    assert task.full_name == "custom:capitals" and task.answer_type == "rule" and len(task.examples("train")) == 4
    assert load_task("custom:sums", task_file=files).examples("train")[0].prompt == ROWS[0]["prompt"]
    for name, value, said in (
        ("custom", files, "task_file names several. Name one or more of custom:sums, custom:capitals"),
        ("custom:towns", files, "task_file names no file 'towns'. There are: custom:sums, custom:capitals"),
        ("custom:sums", str(first), "There is one file without a name, the task custom"),
        ("custom:sums", options, "There is one file without a name, the task custom"),
        ("custom", {"pth": str(first)}, "Unknown key of task_file 'pth'. Did you mean 'path'"),
        ("custom:sums", {"sums": {"columns": {}}}, "names no path"),
        ("custom:sums", None, "needs a file"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            load_task(name, task_file=value)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", [{"question": "Q", " answer": "A"}])
    with pytest.raises(UserError, match=r"line 2: there is no column 'answer'\. There are: 'question', ' answer'\."):
        load_task("custom", task_file={"path": str(path), "columns": {"prompt": "question", "target": "answer"}})


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_a_column_that_some_rows_leave_empty(tmp_path: Path, name: str) -> None:
    """Under its own name it holds what our field may hold, a list among it, or nothing."""
    rows = [{"q": 1, "a": "2", "also": ["2", "two"], "n": None}, {"q": 3, "a": "4"}, {"q": 5, "a": "6"}]
    if name == "a.csv":
        rows = [{**row, "also": json.dumps(row["also"]) if "also" in row else ""} for row in rows]
    options = {"path": str(write(tmp_path, name, rows)), "columns": {"prompt": "q", "target": "a", "targets": "also"}}
    found = [(e.prompt, e.expected) for e in load_task("custom", task_file=options).examples("train")]
    assert found == [("1", "2 | two"), ("3", "4"), ("5", "6")]


def test_an_empty_cell_of_a_named_column_is_left_out_and_no_number_is_text(tmp_path: Path) -> None:
    """It was told as a column that is not there, and a table's missing number was the answer "nan"."""
    (tmp_path / "a.csv").write_text("q,a,part\nx,y,test\nz,w,\n")
    columns = {"prompt": "q", "target": "a", "split": "part"}
    assert asked({"path": str(tmp_path / "a.csv"), "columns": columns}) == [("z", "w")]
    (tmp_path / "b.csv").write_text("q,a\nx,\n")
    with pytest.raises(UserError, match=r"b\.csv, line 2: `target` is missing"):
        asked({"path": str(tmp_path / "b.csv"), "columns": {"prompt": "q", "target": "a"}})
    rows = [{"q": "x", "a": 4.5}, {"q": "y", "a": float("nan")}]
    file = write(tmp_path, "c.parquet", rows)
    with pytest.raises(UserError, match=r"c\.parquet, row 2: `target` is missing"):
        asked({"path": str(file), "columns": {"prompt": "q", "target": "a"}})


def test_what_stands_in_a_row_twice_is_refused(tmp_path: Path) -> None:
    """Only the last of the two counted."""
    (tmp_path / "a.csv").write_text("prompt,target,target,\nx,y,z,\n")
    with pytest.raises(UserError, match=r"a\.csv, line 1: the column 'target' stands there twice\. Rename or remove"):
        asked(str(tmp_path / "a.csv"))
    for name in ("a.jsonl", "a.json"):
        (tmp_path / name).write_text('{"prompt": "x", "target": "y", "target": "z"}')
        with pytest.raises(UserError, match=r"line 1: not valid JSON \('target' stands in it twice\)"):
            asked(str(tmp_path / name))


def test_a_system_prompt_of_the_file_and_of_its_rows_are_not_both_taken(tmp_path: Path) -> None:
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    file = write(tmp_path, "a.jsonl", [{"messages": turns}])
    with pytest.raises(
        UserError, match=r"system_prompt='Be brief\.', but rows of .*a\.jsonl have 'system'\. Leave one"
    ):
        asked({"path": str(file), "system_prompt": "Be brief."})
    assert asked({"path": str(file), "system_prompt": "system"}) == [("user", "assistant")]


def test_what_a_run_is_made_from(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", ROWS)
    assert content_sha256(str(path)) == content_sha256({"path": str(path)}) != None  # noqa: E711
    assert system_prompt_of({"path": "a", "system_prompt": "Be brief."}) == "Be brief."
    assert system_prompt_of("a") == system_prompt_of(None) == ""
    brief = {"path": str(path), "system_prompt": "Be brief."}
    assert (
        system_prompt_of({"one": brief, "two": brief}) == "Be brief."
        and system_prompt_of({"one": brief, "two": "a"}) == ""
    )
    both = content_sha256({"one": str(path), "two": "hf://a/b"})
    assert both not in (None, content_sha256(str(path))) and both == content_sha256(
        {"two": "hf://a/b", "one": str(path)}
    )
    path.write_text(path.read_text() + "more,rows\n")
    assert content_sha256({"one": str(path), "two": "hf://a/b"}) != both
    assert content_sha256(None) is content_sha256("hf://me/set") is None
