"""Tables of a report: one row representation, rendered as plain text, Markdown or HTML.

Shares are printed in per cent with one decimal, negative log-likelihoods in nats with three. A value is marked as the
best only where a paired test, corrected over the table, says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spd_lightning.evaluation.statistics import ALPHA
from spd_lightning.report.render import Table, text_table
from spd_lightning.report.runs import Run, combine_seeds, is_share, varying_options

METHODS = ("base", "projected", "psr", "ssd", "spd", "filtered")


def format_value(value: float | None, metric: str, sign: bool = False) -> str:
    """A score: per cent with one decimal for shares, nats with three otherwise."""
    if value is None:
        return "-"
    return f"{100 * value:{'+' if sign else ''}.1f}" if is_share(metric) else f"{value:{'+' if sign else ''}.3f}"


def format_interval(interval: Sequence[float] | None, metric: str, sign: bool = False) -> str:
    """``[low, high]`` in the unit of the metric; empty without an interval."""
    return "" if interval is None else "[" + ", ".join(format_value(v, metric, sign) for v in interval) + "]"


def format_p(p: float | None) -> str:
    """A p-value with three decimals, or ``<0.001``."""
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def format_any(value: Any) -> str:
    """Whatever a fact holds, in one line: large counts grouped, floats with four digits."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(format_any(v) for v in value[:8])
        return shown + (f", ... ({len(value)} in all)" if len(value) > 8 else "")
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {format_any(v)}" for k, v in value.items())
    return str(value)


def benchmark_name(row: Mapping[str, Any]) -> str:
    """Task of a row, with its protocol unless that is the standard one."""
    protocol = row["protocol"]
    return (
        row["task"] if protocol == "standard" or row["task"].endswith(f":{protocol}") else f"{row['task']} ({protocol})"
    )


def metric_name(metric: str) -> str:
    """Metric with its unit and, where lower is better, a word on that."""
    return f"{metric} (%)" if is_share(metric) else f"{metric} (nats, lower is better)"


def method_order(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Methods of score rows: base, projected, then what was trained."""
    found = {row["method"] for row in rows}
    return [m for m in METHODS if m in found] + sorted(found - set(METHODS))


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
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
    shown = {frozenset((c["a"], c["b"])) for c in run.comparisons if _key(c) == key and is_shown(c)}
    return best if all(frozenset((best, other)) in shown for other in scores if other != best) else None


def score_table(run: Run) -> Table:
    """Method x benchmark: value and 95% interval, n, and what was not run."""
    methods = method_order(run.scores)
    rows: list[tuple[str, ...]] = []
    marked = set()
    for key in dict.fromkeys(_key(s) for s in run.scores):
        scores = {s["method"]: s for s in run.scores if _key(s) == key}
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
    notes = ["* better than every other method by a paired test (Holm-corrected p < 0.05)."] if marked else []
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
            )
        )
    header = ("benchmark", "metric", "methods", "difference", "95% interval", "p", "p (Holm)", "test", "n")
    notes = ["* the paired test, corrected over this table, says that the two differ (p < 0.05)."] if marked else []
    if family(run) < len(rows):
        notes.append("p (Holm) is given for the one metric that stands for its benchmark; the others claim nothing.")
    note = "\n".join(notes)
    return Table(header, rows, frozenset(marked), frozenset({0, 1, 2, 7}), note)


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
    return Table(("stage", "seconds", "tokens", "tokens/s", "artifact"), rows, text_columns=frozenset({0, 4}))


CORPUS_SHARES = {
    "answered": "with an answer (or a program that parses)",
    "distinct_1": "distinct tokens",
    "distinct_2": "distinct pairs of tokens",
}
CORPUS_COUNTED = {"n", "tokens_mean", "tokens_median", "tokens_max", "tokens_total", "stopped", "empty"}  # counted here


def corpus_statistics(run: Run) -> dict[str, Any]:
    """Counts of the generated corpus, and what the generation stage recorded beside them."""
    records = run.completions
    recorded = run.results.get("corpus")
    facts: dict[str, Any] = {}
    if records:
        lengths = sorted(r["num_tokens"] for r in records)
        count = len(records)
        facts = {
            "completions": count,
            "tokens": sum(lengths),
            "mean length (tokens)": sum(lengths) / count,
            "median length (tokens)": (lengths[(count - 1) // 2] + lengths[count // 2]) / 2,
            "longest (tokens)": lengths[-1],
            "stopped by itself": f"{100 * sum(r['finish_reason'] == 'stop' for r in records) / count:.1f}%",
            "empty": sum(not r["completion"].strip() for r in records),
            "distinct completions": f"{100 * len({r['completion'] for r in records}) / count:.1f}%",
        }
    for name, value in (recorded if isinstance(recorded, Mapping) else {}).items():
        if name == "torn_lines":
            facts["torn lines dropped on resume"] = value
        elif name == "filtered":
            facts["kept because the gold answer agrees (an external signal)"] = f"{value['kept']} of {value['of']}"
        elif name == "texts":
            facts["texts to train on"] = value["texts"]
        elif name in CORPUS_SHARES:
            facts[CORPUS_SHARES[name]] = f"{100 * value:.1f}%"
        elif not (records and name in CORPUS_COUNTED):
            facts[name] = value
    return facts


def fact_table(facts: Mapping[str, Any]) -> Table:
    """A mapping as two columns; nested mappings by dotted name."""
    rows: list[tuple[str, ...]] = []

    def visit(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, Mapping) and value:
                visit(value, f"{prefix}{key}.")
            else:
                rows.append((f"{prefix}{key}", format_any(value)))

    visit(facts, "")
    return Table(("", "value"), rows, text_columns=frozenset({0, 1}))


def record_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Records of equal meaning: one row each, one column per key."""
    names = list(dict.fromkeys(name for record in records for name in record))
    texts = {j for j, name in enumerate(names) if not all(isinstance(r.get(name), int | float) for r in records)}
    rows = [tuple(format_any(r.get(name)) for name in names) for r in records]
    return Table(tuple(names), rows, text_columns=frozenset(texts))


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
    return Table(("site", "rank", "kv_dim", "energy (%)", "rank / kv_dim (%)"), rows)


def seeds_table(runs: Sequence[Run]) -> Table:
    """Mean +- standard deviation and interval over seeds, one row per configuration, method and benchmark; no stars."""
    rows = []
    for row in combine_seeds(runs):
        spread = "" if row["std"] is None else f" ± {format_value(row['std'], row['metric'])}"
        rows.append(
            (
                row["configuration"],
                row["method"],
                benchmark_name(row),
                metric_name(row["metric"]),
                format_value(row["mean"], row["metric"]) + spread,
                format_interval(row["ci95"], row["metric"]) or "-",
                str(len(row["seeds"])),
                str(row["n"]),
            )
        )
    note = (
        "± is the standard deviation over seeds (divisor: seeds - 1); one seed has none. The interval is Student's t "
        "for the mean over seeds on these examples; fewer than three seeds, or equal scores, give none. Nothing is "
        "starred: examples answered under several seeds are not that many examples."
    )
    return Table(
        ("configuration", "method", "benchmark", "metric", "mean", "95% interval", "seeds", "n"),
        rows,
        text_columns=frozenset({0, 1, 2, 3}),
        note=note,
    )


@dataclass(frozen=True)
class Grid:
    """A score over two options: ``values[i][j]`` for row i and column j, shares as fractions, None where no run is."""

    title: str
    metric: str
    row_option: str
    column_option: str
    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]


