"""A user's own task: one JSON object a line, with a prompt and its correct completion.

Every field is checked when the file is read, and a mistake is told with file and line number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, get_args

from spd_lightning.errors import UserError
from spd_lightning.tasks.coding import program_meta
from spd_lightning.tasks.golds import NUMBER_WANTED, is_comparable, parses
from spd_lightning.tasks.math_word import number_text
from spd_lightning.tasks.numbers import final_number
from spd_lightning.tasks.task import AnswerType, Domain, Split, Task

FIELDS = ("prompt", "target", "id", "correct", "split", "choices", "tests", "domain")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
RULES: dict[AnswerType, str] = {
    "program": "running `tests`",
    "letter": "comparing letters (`choices`)",
    "number": "comparing numbers (`#### N`)",
    "text": "exact match",
}


class Custom(Task):
    """A task read from a JSON Lines file.

    Fields: ``prompt`` and ``target`` (joined with nothing between); optional ``id`` (default: the line), ``correct``
    (list of [start, end) character offsets into prompt + target; default the target), ``split`` (train or test;
    by default every fifth row is test), ``choices`` (already shown in the prompt; ``target`` holds the right letter),
    ``tests`` (Python that calls what the completion defines, with plain values) and ``domain`` (math, code, qa or
    other; default other).

    Scored by ``tests``, else by letter if there are ``choices`` (likelihood; generated under the paper protocol), else
    by number if every target ends in ``#### N`` (N as in ``18``, ``$1,250``, ``1/2``, ``50%`` or ``1e5``; anything else
    is refused), else by exact match. One file has one rule and one domain.

    Args:
        task_file: Path of the file.
    """

    name = "custom"
    domain = "other"
    answer_type: AnswerType = "text"  # until the file is read
    stop = ()
    default_num_examples: ClassVar[int] = 50

    def __init__(self, task_file: str | None = None) -> None:
        super().__init__()
        if task_file is None:
            raise UserError("Task 'custom' needs a file. Set --subspace.task_file to a JSON Lines file of prompts.")
        self.path = Path(task_file).expanduser()
        if not self.path.is_file():
            raise UserError(f"task_file={task_file!r}: there is no such file. Set --subspace.task_file to one.")
        self._docs = read_custom(self.path)
        self.domain = _only(self.path, [(d["line"], d["domain"]) for d in self._docs], "domain {}")
        rules = [(d["line"], d["rule"]) for d in self._docs]
        self.answer_type = _only(self.path, rules, "scoring by {}", RULES)
        self.output_type = "choices" if self.answer_type == "letter" else "generate"

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        return [doc for doc in self._docs if doc["split"] == split]

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return doc["prompt"]

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return doc["target"]

    def doc_to_expected(self, doc: dict[str, Any]) -> str:
        if self.answer_type == "program":
            return doc["tests"]
        return number_text(doc["target"]) if self.answer_type == "number" else doc["target"].strip()

    def doc_to_spans(self, doc: dict[str, Any], prompt: str, target: str) -> tuple[tuple[int, int], ...]:
        return doc["correct"] or ((len(prompt), len(prompt) + len(target)),)

    def doc_to_choices(self, doc: dict[str, Any]) -> tuple[str, ...]:
        space = doc["target"][: len(doc["target"]) - len(doc["target"].lstrip())]
        return tuple(space + letter for letter in LETTERS[: len(doc["choices"])])

    def doc_to_meta(self, doc: dict[str, Any]) -> dict[str, Any]:
        return program_meta("", doc["tests"]) if doc["tests"] else {}


def read_custom(path: Path) -> list[dict[str, Any]]:
    """The checked rows of a custom file, each with ``line``, ``split``, ``domain`` and ``rule`` filled in.

    Raises:
        UserError: For the first mistake, with file and line; for an id used twice; for a file without rows.
    """
    docs: list[dict[str, Any]] = []
    line_of_id: dict[str, int] = {}
    for line, text in _lines(path):
        doc = _check_row(text, f"{path}, line {line}")
        split = doc.get("split") or ("test" if len(docs) % 5 == 4 else "train")
        name = str(doc.get("id", f"{split}/{len(docs)}"))
        if name in line_of_id:
            raise UserError(f"{path}, line {line}: id {name!r} stands on line {line_of_id[name]} too. Ids must differ.")
        line_of_id[name] = line
        docs.append({**doc, "line": line, "id": name, "split": split})
    if not docs:
        raise UserError(f"{path} holds no rows. Give a JSON object with `prompt` and `target` on each line.")
    return docs


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}). Save it as UTF-8 JSON Lines.") from error
    return [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _check_row(text: str, where: str) -> dict[str, Any]:
    """One row with every optional field present, and its scoring ``rule``."""

    def wrong(name: str, needed: str) -> UserError:
        found = f"is {row[name]!r}" if name in row else "is missing"
        return UserError(f"{where}: `{name}` {found}, but it must be {needed}.")

    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg}). Mend or remove that line.") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: a JSON object is needed, found {type(row).__name__}.")
    row = {name: value for name, value in row.items() if value is not None}
    unknown = sorted(row.keys() - set(FIELDS))
    if unknown:
        raise UserError(f"{where}: unknown field {unknown[0]!r}. Known: {', '.join(FIELDS)}.")
    for name in ("prompt", "target"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise wrong(name, "text that is not empty")
    if "id" in row and (not isinstance(row["id"], str | int) or isinstance(row["id"], bool) or row["id"] == ""):
        raise wrong("id", "text or a whole number")
    if row.get("split", "train") not in ("train", "test"):
        raise wrong("split", "train or test")
    if row.get("domain", "other") not in get_args(Domain):
        raise wrong("domain", f"one of {', '.join(get_args(Domain))}")
    if "tests" in row and (not isinstance(row["tests"], str) or not row["tests"].strip()):
        raise wrong("tests", "Python source that is not empty")
    if "tests" in row and not parses(row["tests"]):
        raise wrong("tests", "Python that parses (nothing could pass it)")
    row.update(
        domain=row.get("domain", "other"),
        tests=row.get("tests", ""),
        correct=_check_spans(row["correct"], len(row["prompt"] + row["target"]), wrong) if "correct" in row else (),
        choices=_check_choices(row["choices"], row["target"], wrong) if "choices" in row else (),
    )
    row["rule"] = "program" if row["tests"] else "letter" if row["choices"] else _rule_of_target(row["target"], wrong)
    return row


def _rule_of_target(target: str, wrong: Any) -> AnswerType:
    """``number`` for a target that ends in ``#### N``, else ``text``; a last line with that marker is never text."""
    final = final_number(target)
    if final is not None and final.value is None:
        raise wrong("target", f"text that ends in `#### N`, N being {NUMBER_WANTED}, or in a line without ####")
    if not is_comparable(target):
        raise wrong("target", "more than quotes and punctuation, which comparing drops")
    return "text" if final is None else "number"


