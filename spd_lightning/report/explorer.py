"""The samples that the page lets one look through: what each model answered to an example, side by side, as data.

Text that all prompts of a benchmark begin with stands once. The page never grows without bound: long texts are
shortened, then samples are left out, and both are said with the files that hold them whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spd_lightning.errors import counted
from spd_lightning.report.across import bases_of, example_of, trained_arms
from spd_lightning.report.examples import examples
from spd_lightning.report.render import Explorer, Section, clean
from spd_lightning.report.runs import Run
from spd_lightning.scoring.verdicts import KINDS, find_metric

MOST_BYTES = 4_000_000
"""Of the data, as JSON; with everything else the page stays under 5 MB."""
CUTS = (4000, 1500, 500, 200)
"""Texts are shortened to so many characters, the first that brings the data under its bound."""
WITHOUT_SCRIPT = 20
MOST_COLUMNS = 7

Column = tuple[str, Run, str]
"""Name on the page, run, and the method under which its samples stand."""


def sample_sections(columns: Sequence[Column], left_out: Collection[str] = ()) -> list[Section]:
    """The section; none without samples.

    Args:
        columns: The models, the base first.
        left_out: Names of arms that have no column.
    """
    samples = explore(columns)
    if not samples["tasks"]:
        return []
    count = sum(task["of"] for task in samples["tasks"])
    flipped = sum(task["flipped"] for task in samples["tasks"])
    alone = len({run.path for _, run, _ in columns}) == 1
    names = ", ".join(name for name, _, _ in columns)
    headline = f"{counted(count, 'answer')} side by side of {names}; right or wrong changed in {flipped:,}"
    headline += f"; {counted(len(left_out), 'more arm')} in their files alone" if left_out else ""
    return [Section("Samples", headline, [Explorer(samples, examples(columns[0][1]) if alone else [])])]


def students_of(runs: Sequence[Run]) -> set[str]:
    """Names of the arms that trained something."""
    return {name for name, members in trained_arms(runs).items() if members[0].results["method"] not in (None, "base")}


def columns_of_runs(runs: Sequence[Run]) -> list[Column]:
    """A student of each arm, of the first seed: those answered the same examples. Their bases stand first."""
    seed = runs[0].seed
    students = [
        (name, run, str(run.results["method"]))
        for name, members in trained_arms(runs).items()
        for run in [r for r in members if r.seed == seed][:1]
        if run.results["method"] not in (None, "base")
    ]
    names = {task: bases_of(runs, task) for run in runs for task, _ in run.sample_files}
    bases: dict[str, Column] = {}
    for run in [run for _, run, _ in students] or list(runs[:1]):
        own = {names[task][run.path] for task, method in run.sample_files if method == "base"}
        if own:  # "base", where no task tells them apart
            bases.setdefault(max(own, key=len), (max(own, key=len), run, "base"))
    return [*bases.values(), *students][:MOST_COLUMNS]


def explore(columns: Sequence[Column], most: int = MOST_BYTES) -> dict[str, Any]:
    """The data of the page, JSON values.

    Args:
        columns: The models, the base first.
        most: Bytes that it may take.

    Returns:
        ``models``: names of the columns; ``bases``: the column that each is held against; ``cut``: characters after
        which texts are shortened; ``tasks``: for each benchmark its ``name``, ``shared`` beginning of its prompts,
        ``files``, ``of`` (how many examples there are), ``flipped`` (in how many two models are judged otherwise) and
        ``rows``: id, prompt without what is shared, gold answer, and for each model None or
        [completion, answer, verdict (1 right, 0 wrong, -1 unreadable, None not judged), reason, likelihoods or None].
    """
    names = dict.fromkeys(task for _, run, method in columns for task, m in run.sample_files if m == method)
    tasks = [_task(task, columns) for task in names]
    models = [name for name, _, _ in columns]
    data: dict[str, Any] = {"models": models, "bases": _held_against(columns), "cut": CUTS[0], "tasks": []}
    for cut in CUTS:
        data |= {"cut": cut, "tasks": [{**task, "rows": [_cut(row, cut) for row in task["rows"]]} for task in tasks]}
        if (size := _size(data)) <= most:
            return data
    while size > most and any(len(task["rows"]) > WITHOUT_SCRIPT for task in data["tasks"]):
        for task in data["tasks"]:
            keep = max(WITHOUT_SCRIPT, int(len(task["rows"]) * most / size * 0.95))
            flips = [_is_flipped(row) for row in task["rows"]]
            chosen = sorted(range(len(flips)), key=lambda i, flips=flips: (not flips[i], i))[:keep]  # type: ignore[misc]
            task["rows"] = [task["rows"][i] for i in sorted(chosen)]
        size = _size(data)
    return data


def _size(data: Mapping[str, Any]) -> int:
    """Bytes on the page, where four characters are written as six; the first samples stand there once more."""
    first = [task["rows"][:WITHOUT_SCRIPT] for task in data["tasks"][:1]]
    text = json.dumps([data, first], ensure_ascii=False)
    return len(text.encode()) + 5 * sum(map(text.count, "<>&'"))


def _held_against(columns: Sequence[Column]) -> list[int]:
    """For each column that of its own base, by what `bases_of` says; the first where there is none."""
    runs = [run for _, run, _ in columns]
    names = {task: bases_of(runs, task) for task in dict.fromkeys(task for run in runs for task, _ in run.sample_files)}

    def is_base_of(column: Column, run: Run) -> bool:
        of = [(found[run.path], found.get(column[1].path)) for found in names.values() if run.path in found]
        return column[2] == "base" and any(a == b for a, b in of) and all(b in (a, None) for a, b in of)

    return [next((i for i, column in enumerate(columns) if is_base_of(column, run)), 0) for run in runs]


def _is_flipped(row: Sequence[Any]) -> bool:
    """Whether two models were judged otherwise."""
    return len({answer[2] == 1 for answer in row[3] if answer is not None and answer[2] is not None}) > 1


def _task(task: str, columns: Sequence[Column]) -> dict[str, Any]:
    """One benchmark, its texts whole."""
    found: dict[tuple[str, int], list[Any]] = {}
    prompts: dict[tuple[str, int], tuple[str, str, str]] = {}
    files = []
    for i, (_, run, method) in enumerate(columns):
        holds = _holds(run, task, method)
        records = run.sample_rows(task, method)
        files += [f"{run.name}/samples/{run.sample_files[task, method].name}"] if records else []
        for r in records:
            key = (example_of(r), r.get("sample", 0))
            prompts.setdefault(key, (clean(r.get("prompt") or ""), clean(r.get("expected")), str(r["id"])))
            found.setdefault(key, [None] * len(columns))[i] = _answer(r, holds)
    shared = _shared([prompt for prompt, *_ in prompts.values()])
    rows = []
    for key, answers in found.items():
        (prompt, expected, name), sample = prompts[key], key[1]
        rows.append([f"{name}, sample {sample}" if sample else name, prompt[len(shared) :], expected, answers])
    flipped = sum(map(_is_flipped, rows))
    return {"name": task, "shared": shared, "files": files, "of": len(rows), "flipped": flipped, "rows": rows}


def _holds(run: Run, task: str, method: str) -> Any:
    """Whether an answer of a benchmark could be read, by the rule of its metric."""
    metrics = [find_metric(s["metric"]) for s in run.scores if (s["task"], s["method"]) == (task, method)]
    for found in metrics:
        for kind in KINDS.values():
            if found is not None and any(found[0] is metric for metric in kind.metrics.values()):
                return kind.holds
    return lambda answer: answer is not None


def _answer(record: Mapping[str, Any], holds: Any) -> list[Any]:
    answer, correct, scores = record.get("answer"), record.get("correct"), record.get("scores") or {}
    verdict = None if correct is None else 1 if correct else 0 if holds(answer) else -1
    bars = None
    if len(scores) > 1 and record.get("expected") in scores:
        bars = {clean(name): round(value, 3) for name, value in scores.items()}
    shown = None if answer is None else clean(answer)
    completion = clean(record.get("completion") or "")
    shown = None if shown is not None and shown.strip() == completion.strip() else shown
    return [completion, shown, verdict, clean(record.get("reason") or ""), bars]


def _shared(prompts: Sequence[str]) -> str:
    """The solved examples that all prompts begin with, whole lines; empty where there are no several prompts."""
    if len(set(prompts)) < 2:
        return ""
    first, last = min(prompts), max(prompts)  # what these two share, all between them do
    same = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
    common = first[:same]
    end = common.rfind("\n\n") + 2 if "\n\n" in common else common.rfind("\n") + 1
    return common[:end]


def _cut(row: Sequence[Any], most: int) -> list[Any]:
    """A row with long texts shortened; an ellipsis and the length say so."""

    def short(text: Any) -> Any:
        if not isinstance(text, str) or len(text) <= most:
            return text
        return f"{text[:most]} … ({len(text):,} characters)"

    answers = [None if a is None else [short(a[0]), short(a[1]), *a[2:]] for a in row[3]]
    return [row[0], short(row[1]), short(row[2]), answers]