def _order(values: set[Any]) -> list[Any]:
    """Numbers by size, then everything else by its text."""
    is_number = {v: isinstance(v, int | float) and not isinstance(v, bool) for v in values}
    return sorted(values, key=lambda v: (not is_number[v], v if is_number[v] else math.inf, str(v)))


def sweep_grid(
    runs: Sequence[Run], row_option: str = "subspace.rank", column_option: str = "subspace.layers"
) -> Grid | None:
    """The trained method's in-domain score over rank and layers, averaged over runs of a cell.

    None where the runs differ in neither option.
    """
    if not {row_option, column_option} & set(varying_options(runs)):
        return None
    target = None
    for run in runs:
        trained = [s for s in run.scores if s["method"] == run.results["method"]] or run.scores
        target = next((_key(s) for s in trained if s["split"] == "in"), _key(trained[0]) if trained else None)
        if target is not None:
            break
    if target is None:
        return None

    def place(run: Run, option: str) -> Any:
        value = run.option(option)
        return value if isinstance(value, int | float | str) else str(value)

    cells: dict[tuple[Any, Any], list[float]] = {}
    for run in runs:
        for s in run.scores:
            if _key(s) == target and s["method"] == run.results["method"]:
                cells.setdefault((place(run, row_option), place(run, column_option)), []).append(s["value"])
    rows, columns = _order({k[0] for k in cells}), _order({k[1] for k in cells})
    values = [[sum(v) / len(v) if (v := cells.get((r, c))) else None for c in columns] for r in rows]
    title = f"{target[0]}, {metric_name(target[2])}"
    return Grid(title, target[2], row_option, column_option, [str(r) for r in rows], [str(c) for c in columns], values)


def grid_table(grid: Grid) -> Table:
    """The sweep summary as a table."""
    corner = f"{grid.row_option} \\ {grid.column_option}"
    rows = [(name, *(format_value(v, grid.metric) for v in values)) for name, values in zip(grid.rows, grid.values)]
    return Table((corner, *grid.columns), rows, note=grid.title)