def _check_spans(value: Any, length: int, wrong: Any) -> tuple[tuple[int, int], ...]:
    def is_span(pair: Any) -> bool:
        whole = isinstance(pair, list) and len(pair) == 2 and all(type(i) is int for i in pair)
        return whole and 0 <= pair[0] < pair[1] <= length

    if not isinstance(value, list) or not value or not all(is_span(pair) for pair in value):
        raise wrong("correct", f"a list of [start, end) offsets within 0 to {length}, such as [[0, {length}]]")
    return tuple((start, end) for start, end in value)


def _check_choices(value: Any, target: str, wrong: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= 26 or not all(isinstance(c, str) for c in value):
        raise wrong("choices", "a list of 2 to 26 texts")
    letters = LETTERS[: len(value)]
    if len(target.strip()) != 1 or target.strip() not in letters:
        raise wrong("target", f"the letter of one of its `choices` (A to {letters[-1]})")
    return tuple(value)


def _only(path: Path, values: list[tuple[int, Any]], what: str, words: dict[Any, str] | None = None) -> Any:
    """The one value of all lines.

    Raises:
        UserError: If two lines differ.
    """
    first_line, first = values[0]
    for line, value in values:
        if value != first:
            here, there = (what.format((words or {}).get(v, v)) for v in (value, first))
            raise UserError(f"{path}: line {line} has {here}, line {first_line} {there}. Put them in two files.")
    return first
