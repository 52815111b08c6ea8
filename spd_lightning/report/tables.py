"""Tables of one run, all of one row representation (`render.Table`), rendered as plain text, Markdown or HTML.

A value is marked as the best only where a paired test, corrected over the table, says so. The mark is no star: one run
has one student, and its difference is about that student, not the method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spd_lightning.evaluation.across import ONE_STUDENT
from spd_lightning.evaluation.power import smallest_difference
from spd_lightning.evaluation.statistics import ALPHA
from spd_lightning.report.render import Block, Table, text_table
from spd_lightning.report.runs import Run
from spd_lightning.report.wording import (
    benchmark_name,
    format_any,
    format_interval,
    format_p,
    format_value,
    method_order,
    metric_name,
)
from spd_lightning.scoring.verdicts import is_share

if TYPE_CHECKING:
    from spd_lightning.evaluation.contamination import Recall
    from spd_lightning.subspace.compare import SiteComparison

SHARES = {"weight", "stopped", "empty", "answered"}  # fractions of a task's row
MARK = "†"
SMALLEST = "smallest effect seen"  # the true difference that a comparison shows in 4 of 5 trials


def task_metric(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """What a row is of: task, protocol and metric."""
    return row["task"], row["protocol"], row["metric"]


def is_shown(comparison: Mapping[str, Any]) -> bool:
    """Whether the paired test that the interval belongs to, corrected over the table, says that two methods differ.

    Never for a metric that does not stand for its benchmark (``p_holm`` None). What is shown has 0 outside its
    interval, since no correction lowers a p-value.
    """
    return comparison["p_holm"] is not None and comparison["p_holm"] < ALPHA


def family(run: Run) -> int:
    """Number of comparisons that Holm's correction counts: those of the metrics that stand for their benchmarks."""
    return sum(c["p_holm"] is not None for c in run.comparisons)


