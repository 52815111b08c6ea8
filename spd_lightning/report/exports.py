"""The numbers of a report for elsewhere: CSV with all digits, LaTeX as they are shown, and a line to paste."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from spd_lightning.report.across import trained_arms
from spd_lightning.report.render import Section, Table, clean
from spd_lightning.report.runs import Run
from spd_lightning.report.tables import task_metric
from spd_lightning.report.verdict import SPLITS, against_base, arms_against_base, interval_of, model_of, splits_of
from spd_lightning.report.wording import benchmark_name, format_interval, format_value

CSV_TABLES = ("scores", "comparisons", "stages", "combined", "across")
"""Lists of rows in ``results.json``."""

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    c: f"\\{c}" for c in "&%$#_{}"
}


def csv_tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Name of a table to its rows as CSV, every digit kept; intervals are two columns, what is no number is JSON's."""
    tables = {}
    for name in CSV_TABLES:
        rows = [_flat(row) for row in results.get(name) or ()]
        if rows:
            columns = list(dict.fromkeys(column for row in rows for column in row))
            buffer = io.StringIO()
            writer = csv.DictWriter(buffer, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            tables[name] = buffer.getvalue()
    return tables


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without lists: both ends of an interval, names with a space between."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "ci95":
            flat["ci95_low"], flat["ci95_high"] = value or (None, None)
        elif isinstance(value, Mapping):
            flat |= {f"{name}_{key}": inner for key, inner in _flat(value).items()}
        elif isinstance(value, list | tuple):
            flat[name] = " ".join(map(str, value))
        else:
            flat[name] = clean(value) if isinstance(value, str) else value
    return flat


def latex_tables(sections: Sequence[Section]) -> str:
    """Every table with a caption as LaTeX, for the package booktabs."""
    tables = [block for section in sections for block in section.blocks if isinstance(block, Table) and block.caption]
    head = "% Tables of a report. In the preamble: \\usepackage{booktabs}\n"
    return head + "\n".join(map(latex_table, tables))


def latex_table(table: Table) -> str:
    """One table; marked cells are bold and carry the mark, and what that means is below."""
    sides = "".join("l" if j in table.text_columns else "r" for j in range(len(table.header)))
    lines = [_row([latex(name) for name in table.header])]
    body = [
        _row(
            [f"\\textbf{{{latex(c + table.mark)}}}" if (i, j) in table.marked else latex(c) for j, c in enumerate(row)]
        )
        for i, row in enumerate(table.rows)
    ]
    note = [f"\\par\\footnotesize {latex(table.note)}"] if table.note else []
    return "\n".join(
        [
            "\\begin{table}",
            f"\\caption{{{latex(table.caption)}}}",
            f"\\begin{{tabular}}{{{sides}}}",
            "\\toprule",
            *lines,
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            *note,
            "\\end{table}\n",
        ]
    )


def _row(cells: Sequence[str]) -> str:
    first = cells[0].replace("[", "{[}", 1) if cells[0].startswith("[") else cells[0]  # else it ends the row before
    return " & ".join([first, *cells[1:]]) + " \\\\"


def latex(text: str) -> str:
    """Text in which nothing acts as a command."""
    shown = clean(text).replace("\n", " ")
    return "".join(LATEX.get(c, c) for c in shown).replace("†", r"\textdagger{}").replace("±", r"$\pm$")


def one_line(runs: Sequence[Run], across: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table to paste, one line for each arm: base, student and difference on each benchmark.

    Args:
        runs: The runs of a report.
        across: `across.across_rows` of them; unused for one run.
    """
    if len(runs) == 1:
        of_run = splits_of(runs)
        found = [{**row, "b": "", "split": of_run.get(task_metric(row))} for row in against_base(runs[0])]
        arms = {"": list(runs)}
    else:
        found, arms = arms_against_base(runs, across), trained_arms(runs)
    splits: dict[Any, set[str | None]] = {}
    for row in found:
        splits.setdefault(task_metric(row), set()).add(row["split"])
    keys = list(dict.fromkeys(map(task_metric, found)))
    if not keys:
        return ""
    lines = []
    for name, members in arms.items():
        of = {task_metric(row): row for row in found if row["b"] == name}
        if not of:  # the base alone
            continue
        seeds = str(len({run.seed for run in members}))
        cells = [_cell(members, of[key]) if key in of else "-" for key in keys]
        lines.append([model_of(members[0]), name or str(members[0].results["method"]), seeds, *cells])
    names = [
        f"{benchmark_name({'task': key[0], 'protocol': key[1]})} "
        f"({', '.join(split or '-' for split in SPLITS if split in splits[key])})"
        for key in keys
    ]
    header = ["model", "trained by", "seeds", *names]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *lines])


def _cell(runs: Sequence[Run], row: Mapping[str, Any]) -> str:
    """``34.0 to 30.0: -4.0 [-12.5, +3.6], n=100`` of one run; of several the difference."""
    metric, interval = row["metric"], interval_of(row) if "students" in row else row["ci95"]
    change = f"{format_value(row['delta'], metric, sign=True)} {format_interval(interval, metric, sign=True)}".strip()
    if len(runs) > 1 or "students" in row:
        return f"{change}, n={row['n']}"
    own = [s for s in runs[0].scores if task_metric(s) == task_metric(row) and s["n"] == row["n"]]
    values = {s["method"]: s["value"] for s in own}
    if not {"base", str(runs[0].results["method"])} <= set(values):  # of more examples than both answered
        return f"{change}, n={row['n']}"
    before, after = (format_value(values[m], metric) for m in ("base", str(runs[0].results["method"])))
    return f"{before} to {after}: {change}, n={row['n']}"
