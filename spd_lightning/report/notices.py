"""What stands beside an answer before anyone believes it: what did not finish, failed, differs, or is out of order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spd_lightning.report.runs import Run
from spd_lightning.report.sections import health_lines
from spd_lightning.report.sweeps import combine_seeds, varying_options

MOST_LINES = 12


def notices(
    runs: Sequence[Run], rows: Sequence[Mapping[str, Any]] = (), unfinished: Mapping[str, str] | None = None
) -> list[str]:
    """One line each, what weighs most first.

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
    more = len(lines) - MOST_LINES
    return lines if more <= 0 else [*lines[:MOST_LINES], f"And {more} more, under Runs and in results.json."]


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
    unshared = {row["task"]: row["unshared"] for row in rows if row["unshared"]}
    for task, count in unshared.items():
        lines.append(f"{count:,} answers to {task} have no counterpart in the other runs and are not compared.")
    versions = [name.removeprefix("versions.") for name in varying_options(runs) if name.startswith("versions.")]
    if versions:
        lines.append(f"Runs were made with different versions: {', '.join(versions)}.")
    content = [name.removeprefix("content.") for name in varying_options(runs) if name.startswith("content.")]
    if content:
        lines.append(f"Runs had different data under one name or another: {', '.join(content)}.")
    return lines


def _gathered(found: Sequence[tuple[str, str]], runs: int) -> list[str]:
    """Lines of runs, each text once, with the runs that it is of where there are several."""
    names: dict[str, list[str]] = {}
    for name, text in found:
        names.setdefault(text, []).append(name)
    if runs == 1:
        return list(names)
    shown = {t: ", ".join(dict.fromkeys(w)) if len(w) <= 3 else f"{len(w)} of {runs} runs" for t, w in names.items()}
    return [f"{who}: {text}" for text, who in shown.items()]
