"""Rows of the public data sets, from a data folder or from the hub, in one layout.

A folder (``data_dir`` or the environment variable SPD_DATA_DIR) holds ``<set>/<file>.jsonl.gz`` (or ``.jsonl``);
without one, rows come from the hub through ``datasets`` and get the field names of the folder's files. Every row is
checked for its fields, and for a gold answer that something could match, before a task sees it.

Ids, configs, splits and fields on the hub were compared on `CARDS_READ` with what is public of each data set: with
stored copies of the cards of gsm8k, humaneval, mbpp and mmlu; for svamp, codealpaca and bbh with code that loads them,
since no card could be read. All are Parquet or JSON; a data set that is a script (``lukaemon/bbh``) is refused by
``datasets`` from version 4 on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spd_lightning import hub
from spd_lightning.artifacts.files import numbered_jsonl, typed_path
from spd_lightning.errors import UserError, unknown_name
from spd_lightning.processes import is_rank_zero
from spd_lightning.tasks import golds

log = logging.getLogger(__name__)

Row = dict[str, Any]
CARDS_READ = "2026-11-26"  # when SOURCES was last compared; see above for what with
MBPP_SPLITS = ("prompt", "test", "validation", "train")
BBH_TASKS = (
    "boolean_expressions",
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "dyck_languages",
    "formal_fallacies",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "movie_recommendation",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
    "word_sorting",
)


@dataclass(frozen=True)
class Source:
    """Where the rows of one file are, and what each must hold.

    Attributes:
        hub_id: Data set on the hub.
        parts: ``(config, split)`` on the hub, joined in this order.
        fields: Field -> type, which every row must have.
        check: Says what is wrong with the gold answer of a row whose fields are there.
        convert: Turns a hub row of ``(config, split)`` into the folder's layout; None if it has it already.
    """

    hub_id: str
    parts: tuple[tuple[str | None, str], ...]
    fields: dict[str, type | tuple[type, ...]]
    check: golds.Check = lambda row: None
    convert: Callable[[Row, str | None, str], Row] | None = None


def _mmlu(split: str) -> Source:
    fields: dict[str, type | tuple[type, ...]] = {"question": str, "choices": list, "answer": int, "subject": str}
    check = golds.some_choices if split == "auxiliary_train" else golds.four_choices
    # an older upload nests the auxiliary rows under "train"
    return Source("cais/mmlu", (("all", split),), fields, check, lambda row, config, split: row.get("train") or row)


def _number(answer: Any) -> Any:
    """A number that the hub holds as text; what is none is left for the check of its type to name."""
    try:
        return float(answer)
    except (TypeError, ValueError):
        return answer


SOURCES: dict[str, Source] = {
    "gsm8k/train": Source("openai/gsm8k", (("main", "train"),), {"question": str, "answer": str}, golds.marked_number),
    "gsm8k/test": Source("openai/gsm8k", (("main", "test"),), {"question": str, "answer": str}, golds.marked_number),
    "humaneval/test": Source(
        "openai/openai_humaneval",
        ((None, "test"),),
        {"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str},
        golds.humaneval_test,
    ),
    "mbpp/full": Source(
        "google-research-datasets/mbpp",
        tuple(("full", split) for split in MBPP_SPLITS),
        {"task_id": int, "text": str, "code": str, "test_list": list, "test_setup_code": str, "split": str},
        golds.mbpp_tests,
        lambda row, config, split: {**row, "split": split},
    ),
    "mbpp/sanitized": Source(
        "google-research-datasets/mbpp",
        tuple(("sanitized", split) for split in MBPP_SPLITS),
        {"task_id": int, "prompt": str, "code": str, "test_imports": list, "test_list": list, "split": str},
        golds.mbpp_tests,
        lambda row, config, split: {**row, "split": split},
    ),
    "svamp/all": Source(
        "ChilleD/SVAMP",
        ((None, "train"), (None, "test")),
        {"ID": str, "Body": str, "Question": str, "Answer": (int, float), "chilled_split": str},
        golds.stated_number,
        lambda row, config, split: {**row, "Answer": _number(row["Answer"]), "chilled_split": split},
    ),
    "bbh/test": Source(
        "SaylorTwift/bbh",  # the Parquet copy that lm-evaluation-harness and others read; the first upload is a script
        tuple((task, "test") for task in BBH_TASKS),
        {"task": str, "input": str, "target": str},
        golds.comparable_text,
        lambda row, config, split: {"task": config, **row},
    ),
    "codealpaca/train": Source(
        "sahil2801/CodeAlpaca-20k", ((None, "train"),), {"instruction": str, "input": str, "output": str}
    ),
    "mmlu/test": _mmlu("test"),
    "mmlu/dev": _mmlu("dev"),
    "mmlu/validation": _mmlu("validation"),
    "mmlu/auxiliary_train": _mmlu("auxiliary_train"),
}


def data_folder(data_dir: str | None) -> Path | None:
    """The data folder in force: the argument, else SPD_DATA_DIR, else None for the hub.

    Raises:
        UserError: If it is named but is not a folder.
    """
    named = data_dir or os.environ.get("SPD_DATA_DIR") or None
    if named is None:
        return None
    folder = typed_path(named)
    if not folder.is_dir():
        raise UserError(
            f"data_dir={named!r} is not a folder. Set --data_dir (or SPD_DATA_DIR) to a folder laid out as the README "
            "says, or leave it out to take rows from the hub."
        )
    return folder


def has_rows(key: str, data_dir: str | None) -> bool:
    """Whether ``load_rows`` would find a file; always true for the hub, which is not asked."""
    folder = data_folder(data_dir)
    return folder is None or _file(folder, key) is not None


def place_of(key: str, data_dir: str | None) -> str:
    """The file, or the data set on the hub, that ``load_rows`` reads, for messages."""
    folder = data_folder(data_dir)
    return f"{SOURCES[key].hub_id} ({key})" if folder is None else str(_file(folder, key))


def load_rows(key: str, data_dir: str | None) -> list[Row]:
    """All rows of one file, in order.

    Args:
        key: Key of ``SOURCES``, e.g. ``"gsm8k/train"``.
        data_dir: Data folder, or None for SPD_DATA_DIR or the hub.

    Raises:
        UserError: If the file is not there or damaged, a row lacks a field or has a gold answer that nothing could
            match, or the hub cannot be reached.
    """
    source, folder = SOURCES[key], data_folder(data_dir)
    if folder is None:
        rows = ((f"row {number}", row) for number, row in enumerate(_hub_rows(source), start=1))
        return list(check_rows(rows, source, f"{source.hub_id} ({key})"))
    path = _file(folder, key)
    if path is None:
        raise UserError(
            f"The data folder {folder} has no file {key}.jsonl.gz (nor {key}.jsonl). Set data_dir (--data_dir, "
            "SPD_DATA_DIR) "
            "to a folder that holds it, or leave both out to take rows from the hub."
        )
    rows = ((f"line {number}", row) for number, row in numbered_jsonl(path, writable=True))
    return list(check_rows(rows, source, str(path)))


def check_rows(rows: Iterable[tuple[str, Row]], source: Source, where: str) -> Iterator[Row]:
    """The rows, each with all its fields and a gold answer that something could match.

    Args:
        rows: Each with its place (``line 3``).
        source: What a row must hold.
        where: The file or data set, for messages.

    Raises:
        UserError: For the first row that lacks a field, has one of another type, or a gold answer out of reach.
    """
    for place, row in rows:
        for name, kind in source.fields.items():
            if name not in row:
                wrong: str | None = f"the field {name!r} is missing. Needed: {', '.join(source.fields)}"
            elif not isinstance(row[name], kind) or isinstance(row[name], bool):
                wrong = f"the field {name!r} is {row[name]!r}, but {_type_names(kind)} is needed"
            else:
                continue
            break
        else:
            wrong = source.check(row)
        if wrong:
            raise UserError(f"{where}, {place}: {wrong}. Mend that row, or set another data_dir (--data_dir).")
        yield row


def _type_names(kind: type | tuple[type, ...]) -> str:
    words = {str: "text", int: "a whole number", float: "a number", list: "a list"}
    return " or ".join(words[k] for k in (kind if isinstance(kind, tuple) else (kind,)))


def _file(folder: Path, key: str) -> Path | None:
    return next((p for p in (folder / f"{key}.jsonl.gz", folder / f"{key}.jsonl") if p.is_file()), None)


# Data sets of the hub by id: the revision that was asked for, and the commit that was taken in this process.
_revisions: dict[str, str] = {}
_commits: dict[str, str] = {}


def fix_revisions(revisions: Mapping[str, str]) -> None:
    """Take data sets of the hub at these revisions from now on in this process, by id; others from their main branch.

    Raises:
        UserError: For an id that no task reads.
    """
    known = {source.hub_id for source in SOURCES.values()}
    for hub_id in revisions:
        if hub_id not in known:
            raise unknown_name("data set in data_revision", hub_id, known, "--data_revision")
    _revisions.clear()
    _revisions.update(revisions)
    _commits.clear()


def commits_taken() -> dict[str, str]:
    """The commit of every data set that this process took from the hub, by id, where it is known."""
    return dict(sorted(_commits.items()))


def commit_of(hub_id: str) -> str | None:
    """The commit of a data set at its revision, asked once per process; None where the hub does not answer."""
    if hub_id not in _commits:
        from huggingface_hub import HfApi

        wanted = _revisions.get(hub_id)
        try:
            commit = hub.ask(lambda: HfApi().dataset_info(hub_id, revision=wanted)).sha
        except Exception:  # offline: what was downloaded before is taken, at the revision as it was typed
            return wanted
        if commit is None:
            return wanted
        _commits[hub_id] = commit
        if commit != wanted and is_rank_zero():
            log.warning(
                "%s: %s is at commit %s and may move; data_revision (--data_revision '{%s: %s}') keeps it",
                *(hub_id, wanted or "its main branch", commit, hub_id, commit),
            )
    return _commits[hub_id]


def _hub_rows(source: Source) -> Iterator[Row]:
    commit = commit_of(source.hub_id)
    from datasets import load_dataset  # after the look: it tries again and again where it does not know of it

    for config, split in source.parts:
        try:
            rows = load_dataset(source.hub_id, config, split=split, revision=commit)
        except Exception as error:  # the client raises many kinds, all meaning "not to be had"
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"The data set {source.hub_id} ({config or 'default'}, {split}) is neither downloaded nor reachable: "
                f"{first_line} Set data_dir (--data_dir, SPD_DATA_DIR) to a local data folder."
            ) from error
        for row in rows:
            yield source.convert(dict(row), config, split) if source.convert else dict(row)
