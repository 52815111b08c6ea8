"""A user's own task: rows with a prompt and its correct completion, from a file or the hub (``task_file.py``).

Every field is checked when the file is read, and a mistake is told with file and line number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, get_args

from spd_lightning.errors import UserError, counted
from spd_lightning.tasks.coding import program_meta
from spd_lightning.tasks.golds import NUMBER_WANTED, is_comparable, parses
from spd_lightning.tasks.math_word import number_text
from spd_lightning.tasks.numbers import final_number
from spd_lightning.tasks.rules import ALONE, make_rule, without_use
from spd_lightning.tasks.task import AnswerType, Domain, Split, Task
from spd_lightning.tasks.task_file import EXAMPLE, TaskFile, file_of

FIELDS = (
    *("prompt", "target", "id", "correct", "split", "choices", "tests", "domain"),
    *("targets", "score", "normalise", "completion", "messages"),
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
RULES: dict[AnswerType, str] = {
    "program": "running `tests`",
    "letter": "comparing letters (`choices`)",
    "number": "comparing numbers (`#### N`)",
    "text": "exact match",
    "rule": "the rule that it names (`score`)",
}
Wrong = Callable[[str, str], UserError]


class Custom(Task):
    """A task read from a file of the user; of several files, each is a task, ``custom:NAME``.

    Fields: ``prompt`` and ``target`` (joined with nothing between), or ``completion`` for ``target``, or ``messages``
    (one of the user, one of the assistant, one of the system before them or none); optional ``id`` (default: split
    and place, ``test/4``), ``targets`` (further accepted answers), ``score`` and ``normalise`` (how it is scored, see
    `rules`), ``correct`` (list of [start, end) character offsets into prompt + target; default the target), ``split``
    (train or test; by default every fifth row is test), ``choices`` (already shown in the prompt; ``target`` holds the
    right letter), ``tests`` (Python that calls what the completion defines, with plain values) and ``domain`` (math,
    code, qa or other; default other).

    Where no row has a ``score``: scored by ``tests``, else by letter if there are ``choices`` (likelihood; generated
    under the paper protocol), else by number if every target ends in ``#### N`` (N as in ``18``, ``$1,250``, ``1/2``,
    ``50%`` or ``1e5``; anything else is refused), else by exact match. Rules of ``score`` may differ from row to row,
    but for ``tests`` and ``choice_likelihood``. One file has one domain.

    Args:
        task_file: Path of the file, or a mapping (see `task_file.file_of`).
        variant: Name of the file, where there are several.
    """

    name = "custom"
    domain = "other"
    answer_type: AnswerType = "text"  # until the file is read
    stop = ()
    default_num_examples: ClassVar[int] = 50

    def __init__(self, task_file: str | Mapping[str, Any] | None = None, variant: str = "") -> None:
        super().__init__(variant=variant)
        self.file = file_of(task_file, variant)
        self._docs = read_custom(self.file)
        self.domain = _only(self.file, [(d["line"], d["domain"]) for d in self._docs], "domain {}")
        rules = [(d["line"], d["answer_type"]) for d in self._docs]
        self.answer_type = _only(self.file, rules, "scoring by {}", RULES)
        self.output_type = "choices" if self.answer_type == "letter" else "generate"
        asked = self.file.system_prompt
        systems = [(d["line"], d.get("system", asked or "")) for d in self._docs]
        if asked and (own := [system for _, system in systems if system != asked]):
            raise UserError(
                f"task_file.system_prompt={asked!r}, but rows of {self.file.name} have {own[0]!r}. Leave one out."
            )
        self.system_prompt = _only(self.file, systems, "the system prompt {!r}")
        train, shots = [doc for doc in self._docs if doc["split"] == "train"], self.file.num_fewshot
        if shots and len(train) <= shots:
            raise UserError(
                f"task_file.num_fewshot={shots} leaves none of the {len(train)} training rows of {self.file.name} to "
                "ask. Set it lower, or give more rows."
            )
        self.solved = "".join(f"{doc['prompt']}{doc['target']}\n\n" for doc in train[:shots])
        self._asked = {"train": train[shots:], "test": [doc for doc in self._docs if doc["split"] == "test"]}

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        if not self._asked[split]:
            raise UserError(
                f"{self.file.name} has {counted(len(self._docs), 'row')} and none of them is a {split} row. Give some "
                f"rows `split: {split}`, or leave the field `split` out: of five such rows the last is a test row, the "
                "others train."
            )
        return self._asked[split]

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return self.solved + doc["prompt"]

    def doc_to_question(self, doc: dict[str, Any]) -> str:
        return doc["prompt"]

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return doc["target"]

    def doc_to_expected(self, doc: dict[str, Any]) -> str:
        if self.answer_type == "program":
            return doc["tests"]
        if self.answer_type == "rule":
            return " | ".join(target.strip() for target in doc["rule"].targets)
        return number_text(doc["target"]) if self.answer_type == "number" else doc["target"].strip()

    def doc_to_spans(self, doc: dict[str, Any], prompt: str, target: str) -> tuple[tuple[int, int], ...]:
        before = len(self.solved)
        moved = tuple((before + start, before + end) for start, end in doc["correct"])
        return moved or ((len(prompt), len(prompt) + len(target)),)

    def doc_to_choices(self, doc: dict[str, Any]) -> tuple[str, ...]:
        space = doc["target"][: len(doc["target"]) - len(doc["target"].lstrip())]
        return tuple(space + letter for letter in LETTERS[: len(doc["choices"])])

    def doc_to_meta(self, doc: dict[str, Any]) -> dict[str, Any]:
        if self.answer_type == "rule":
            return {"rule": doc["rule"]}
        return program_meta("", doc["tests"]) if self.answer_type == "program" else {}


def read_custom(file: TaskFile) -> list[dict[str, Any]]:
    """The checked rows of a file, each with ``line``, ``split``, ``domain``, ``rule`` and ``answer_type`` filled in.

    Raises:
        UserError: For the first mistake, with file and line; for an id used twice; for a file without rows.
    """
    docs: list[dict[str, Any]] = []
    line_of_id: dict[str, int] = {}
    for line, place, row in file.rows():
        doc = _check_row(row, place, file)
        split = doc.get("split") or ("test" if len(docs) % 5 == 4 else "train")
        name = str(doc.get("id", f"{split}/{len(docs)}"))
        if name in line_of_id:
            raise UserError(f"{place}: id {name!r} stands on line {line_of_id[name]} too. Ids must differ.")
        line_of_id[name] = line
        docs.append({**doc, "line": line, "id": name, "split": split})
    if any(doc["answer_type"] == "rule" for doc in docs):  # then the rules that others imply are named too
        for doc in docs:
            if doc["answer_type"] in ("text", "number"):
                name = "exact" if doc["answer_type"] == "text" else "number"
                accepted = [number_text(doc["target"]) or doc["target"]]
                doc.update(rule=make_rule(name, accepted, file.normalise, file.folder), answer_type="rule")
    if file.normalise is not None and all(without_use(_rule_name(doc)) for doc in docs):
        raise UserError(
            f"task_file.normalise={list(file.normalise)} does nothing here: the rows of {file.name} are scored by "
            f"{_rule_name(docs[0])}. Leave it out, or set task_file.score to exact, say."
        )
    if not docs:
        raise UserError(f"{file.name} holds no rows. Give rows with `prompt` and `target`.")
    return docs


def _rule_name(doc: dict[str, Any]) -> str:
    implied = {"program": "tests", "letter": "choice_likelihood", "number": "number"}
    return doc["rule"].name if "rule" in doc else implied.get(doc["answer_type"], "exact")


def _check_row(row: dict[str, Any], where: str, file: TaskFile) -> dict[str, Any]:
    """One row with every optional field present, and how it is scored."""

    def wrong(name: str, needed: str) -> UserError:
        found = f"is {row[name]!r}" if name in row else "is missing"
        return UserError(f"{where}: `{name}` {found}, but it must be {needed}.")

    row = _as_prompt_and_target(row, where)
    unknown = sorted(row.keys() - {*FIELDS, "system"})
    if unknown:
        hint = f" {EXAMPLE}" if {"prompt", "target"} - row.keys() and file.columns is None else ""
        raise UserError(f"{where}: unknown field {unknown[0]!r}. Known: {', '.join(FIELDS)}.{hint}")
    if "target" not in row and isinstance(row.get("targets"), list) and row["targets"]:
        row["target"] = row["targets"][0]
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
    for name in ("targets", "normalise"):
        value = row.get(name, ["x"])
        if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
            raise wrong(name, "a list of texts")
    if row.get("targets") == []:
        raise wrong("targets", "a list of at least one text")
    if not isinstance(row.get("score", ""), str):
        raise wrong("score", "text")
    row.update(
        domain=row.get("domain", "other"),
        tests=row.get("tests", ""),
        correct=_check_spans(row["correct"], len(row["prompt"] + row["target"]), wrong) if "correct" in row else (),
        choices=_check_choices(row["choices"], row["target"], wrong) if "choices" in row else (),
    )
    return _scored(row, where, wrong, file)


def _as_prompt_and_target(row: dict[str, Any], where: str) -> dict[str, Any]:
    """A row as it is, or as trl takes it: ``completion`` for the target, ``messages``, or turns as both.

    A system turn becomes ``system``, which all rows of a file share.
    """
    row = dict(row)
    for name, others in (("completion", ("target",)), ("messages", ("prompt", "target", "completion"))):
        if both := [other for other in others if name in row and other in row]:
            raise UserError(f"{where}: `{name}` and `{both[0]}` stand both in the row. Leave one of the two out.")
    if "completion" in row:
        row["target"] = row.pop("completion")
    if "messages" in row:
        turns = row.pop("messages")
    elif isinstance(row.get("prompt"), list) and isinstance(row.get("target"), list):
        turns = [*row["prompt"], *row["target"]]
    else:
        return row
    whole = isinstance(turns, list) and all(isinstance(t, dict) and isinstance(t.get("content"), str) for t in turns)
    roles = [turn.get("role") for turn in turns] if whole else []
    if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
        raise UserError(
            f"{where}: the turns have the roles {roles!r}, but they must be a list of {{role, content}}: one of the "
            "user, then one of the assistant, and before them one of the system or none. Give longer conversations "
            "as `prompt` and `target`."
        )
    system = {"system": turns[0]["content"]} if roles[0] == "system" else {}
    return {**row, **system, "prompt": turns[-2]["content"], "target": turns[-1]["content"]}


def _scored(row: dict[str, Any], where: str, wrong: Wrong, file: TaskFile) -> dict[str, Any]:
    """The row with its ``rule``, and the ``answer_type`` of a file of such rows."""
    score = row.get("score", file.score)
    implied = "tests" if row["tests"] else "choice_likelihood" if row["choices"] else None
    if row["tests"] and score not in (None, "tests"):
        raise UserError(f"{where}: `score` is {score!r}, which does not run the `tests` of the row. Leave one out.")
    if idle := [name for name in without_use(score or implied) if row.get(name, [row["target"]]) != [row["target"]]]:
        raise UserError(f"{where}: `{idle[0]}` does nothing where rows are scored by {score or implied}. Leave it out.")
    if score is None or (score in ALONE and score == implied):
        if score is None and implied is None and (row.get("targets") or "normalise" in row or file.normalise):
            score = "number" if final_number(row["target"]) else "exact"
        else:
            rules: dict[str | None, AnswerType] = {"tests": "program", "choice_likelihood": "letter"}
            return {**row, "answer_type": rules[implied] if implied else _rule_of_target(row["target"], wrong)}
    if score in ALONE:
        needed = "`tests`" if score == "tests" else "`choices`"
        raise UserError(f"{where}: `score` is {score!r}, which needs {needed} in the row.")
    accepted = [] if score == "regex" and "targets" in row else [row["target"]]
    accepted += [target for target in row.get("targets", ()) if target not in accepted]
    if score == "number":
        accepted = [number_text(target) or target for target in accepted]
    normalise = row.get("normalise", file.normalise)
    try:
        rule = make_rule(str(score), accepted, normalise, file.folder)
    except ValueError as error:
        raise UserError(f"{where}: {error}.") from error
    return {**row, "rule": rule, "answer_type": "rule"}


def _rule_of_target(target: str, wrong: Wrong) -> AnswerType:
    """``number`` for a target that ends in ``#### N``, else ``text``; a last line with that marker is never text."""
    final = final_number(target)
    if final is not None and final.value is None:
        raise wrong("target", f"text that ends in `#### N`, N being {NUMBER_WANTED}, or in a line without ####")
    if not is_comparable(target):
        raise wrong("target", "more than quotes and punctuation, which comparing drops")
    return "text" if final is None else "number"


