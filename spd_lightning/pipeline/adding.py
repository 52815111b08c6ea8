"""Further benchmarks for a run that is finished: ``results.json`` gains their rows, and loses none.

A row belongs to a benchmark and a method. What a command scores takes the place of the same rows before; all others
stay, whichever command wrote them, since a run folder holds one student. Only Holm's correction is made anew, over the
whole table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from spd_lightning.artifacts.checksums import untouched
from spd_lightning.artifacts.reading import reading
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.settings import differences, flatten
from spd_lightning.errors import UserError
from spd_lightning.evaluation.statistics import holm
from spd_lightning.report.schema import read_results

Results = dict[str, Any]
ORDER = {"base": 0, "projected": 1}
ADDED = "evaluate +"  # begins the name of a stage that added benchmarks
NO_PART = ("tasks", "methods", "when", "every_n_steps", "every_n_epochs", "adapter", "subspace", "skip_missing_data")
"""Options of the evaluation that change no row: they say which there are."""


def earlier_results(run: RunFolder, fingerprint: str) -> Results:
    """What ``results.json`` of a run holds; empty where there is none of this run that can be read, as it was written.

    One that cannot is told and written anew: what was computed meanwhile is not lost for it.
    """
    if not run.results.is_file():
        return {}
    try:
        found = read_results(run.results)
        if not untouched(found):
            raise UserError(f"{run.results} was changed by hand.")
        with reading(run.results, "results of a run", ""):  # of an older version, without a checksum of itself
            with_earlier(found, found, [])
    except UserError as error:
        print(f"{error} It is written anew, without the rows that stood there.", file=sys.stderr)
        return {}
    for name in ("schema", "sha256"):  # of the file, which is written anew
        found.pop(name, None)
    return found if found["fingerprint"] == fingerprint else {}


def evaluation_differences(saved: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """In what the scores of two configurations differ, though they are of the same benchmark and model."""
    here, there = (
        {name: value for name, value in flatten(one.get("evaluation") or {}).items() if name not in NO_PART}
        for one in (config, saved)
    )
    return differences(there, here)


def check_not_scored_otherwise(earlier: Results, tasks: Iterable[str], differ: list[str], run: RunFolder) -> None:
    """Refuse to score a benchmark anew under other options: its rows would go.

    Args:
        earlier: What ``results.json`` holds.
        tasks: To be scored.
        differ: In what their options differ from the run's own.
        run: The run folder.
    """
    scored = {row["task"] for row in earlier.get("scores", [])}
    for task in tasks:
        before = (earlier.get("added") or {}).get(task, [])
        if task in scored and before != differ:
            what = "; ".join(differ) or "as the run's own options are"
            raise UserError(
                f"{task} is scored already in {run.results} with other options ({what}). Leave it out of --tasks, or "
                f"score it in another folder: test --config {run.config_file} --evaluation.adapter {run.student()} "
                "--run_dir NEW"
            )


def with_earlier(earlier: Results, new: Results, added: list[str] | None) -> Results:
    """The results of a command, with the rows that were there before and that it did not score, in the same order
    whether there were any.

    Args:
        earlier: What was there; empty where there was nothing.
        new: What the command found.
        added: What a command that adds benchmarks to a run scored them under, where that is not the run's own
            (`evaluation_differences`); None for every other command.
    """
    tasks = list(dict.fromkeys(row["task"] for row in [*earlier.get("scores", []), *new["scores"]]))

    def place(row: Mapping[str, Any]) -> tuple[int, int]:
        return tasks.index(row["task"]), ORDER.get(row["method"], 2)

    if not earlier:
        comparisons = _compared([], new["comparisons"], tasks)
        return {**new, "scores": sorted(new["scores"], key=place), "comparisons": comparisons}
    scored = {(row["task"], row["method"]) for row in new["scores"]}
    kept = {(row["task"], row["method"]) for row in earlier["scores"]} - scored
    whole = dict(new if added is None else earlier)
    scores = [row for row in earlier["scores"] if (row["task"], row["method"]) in kept]
    whole["scores"] = sorted([*scores, *new["scores"]], key=place)
    whole["comparisons"] = _compared(earlier["comparisons"], new["comparisons"], tasks)
    whole["not_run"] = [
        *_others(earlier, new, "not_run", lambda row: (row["task"], row.get("method")), _ran(scored)),
        *(row for row in new.get("not_run") or [] if not _ran(kept)(row)),
    ]
    whole["benchmarks"] = {
        **{name: facts for name, facts in (earlier.get("benchmarks") or {}).items() if _of(kept)(name)},
        **(new.get("benchmarks") or {}),
    }
    whole["health"] = _health(earlier, new, kept, added)
    for name, first, second in (("passes", "task", "method"), ("overlap", "set", "task")):
        there = _others(earlier, new, name, itemgetter(first, second))
        if rows := [*there, *(new.get(name) or [])]:
            whole[name] = rows
    old, now = earlier.get("moved") or {}, new.get("moved") or {}
    if old or now:
        answers = _others(old, now, "answers", lambda row: (row["task"], row["protocol"]))
        whole["moved"] = {**(now or old if added is None else old or now)}
        whole["moved"]["answers"] = [*answers, *(now.get("answers") or [])]
    before = dict(earlier.get("added") or {})
    own = {row["task"] for row in earlier["scores"]} - before.keys()
    if added is not None:
        before |= {task: added for task, _ in scored if task not in own}
        whole["stages"] = _stages(earlier["stages"], new["stages"], [task for task in tasks if task in before])
    else:
        whole["stages"] = [*new["stages"], *(row for row in earlier["stages"] if row["stage"].startswith(ADDED))]
    if before:
        whole["added"] = before
    return whole


def _stages(earlier: list[Any], new: list[Any], tasks: list[str]) -> list[Any]:
    rows = [{**row, "stage": f"{ADDED} {', '.join(tasks)}"} for row in new if not row["skipped"]]
    names = {row["stage"] for row in rows}
    return [*(row for row in earlier if row["stage"] not in names), *rows]


def _compared(earlier: list[Any], new: list[Any], tasks: list[str]) -> list[Any]:
    """All comparisons, corrected over the family that both tables make."""

    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return row["task"], row["protocol"], row["metric"], row["a"], row["b"]

    there = {key(row) for row in new}
    rows = [dict(row) for row in [*(r for r in earlier if key(r) not in there), *new]]
    rows.sort(key=lambda row: tasks.index(row["task"]) if row["task"] in tasks else len(tasks))
    family = [row for row in rows if row["p_holm"] is not None]
    for row, corrected in zip(family, holm([row["p_value"] for row in family])):
        row["p_holm"] = corrected
    return rows


def _others(
    earlier: Mapping[str, Any],
    new: Mapping[str, Any],
    name: str,
    key: Callable[[Any], Any],
    gone: Callable[[Any], bool] = lambda row: False,
) -> list[Any]:
    """Rows of a list that were there, whose key no new row has."""
    there = {key(row) for row in new.get(name) or []}
    return [row for row in earlier.get(name) or [] if key(row) not in there and not gone(row)]


def _ran(pairs: set[tuple[str, str]]) -> Callable[[Any], bool]:
    """Whether what a row of ``not_run`` names was scored: by one method, or by any where it names none."""
    return lambda row: any(task == row["task"] and row.get("method") in (None, method) for task, method in pairs)


def _of(pairs: set[tuple[str, str]]) -> Callable[[str], bool]:
    return lambda name: any(name == f"{task}.{method}" for task, method in pairs)


def _health(earlier: Results, new: Results, kept: set[tuple[str, str]], added: list[str] | None) -> list[Any]:
    rows = new.get("health") or []
    there = {row["stage"] for row in rows}
    old = [row for row in earlier.get("health") or [] if row["stage"] not in there]
    if added is None:
        old = [row for row in old if _of(kept)(row["stage"].removeprefix("evaluate "))]
        return [*rows, *old]
    return [*old, *rows]
