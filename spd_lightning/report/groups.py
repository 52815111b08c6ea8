"""Scores by subject and by category (MMLU, BBH): one table each, a column per method."""

from __future__ import annotations

from typing import Any

from spd_lightning.report.render import Heading, Table
from spd_lightning.report.runs import Run
from spd_lightning.report.tables import METHODS, format_interval, format_value

KINDS = {"by_category": "category", "by_subject": "subject"}


def group_blocks(run: Run) -> list[Heading | Table]:
    """For every benchmark whose examples have a subject: its scores by category and by subject, each with n."""
    by_task: dict[str, dict[str, dict[str, Any]]] = {}
    for name, facts in (run.results.get("benchmarks") or {}).items():
        task, method = name.rsplit(".", 1)
        by_task.setdefault(task, {})[method] = facts
    blocks: list[Heading | Table] = []
    for task, facts in by_task.items():
        for key, kind in KINDS.items():
            found = {method: groups for method, f in facts.items() if (groups := f.get(key))}
            if found:
                blocks += [Heading(f"{task} by {kind}", 3), _group_table(found, kind)]
    return blocks


def _group_table(found: dict[str, dict[str, dict[str, Any]]], kind: str) -> Table:
    methods = sorted(found, key=lambda m: METHODS.index(m) if m in METHODS else len(METHODS))
    names = sorted({name for groups in found.values() for name in groups})
    rows = []
    for name in names:
        cells = {m: found[m][name] for m in methods if name in found[m]}
        counts = dict.fromkeys(str(cell["n"]) for cell in cells.values())
        shown = (
            f"{format_value(c['value'], 'acc')} {format_interval(c['ci95'], 'acc')}" if (c := cells.get(m)) else "-"
            for m in methods
        )
        rows.append((name.replace("_", " "), "/".join(counts), *shown))
    note = "Per cent, with a 95% interval. Single rows are no findings: no test is made or corrected over them."
    return Table((kind, "n", *methods), rows, note=note)