def _check_spans(value: Any, length: int, wrong: Wrong) -> tuple[tuple[int, int], ...]:
    def is_span(pair: Any) -> bool:
        whole = isinstance(pair, list) and len(pair) == 2 and all(type(i) is int for i in pair)
        return whole and 0 <= pair[0] < pair[1] <= length

    if not isinstance(value, list) or not value or not all(is_span(pair) for pair in value):
        raise wrong("correct", f"a list of [start, end) offsets within 0 to {length}, such as [[0, {length}]]")
    return tuple((start, end) for start, end in value)


def _check_choices(value: Any, target: str, wrong: Wrong) -> tuple[str, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= 26 or not all(isinstance(c, str) for c in value):
        raise wrong("choices", "a list of 2 to 26 texts")
    letters = LETTERS[: len(value)]
    if len(target.strip()) != 1 or target.strip() not in letters:
        raise wrong("target", f"the letter of one of its `choices` (A to {letters[-1]})")
    return tuple(value)


def _only(file: TaskFile, values: list[tuple[int, Any]], what: str, words: dict[Any, str] | None = None) -> Any:
    """The one value of all lines.

    Raises:
        UserError: If two lines differ.
    """
    first_line, first = values[0]
    for line, value in values:
        if value != first:
            here, there = (what.format((words or {}).get(v, v)) for v in (value, first))
            raise UserError(
                f"{file.name}: line {line} has {here}, line {first_line} {there}. Put them in two files, each a task "
                "custom:NAME (docs/own_data.md)."
            )
    return first
