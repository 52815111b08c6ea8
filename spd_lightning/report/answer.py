"""The first screen of a report: its question, the answer in words, what is out of order, three figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spd_lightning.errors import counted
from spd_lightning.report import figures
from spd_lightning.report.across import trained_arms
from spd_lightning.report.chart import Bar, Bars, Intervals, Row
from spd_lightning.report.notices import first_lines, notices
from spd_lightning.report.render import Block, Bullets, Figure, Heading
from spd_lightning.report.runs import Run
from spd_lightning.report.tables import is_shown, task_metric
from spd_lightning.report.verdict import (
    against_base,
    arms_against_base,
    interval_of,
    question,
    sentence_of_run,
    sentence_of_runs,
    splits_of,
)
from spd_lightning.report.wording import benchmark_name
from spd_lightning.scoring.verdicts import is_share

MOST_ROWS = 6
"""So many rows the figures of the first screen have where there are several arms, which a phone holds: more than these
are cut to the best arms on the first benchmark. The tables have all."""


@dataclass(frozen=True)
class Answer:
    """The first screen.

    Attributes:
        question: The title.
        verdict: One sentence.
        beside: Smaller sentences: what was run.
        notices: What is out of order, all of it.
        figures: Differences, changed answers, time.
    """

    question: str
    verdict: str
    beside: list[str]
    notices: list[str]
    figures: list[Figure]

    @property
    def first_notices(self) -> list[str]:
        """Those that the first screen has room for."""
        return first_lines(self.notices)

    def blocks(self) -> list[Block]:
        """The same for Markdown, without the title."""
        order: list[Block] = [Heading("What is out of order"), Bullets(self.first_notices)] if self.notices else []
        return [self.verdict, *self.beside, *order, *self.figures]


def answer_of_run(run: Run, unfinished: Mapping[str, str] | None = None) -> Answer:
    """The first screen of one run.

    Args:
        run: The run.
        unfinished: Name of a run that belongs to it, and is not there, to the reason.
    """
    found, splits = against_base(run), splits_of([run])
    rows = [
        Row(
            f"{benchmark_name(c)}, n={c['n']}",
            (figures.point(c["delta"], c["ci95"], c["metric"], strong=is_shown(c), sign=True),),
            figures.GROUPS[splits.get(task_metric(c))],
        )
        for c in found
        if is_share(c["metric"])
    ]
    caption = f"{run.results['method']} less base, 95% intervals; filled: shown after correction."
    if rows and len(rows) < len(found):
        caption += f" {len(rows)} of {len(found)} comparisons, the rest under Comparisons."
    charts = [_forest(rows, caption), _flows((run.results.get("moved") or {}).get("answers") or []), _time([run])]
    facts = [f"seed {run.seed}"] if run.seed is not None else []
    facts += [f"run {run.name}", f"fingerprint {run.results['fingerprint']}"]
    return Answer(
        question([run]),
        sentence_of_run(run),
        [", ".join(facts)],
        notices([run], unfinished=unfinished),
        [c for c in charts if c],
    )


def answer_of_runs(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]], unfinished: Mapping[str, str]) -> Answer:
    """The first screen of several runs.

    Args:
        runs: The runs.
        rows: `across.across_rows` of them.
        unfinished: Name of a run that is not among them to the reason.
    """
    found, arms = arms_against_base(runs, rows), trained_arms(runs)
    shown = [row for row in found if is_share(row["metric"])]
    main = [row for row in shown if task_metric(row) == task_metric(shown[0])]
    students = {row["b"]: arms[row["b"]] for row in shown}
    if len(students) > 1 and len(shown) > MOST_ROWS:
        shown = main = sorted(main, key=lambda row: -row["delta"])[:MOST_ROWS]
        students = {row["b"]: arms[row["b"]] for row in main}
    tasks = list(dict.fromkeys(benchmark_name(row) for row in shown))
    several = len({row["blocks"] for row in shown}) > 1

    def seeds_of(row: Mapping[str, Any]) -> str:
        return f", {counted(row['blocks'], 'seed')}" if several else ""

    lines = [
        Row(
            f"{_label(row, arms, len(tasks) > 1)}, n={row['n']}{seeds_of(row)}",
            (
                figures.point(
                    row["delta"],
                    interval_of(row),
                    row["metric"],
                    strong=row["word"] in ("higher", "lower"),
                    sign=True,
                ),
            ),
            figures.GROUPS[row["split"]],
        )
        for row in shown
    ]
    caption = "Student less base, 95% intervals; filled: shown after correction."
    if len(found) > len(lines):
        caption += f" {len(lines)} of {len(found)} comparisons, the rest under Comparisons across runs."
    about = dict.fromkeys(row["task"] for row in (shown if len(students) == 1 else main[:1]))
    on = f" on {next(iter(about))}" if len(students) > 1 and about else ""
    flows = _flows([row for task in about for row in _summed(students, task)], on)
    seeds = len({run.seed for run in runs})
    facts = f"{counted(len(runs), 'run')}: {counted(len(arms), 'arm')}, {counted(seeds, 'seed')}"
    charts = [
        _forest(lines, caption, f" on {tasks[0]}" if len(arms) > 1 and len(tasks) == 1 else ""),
        flows,
        _time(runs),
    ]
    verdict = sentence_of_runs(runs, rows)
    return Answer(question(runs), verdict, [facts], notices(runs, rows, unfinished), [c for c in charts if c])


def _label(row: Mapping[str, Any], arms: Mapping[str, Sequence[Run]], tasks: bool) -> str:
    """What tells a row of the forest from the others: its arm, without a method that all have, and its benchmark."""
    name, method = row["b"], arms[row["b"]][0].results["method"]
    if len({runs[0].results["method"] for runs in arms.values()}) == 1 and name.startswith(f"{method} ("):
        name = name.removeprefix(f"{method} (").removesuffix(")")
    if len(arms) == 1:
        return benchmark_name(row)
    return f"{name}, {benchmark_name(row)}" if tasks else name


def _forest(rows: Sequence[Row], caption: str, on: str = "") -> Figure | None:
    chart = Intervals(f"What changed against the base{on}", "difference (points)", rows, zero=True)
    return Figure(chart, "differences", caption) if rows else None


def _flows(answers: Sequence[Mapping[str, Any]], on: str = "") -> Figure | None:
    """Right to wrong and wrong to right, without the parts of the difference."""
    chart = figures.moved(answers)
    if chart is None:
        return None
    rows = [Bar(row.label, row.parts, row.text) for row in chart.rows]
    plain = Bars(f"Answers that flipped{on}", "per cent of the answers", rows, chart.series)
    return Figure(plain, "flips", "Wrong to right on the one side, right to wrong on the other.")


def _summed(arms: Mapping[str, Sequence[Run]], task: str) -> list[dict[str, Any]]:
    """Changed answers of one benchmark, a row for each arm, its seeds together."""
    rows = []
    for name, runs in arms.items():
        answers = [a for run in runs for a in (run.results.get("moved") or {}).get("answers") or ()]
        found = [a for a in answers if a["task"] == task and a["right_to_wrong"] is not None]
        if found:
            sums = {k: sum(a[k] for a in found) for k in ("n", "right_to_wrong", "wrong_to_right")}
            label = task if len(arms) == 1 else name
            rows.append({**sums, "task": label, "from_parsing": 0.0, "from_accuracy": 0.0})
    return rows


def _time(runs: Sequence[Run]) -> Figure | None:
    chart = figures.time([row for run in runs for row in run.results["stages"]], len(runs))
    return None if chart is None else Figure(chart, "time", "Wall clock by stage.")
