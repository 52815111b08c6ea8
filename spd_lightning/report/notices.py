"""What stands beside an answer before anyone believes it: what did not finish, failed, differs, or is out of order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from spd_lightning.errors import counted
from spd_lightning.report.across import MOST_ARMS, trained_arms
from spd_lightning.report.runs import Run
from spd_lightning.report.sections import health_lines
from spd_lightning.report.sweeps import combine_seeds, varying_options

MOST_LINES = 12
THE_REST = "What else is out of order"
"""The section that has what the first screen has no room for."""


def notices(
    runs: Sequence[Run], rows: Sequence[Mapping[str, Any]] = (), unfinished: Mapping[str, str] | None = None
) -> list[str]:
    """One line each, what weighs most first; all of them. See `first_lines`.

    Args:
        runs: The runs of a report.
        rows: `across.across_rows` of them.
        unfinished: Name of a run that is not among them to the reason.
    """
    lines = [f"{name} is not in this report: {reason}" for name, reason in (unfinished or {}).items()]
    lines += _gathered([(run.name, text) for run in runs for text in _of_run(run)], len(runs))
    if len(runs) > 1:
        lines += _between(runs, rows)
    lines += _gathered([(run.name, text) for run in runs for text in health_lines(run)], len(runs))
    return lines


def first_lines(lines: Sequence[str]) -> list[str]:
    """So many as the first screen has, and how many more there are."""
    more = len(lines) - MOST_LINES
    return list(lines) if more <= 0 else [*lines[:MOST_LINES], f"And {more} more: see {THE_REST}."]


def _of_run(run: Run) -> list[str]:
    """What limits the numbers of one run."""
    lines = [run.half_done] if run.half_done else []
    if run.results["schema"] == 1:
        lines.append(
            "An earlier version scored this run (schema 1): intervals and p-values come from different procedures and "
            "may contradict each other. Score it again with test."
        )
    for missing in run.results.get("not_run") or []:
        who = f" ({missing['method']})" if missing.get("method") else ""
        lines.append(f"{missing['task']}{who} was not run: {missing.get('reason', '')}")
    return lines


def _between(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What keeps runs from being compared as they stand."""
    lines = []
    other = sorted({row["task"] for row in combine_seeds(runs) if "(examples " in row["configuration"]})
    if other:
        lines.append(f"Runs answered different examples of {', '.join(other)}: their scores are not averaged.")
    unshared: dict[str, set[int]] = {}
    for row in rows:
        unshared.setdefault(row["task"], set()).add(row["unshared"])
    for task, counts in unshared.items():
        if most := max(counts):
            many = f"{'Up to ' if len(counts) > 1 else ''}{counted(most, 'answer')} to {task}"
            has, are = ("has", "is") if most == 1 else ("have", "are")
            lines.append(
                f"{many} {has} no counterpart in the arm that theirs is compared with, and {are} left out there."
            )
    for task, pairs in without_common(runs, rows).items():
        if len(pairs) > 1:
            lines.append(f"{len(pairs)} pairs of arms have no example of {task} in common and are not compared.")
        else:
            lines += [f"{a} and {b} have no example of {task} in common and are not compared." for a, b in pairs]
    for name, members in trained_arms(runs).items():
        seeds = [run.seed for run in members]
        again = [run.name for i, run in enumerate(members) if run.seed in seeds[:i]]
        if again:
            lines.append(
                f"{', '.join(again)}: another run of {name} has the seed; comparisons across runs take the first."
            )
    versions = [name.removeprefix("versions.") for name in varying_options(runs) if name.startswith("versions.")]
    if versions:
        lines.append(f"Runs were made with different versions: {', '.join(versions)}.")
    content = [name.removeprefix("content.") for name in varying_options(runs) if name.startswith("content.")]
    if content:
        lines.append(f"Runs had different data under one name or another: {', '.join(content)}.")
    return lines


def without_common(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """Benchmark to the pairs of trained arms that answered it and have no example in common, so no row.

    Args:
        runs: The runs.
        rows: `across.across_rows` of them.
    """
    arms, found = trained_arms(runs), dict[str, list[tuple[str, str]]]()
    for task in dict.fromkeys(task for run in runs for task, _ in run.sample_files):
        here = [frozenset((row["a"], row["b"])) for row in rows if row["task"] == task]
        students = [
            name
            for name, members in arms.items()
            if any((m := r.results["method"]) != "base" and (task, m) in r.sample_files for r in members)
        ]
        if len({*students, *(name for pair in here for name in pair)}) <= MOST_ARMS:
            pairs = [pair for pair in combinations(students, 2) if frozenset(pair) not in here]
            found |= {task: pairs} if pairs else {}
    return found


def _gathered(found: Sequence[tuple[str, str]], runs: int) -> list[str]:
    """Lines of runs, each text once, with the runs that it is of where there are several."""
    names: dict[str, list[str]] = {}
    for name, text in found:
        names.setdefault(text, []).append(name)
    if runs == 1:
        return list(names)
    shown = {t: ", ".join(dict.fromkeys(w)) if len(w) <= 3 else f"{len(w)} of {runs} runs" for t, w in names.items()}
    return [f"{who}: {text}" for text, who in shown.items()]