def _best(run: Run, key: tuple[str, str, str], scores: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The method that beats every other one of a benchmark by a paired test; None where no such test says so."""
    if len(scores) < 2:
        return None
    pick = max if is_share(key[2]) else min
    best = pick(scores, key=lambda m: scores[m]["value"])
    shown = {frozenset((c["a"], c["b"])) for c in run.comparisons if task_metric(c) == key and is_shown(c)}
    return best if all(frozenset((best, other)) in shown for other in scores if other != best) else None


def score_table(run: Run) -> Table:
    """Method x benchmark: value and 95% interval, n, and what was not run."""
    methods = method_order(s["method"] for s in run.scores)
    rows: list[tuple[str, ...]] = []
    marked = set()
    for key in dict.fromkeys(task_metric(s) for s in run.scores):
        scores = {s["method"]: s for s in run.scores if task_metric(s) == key}
        first = next(iter(scores.values()))
        counts = dict.fromkeys(str(scores[m]["n"]) for m in methods if m in scores)
        cells = [
            f"{format_value(scores[m]['value'], key[2])} {format_interval(scores[m]['ci95'], key[2])}".strip()
            if m in scores
            else "-"
            for m in methods
        ]
        best = _best(run, key, scores)
        if best is not None:
            marked.add((len(rows), 4 + methods.index(best)))
        rows.append((benchmark_name(first), metric_name(key[2]), first["split"] or "-", "/".join(counts), *cells))
    better = f"{MARK} better than every other by a paired test (Holm-corrected p < 0.05): {ONE_STUDENT}."
    notes = [better] if marked else []
    for missing in run.results.get("not_run") or []:
        who = f" ({missing['method']})" if missing.get("method") else ""
        rows.append((f"{missing['task']}{who}", "not run", "-", "-", *("-" for _ in methods)))
        notes.append(f"{missing['task']}{who} was not run: {missing.get('reason', '')}")
    note = "\n".join(notes)
    return Table(
        ("benchmark", "metric", "split", "n", *methods),
        rows,
        frozenset(marked),
        frozenset({0, 1, 2}),
        note,
        MARK,
        "Scores by method",
    )


def render_table(run: Run) -> str:
    """The one table that a run prints in the terminal."""
    if not run.scores and not run.results.get("not_run"):
        return "No benchmark was scored."
    return text_table(score_table(run))


def comparison_table(run: Run) -> Table:
    """Paired comparisons: difference, its 95% interval, the p-values of the same procedure, test and n."""
    rows = []
    marked = set()
    for i, c in enumerate(run.comparisons):
        interval = format_interval(c["ci95"], c["metric"], sign=True)
        if is_shown(c):
            marked.add((i, 3))
        rows.append(
            (
                benchmark_name(c),
                metric_name(c["metric"]),
                f"{c['b']} - {c['a']}",
                format_value(c["delta"], c["metric"], sign=True),
                interval,
                format_p(c["p_value"]),
                format_p(c["p_holm"]),
                c["test"],
                str(c["n"]),
                format_value(smallest_difference(c, max(family(run), 1)), c["metric"]),
            )
        )
    header = ("benchmark", "metric", "methods", "difference", "95% interval", "p", "p (Holm)", "test", "n", SMALLEST)
    differ = f"{MARK} the paired test, corrected over this table, says that the two differ (p < 0.05): {ONE_STUDENT}."
    notes = [differ] if marked else []
    if family(run) < len(rows):
        notes.append("p (Holm) is given for the one metric that stands for its benchmark; the others claim nothing.")
    note = "\n".join(notes)
    return Table(header, rows, frozenset(marked), frozenset({0, 1, 2, 7}), note, MARK, "Paired comparisons")


def stage_table(run: Run) -> Table:
    """What each stage took: seconds, tokens, tokens per second, and whether its artifact was reused."""
    rows = []
    for stage in run.results["stages"]:
        seconds, tokens = stage["seconds"], stage["tokens"]
        speed = f"{tokens / seconds:,.0f}" if tokens and seconds and not stage["skipped"] else "-"
        rows.append(
            (
                stage["stage"],
                "-" if seconds is None else f"{seconds:,.1f}",
                "-" if tokens is None else f"{tokens:,}",
                speed,
                "reused" if stage["skipped"] else "computed",
            )
        )
    header = ("stage", "seconds", "tokens", "tokens/s", "artifact")
    return Table(header, rows, text_columns=frozenset({0, 4}), caption=f"Stages of {run.name}")


def fact_table(facts: Mapping[str, Any], caption: str = "") -> Table:
    """A mapping as two columns; nested mappings by dotted name."""
    rows: list[tuple[str, ...]] = []

    def visit(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, Mapping) and value:
                visit(value, f"{prefix}{key}.")
            else:
                rows.append((f"{prefix}{key}", format_any(value)))

    visit(facts, "")
    return Table(("", "value"), rows, text_columns=frozenset({0, 1}), caption=caption)


def record_table(records: Sequence[Mapping[str, Any]], caption: str = "") -> Table:
    """Records of equal meaning: one row each, one column per key."""
    names = list(dict.fromkeys(name for record in records for name in record))
    texts = {j for j, name in enumerate(names) if not all(isinstance(r.get(name), int | float) for r in records)}
    rows = [tuple(format_any(r.get(name)) for name in names) for r in records]
    return Table(tuple(names), rows, text_columns=frozenset(texts), caption=caption)


def task_tables(tasks: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> list[Block]:
    """A table with a row for each of several tasks; none for one.

    Args:
        tasks: What is known of each.
        columns: Field to heading; a fraction that is named in `SHARES` is shown in per cent.
    """
    rows = []
    for task, own in tasks.items():
        shown = {name: f"{100 * own[name]:.1f}%" if name in SHARES else own[name] for name in columns if name in own}
        rows.append({"task": task, **{columns[name]: value for name, value in shown.items()}})
    return [record_table(rows, "By task")] if rows else []


def subspace_table(run: Run) -> Table:
    """Rank and captured energy per site."""
    rows = [
        (
            f"layer {s.layer}, {s.side}",
            str(s.rank),
            str(len(s.values)),
            f"{100 * s.energy:.1f}",
            f"{100 * s.rank / len(s.values):.1f}",
        )
        for s in run.spectra
    ]
    return Table(("site", "rank", "kv_dim", "energy (%)", "rank / kv_dim (%)"), rows, caption="Rank and energy by site")


def group_table(found: Mapping[str, Mapping[str, Mapping[str, Any]]], kind: str) -> Table:
    """Scores by subject or category.

    Args:
        found: Method to group to ``value``, ``ci95`` and ``n``.
        kind: What a group is, ``subject`` or ``category``.
    """
    methods = method_order(found)
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
    return Table((kind, "n", *methods), rows, note=note, caption=f"Scores by {kind}")


def overlap_table(rows: Sequence[SiteComparison]) -> Table:
    """How far subspaces agree, one line a pair and site; ``random`` is what two random subspaces would show."""
    header = ("a", "b", "layer", "side", "rank", "mean cos²", "random", "smallest cos")
    return Table(
        (*header, "largest angle (deg)", "Grassmann (rad)"),
        [
            (
                row.a,
                row.b,
                str(row.layer),
                row.side,
                f"{row.rank_a if row.rank_a == row.rank_b else f'{row.rank_a}/{row.rank_b}'} of {row.kv_dim}",
                f"{row.mean_squared_cosine:.4f}",
                f"{row.random_expectation:.4f}",
                f"{row.smallest_cosine:.4f}",
                f"{math.degrees(row.angles[-1]):.2f}",
                f"{row.grassmann_distance:.3f}",
            )
            for row in rows
        ],
        text_columns=frozenset({0, 1, 3}),
    )


def contamination_table(rows: Sequence[tuple[str, int, int, int, Recall | None]]) -> Table:
    """Test sets by name: rows, those that share 13 words with a training text, those long enough to, and the recall."""
    lines = []
    for name, tests, shared, long_enough, known in rows:
        recalled = ("-", "-") if known is None else (f"{known.completed} of {known.questions}", f"{known.words:.1%}")
        lines.append((name, str(tests), f"{shared} of {long_enough}", *recalled))
    header = ("test set", "rows", "share 13 words", "completed from 60%", "words right")
    return Table(header, lines, text_columns=frozenset({0}))


def model_card_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    """Score rows of ``results.json`` as a model card shows them: plain numbers, a line each."""
    rows = []
    for row in scores:
        interval = "-" if row["ci95"] is None else "{:.4g} to {:.4g}".format(*row["ci95"])
        what = (row["method"], row["task"], row["split"] or "-", row["protocol"], row["metric"])
        rows.append((*what, f"{row['value']:.4g}", str(row["n"]), interval))
    header = ("model", "task", "split", "protocol", "metric", "value", "n", "95% interval")
    return Table(header, rows, text_columns=frozenset({0, 1, 2, 3, 4, 7}))
