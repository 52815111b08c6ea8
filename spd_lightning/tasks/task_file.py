"""A user's own rows as they are: JSON Lines, JSON, CSV, TSV, Parquet or a data set of the hub, and how they are read.

``task_file`` is a path, or a mapping with a path and what holds for all rows: `TaskFile`. Of several files it is a
mapping from names to such values, and ``custom:NAME`` is the task of each.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.files import file_sha256, parse_json, typed_path
from spd_lightning.artifacts.reading import foreign, missing, reading
from spd_lightning.errors import UserError, unknown_name
from spd_lightning.tasks.sources import commit_of

Row = dict[str, Any]
HUB = "hf://"
TABLES = {"csv": ",", "tsv": "\t"}
IN_CELLS = ("correct", "choices", "targets", "normalise", "messages")  # lists, which a cell of a table holds as JSON


@dataclass(frozen=True)
class TaskFile:
    """What ``task_file`` may say.

    Attributes:
        path: A .jsonl, .json, .csv, .tsv or .parquet file (the first three also with .gz), or
            ``hf://owner/name[:config][/split]``.
        columns: Our field -> column of the file, e.g. ``{prompt: question, target: answer}``; where it is given, the
            file's other columns are left alone.
        score: Rule of the rows that name none; see `rules.RULES`.
        normalise: The same for ``normalise``.
        system_prompt: Before every prompt, in calibration, training and scoring.
        num_fewshot: So many of the first training rows stand solved before every prompt, and are asked nowhere.
    """

    path: str
    columns: Mapping[str, str] | None = None
    score: str | None = None
    normalise: tuple[str, ...] | None = None
    system_prompt: str | None = None
    num_fewshot: int = 0

    @classmethod
    def of(cls, value: str | Mapping[str, Any]) -> TaskFile:
        """The options of ``task_file``, checked.

        Raises:
            UserError: For an unknown key, a missing path, or a value of another kind.
        """
        given: dict[str, Any] = {"path": value} if isinstance(value, str) else dict(value)
        for name, content in given.items():
            if name not in KINDS:
                raise unknown_name("key of task_file", str(name), KINDS, "--subspace.task_file")
            if content is not None and not KINDS[name](content):
                raise UserError(f"task_file.{name}={content!r} is not possible. {EXAMPLE}")
        given = {name: content for name, content in given.items() if content is not None}
        if not given.get("path"):
            raise UserError(f"task_file={value!r} names no path. {EXAMPLE}")
        if "normalise" in given:
            given["normalise"] = tuple(given["normalise"])
        return cls(**given)

    @property
    def name(self) -> str:
        """Of the file, for messages."""
        return self.path

    @property
    def folder(self) -> Path:
        """Where relative files of its rows are looked for."""
        return Path() if self.path.startswith(HUB) else typed_path(self.path).parent

    def rows(self) -> Iterator[tuple[int, str, Row]]:
        """Number, place (``mine.jsonl, line 3``) and fields of every row; null fields are left out.

        Raises:
            UserError: If there is no such file, or it cannot be read as what its name says it is.
        """
        rows = list(_read(self.path))
        for _, place, row in rows:
            if not isinstance(row, dict):
                raise UserError(f"{place}: a JSON object is needed, found {type(row).__name__}.")
        there = dict.fromkeys(name for _, _, row in rows for name in row)
        if rows and (missing := [column for column in (self.columns or {}).values() if column not in there]):
            known = ", ".join(map(repr, there))  # with the spaces around a name
            raise UserError(f"{rows[0][1]}: there is no column {missing[0]!r}. There are: {known}.")
        as_cells = _kind(self.path) in TABLES
        for number, place, row in rows:
            fields = self._named({name: value for name, value in row.items() if not _is_null(value)})
            yield number, place, {k: _cell(k, v, place) for k, v in fields.items()} if as_cells else fields

    def _named(self, row: Row) -> Row:
        """Our fields of a row, by ``columns``, which some rows may lack; a number in a named column is text."""
        if self.columns is None:
            return row
        found = {name: row[column] for name, column in self.columns.items() if column in row}
        return {k: str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for k, v in found.items()}


def _is_null(value: Any) -> bool:
    """Whether a value stands for nothing: null, or a table's number that is none."""
    return value is None or (isinstance(value, float) and value != value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


KINDS: dict[str, Callable[[Any], bool]] = {  # what each key of `task_file` may hold
    "path": _is_text,
    "columns": lambda value: isinstance(value, Mapping) and all(map(_is_text, (*value, *value.values()))),
    "score": _is_text,
    "normalise": lambda value: isinstance(value, list | tuple) and all(map(_is_text, value)),
    "system_prompt": _is_text,
    "num_fewshot": lambda value: type(value) is int and value >= 0,
}
EXAMPLE = (
    "Set task_file (--subspace.task_file) to a path, or to '{path: mine.csv, columns: {prompt: question, "
    f"target: answer}}, score: contains}}' (keys: {', '.join(f.name for f in fields(TaskFile))})."
)


def _by_name(value: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """The values of several files by their names; empty for one file, and for none."""
    if not isinstance(value, Mapping) or KINDS.keys() & value.keys():
        return {}
    named = all(isinstance(content, str | Mapping) for content in value.values())
    return {str(name): content for name, content in value.items()} if named else {}


def file_of(value: str | Mapping[str, Any] | None, name: str = "") -> TaskFile:
    """The file of the task ``custom``, or of ``custom:NAME``.

    Args:
        value: ``task_file``: a path or a mapping of one file's options; of several files, such values by their names.
        name: What stands behind the colon; empty for the one file.

    Raises:
        UserError: If there is no such file; see `TaskFile.of`, too.
    """
    if value is None:
        raise UserError(f"Task 'custom' needs a file. {EXAMPLE}")
    files = _by_name(value)
    misspelt = [other for other in files if difflib.get_close_matches(other, KINDS, n=1, cutoff=0.7)]
    if not name and (not files or misspelt):
        return TaskFile.of(value)
    tasks = ", ".join(f"custom:{other}" for other in files)
    if not name:
        raise UserError(
            f"Task 'custom' is one file, but task_file names several. Name one or more of {tasks} as tasks."
        )
    if name not in files:
        there = f"There are: {tasks}." if files else "There is one file without a name, the task custom."
        raise UserError(
            f"Task 'custom:{name}': task_file names no file {name!r}. {there} Set task_file (--subspace.task_file) to "
            f"'{{{name}: {name}.csv, ...}}', a path or a mapping for each name."
        )
    return TaskFile.of(files[name])


def content_sha256(value: str | Mapping[str, Any] | None) -> str | None:
    """SHA-256 of a task's file, or of the hashes of several; None without one.

    A data set of the hub has none: its commit counts.
    """
    if files := _by_name(value):
        found = {name: content_sha256(files[name]) for name in sorted(files)}
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()
    path = "" if value is None else TaskFile.of(value).path
    return file_sha256(typed_path(path)) if path and typed_path(path).is_file() else None


def system_prompt_of(value: str | Mapping[str, Any] | None) -> str:
    """The system prompt of a ``task_file``, which several files must share to have one; empty for none."""
    if files := _by_name(value):
        prompts = {system_prompt_of(content) for content in files.values()}
        return prompts.pop() if len(prompts) == 1 else ""
    return "" if value is None else TaskFile.of(value).system_prompt or ""


def _read(path: str) -> Iterator[tuple[int, str, Any]]:
    if path.startswith(HUB):
        yield from _numbered(path, "row", _hub(path))
        return
    file = typed_path(path)
    if not file.is_file():
        raise UserError(f"task_file={path!r}: {missing(path)}. Set task_file (--subspace.task_file) to one.")
    kind = _kind(path)
    if kind == "parquet":
        yield from _numbered(str(file), "row", _parquet(file))
    elif kind in TABLES:
        yield from _table(file, TABLES[kind])
    elif kind == "json":
        yield from _json(file)
    else:
        yield from _json_lines(file, _text(file))


def _kind(path: str) -> str:
    """How a file's name ends, without ``.gz``; of the hub it is no file."""
    return "" if path.startswith(HUB) else path.removesuffix(".gz").rpartition(".")[2].lower()


def _text(file: Path) -> str:
    try:
        if (data := file.read_bytes()) and (what := foreign(file)) is not None:
            raise UserError(f"{file} {what}. Set task_file (--subspace.task_file) to the file itself.")
        return (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(
            f"{file} cannot be read as UTF-8 text ({error}). Save it as UTF-8 JSON Lines, JSON or CSV."
        ) from error


def _json_lines(file: Path, text: str) -> Iterator[tuple[int, str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, strict=True)
        except ValueError as error:
            raise UserError(f"{file}, line {number}: not valid JSON ({error}). Mend or remove that line.") from error
        yield number, f"{file}, line {number}", row


def _json(file: Path) -> Iterator[tuple[int, str, Any]]:
    """An array of objects, one under a single key, or JSON Lines under the name of JSON."""
    text = _text(file)
    try:
        whole = parse_json(text, strict=True)
    except ValueError:
        yield from _json_lines(file, text)
        return
    lists = [v for v in whole.values() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v)] if (
        isinstance(whole, dict) and not {"prompt", "messages"} & whole.keys()
    ) else []  # fmt: skip
    rows = whole if isinstance(whole, list) else lists[0] if len(lists) == 1 else [whole]
    yield from _numbered(str(file), "row", rows)


def _table(file: Path, delimiter: str) -> Iterator[tuple[int, str, Row]]:
    """Rows of a CSV; every cell is text as it stands, an empty one is null."""
    reader = csv.DictReader(io.StringIO(_text(file), newline=""), delimiter=delimiter, strict=True)
    try:
        heading = [name for name in reader.fieldnames or () if name]
        if twice := next((name for name in heading if heading.count(name) > 1), None):
            raise UserError(f"{file}, line 1: the column {twice!r} stands there twice. Rename or remove one of them.")
        for cells in reader:
            place = f"{file}, line {reader.line_num}"
            if None in cells or None in cells.values():
                raise UserError(f"{place}: the row has more or fewer cells than the heading. Quote cells with commas.")
            yield reader.line_num, place, {name: value or None for name, value in cells.items()}
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: not a table ({error}). Mend that row.") from error


def _cell(name: str, value: str, place: str) -> Any:
    """What a cell holds for one of our fields: text, or a list, which stands in it as JSON."""
    if name not in IN_CELLS or not value.lstrip().startswith("["):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise UserError(f"{place}: `{name}` is {value!r}, which is no JSON list ({error}). Mend it.") from error


def _parquet(file: Path) -> list[Row]:
    from pyarrow.parquet import read_table

    with reading(file, "Parquet", "Copy it again, or set task_file (--subspace.task_file) to the file itself."):
        return list(read_table(file).to_pylist())


def _hub(address: str) -> Iterable[Row]:
    """``hf://owner/name[:config][/split]``; the split is ``train`` where none is named."""
    parts = address.removeprefix(HUB).split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(
            f"task_file={address!r} is no data set of the hub. Set task_file (--subspace.task_file) to "
            "hf://owner/name, with :config and /split behind it where they are needed."
        )
    name, _, config = parts[1].partition(":")
    split, hub_id = (parts[2] if len(parts) == 3 else "train"), f"{parts[0]}/{name}"
    commit = commit_of(hub_id)
    from datasets import load_dataset  # after the look, as in `sources`

    try:
        return load_dataset(hub_id, config or None, split=split, revision=commit)
    except Exception as error:  # the client raises many kinds, all meaning "not to be had"
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The data set {hub_id} ({config or 'default'}, {split}) is neither downloaded nor reachable: {first_line} "
            "Set task_file (--subspace.task_file) to a file of your own, or to another data set."
        ) from error


def _numbered(where: str, what: str, rows: Iterable[Any]) -> Iterator[tuple[int, str, Any]]:
    for number, row in enumerate(rows, start=1):
        yield number, f"{where}, {what} {number}", row
