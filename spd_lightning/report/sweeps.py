"""Runs that differ: in which options, which in the seed alone, means over seeds, and a score over two options."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spd_lightning.evaluation.statistics import over_seeds
from spd_lightning.report.render import Table
from spd_lightning.report.runs import Run
from spd_lightning.report.tables import task_metric
from spd_lightning.report.wording import benchmark_name, format_interval, format_value, metric_name
from spd_lightning.scoring.verdicts import is_share
from spd_lightning.tasks import is_generated

ROW, COLUMN = "subspace.rank", "subspace.layers"  # options of a grid's rows and columns

LONGEST_LABEL = 80  # characters; the table of runs has every option in which runs differ


def group_by_configuration(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs that differ in nothing but the seed, together; in the order given."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(
            [run.conditions, run.results["trained_on"], run.results["method"]], sort_keys=True, default=str
        )
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def varying_options(runs: Sequence[Run]) -> list[str]:
    """Dotted names of the options, contents and versions in which runs differ, seeds and places aside."""
    flats = [run.conditions for run in runs]
    names = sorted({name for flat in flats for name in flat})
    return [name for name in names if len({json.dumps(flat.get(name), default=str) for flat in flats}) > 1]


def label(run: Run, names: Sequence[str]) -> str:
    """A short name: the values of the options in which runs differ, else the method; the run's own where that is long.

    An option stands by its last name where no other of ``names`` has that. Contents and versions that a run has none
    of (a base alone has no corpus) are left out.
    """
    names = [n for n in names if n in run.conditions or not n.startswith(("content.", "versions."))]
    last = [name.rsplit(".", 1)[-1] for name in names]
    shown = [short if last.count(short) == 1 else name for short, name in zip(last, names)]
    text = ", ".join(f"{word}={run.option(name)}" for word, name in zip(shown, names))
    return run.name if len(text) > LONGEST_LABEL else text or str(run.results["method"] or run.name)


def told_apart(names: Sequence[str], groups: Sequence[Sequence[Run]]) -> list[str]:
    """Names of groups of runs, none twice: equal ones with the folder that their runs stand in, or else a number."""
    found = [
        f"{name} in {group[0].path.resolve().parent.name}" if names.count(name) > 1 else name
        for name, group in zip(names, groups)
    ]
    return [f"{name}, {i + 1}" if found.count(name) > 1 else name for i, name in enumerate(found)]


def combine_seeds(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Mean, standard deviation and interval over seeds: a row per configuration, method, task, protocol and metric.

    ``std`` is the sample standard deviation (divisor: seeds - 1), None for a single seed. It is the spread of whole
    runs, which an interval computed from the examples of one run does not contain. ``ci95`` is Student's t interval of
    the mean over seeds, from three seeds on; the examples are taken as they are, never pooled over seeds. Runs of one
    seed count once, as their mean.
    """
    names = varying_options(runs)
    rows, groups = [], group_by_configuration(runs)
    for words, group in zip(told_apart([label(group[0], names) for group in groups], groups), groups):
        cells: dict[tuple[Any, ...], list[tuple[dict[str, Any], Run]]] = {}
        for run in group:
            for score in run.scores:
                key = tuple(score[k] for k in ("method", "task", "split", "protocol", "metric"))
                cells.setdefault((*key, _examples(run, score)), []).append((score, run))
        several = {key[:-1] for key in cells if sum(other[:-1] == key[:-1] for other in cells) > 1}
        for (method, task, split, protocol, metric, examples), found in cells.items():
            other_data = (method, task, split, protocol, metric) in several
            of_seed: dict[Any, list[float]] = {}  # a run repeated with the same seed is no further seed
            for score, run in found:
                of_seed.setdefault(run.seed, []).append(score["value"])
            mean, std, ci95 = over_seeds(
                [sum(values) / len(values) for values in of_seed.values()], (0.0, 1.0) if is_share(metric) else None
            )
            rows.append(
                {
                    "configuration": words + (f" (examples {str(examples)[:8]})" if other_data else ""),
                    "method": method,
                    "task": task,
                    "split": split,
                    "protocol": protocol,
                    "metric": metric,
                    "mean": mean,
                    "std": std,
                    "ci95": None if ci95 is None else list(ci95),
                    "seeds": list(of_seed),
                    "n": found[0][0]["n"],
                    "runs": [run.name for _, run in found],
                }
            )
    return rows


def _examples(run: Run, score: Mapping[str, Any]) -> str | None:
    """Content of the examples that a score is of; None for a run that does not say. Of rows that the seed draws their
    number alone: other seeds have others, as they should."""
    if is_generated(score["task"]):
        return f"n={score['n']}"
    return ((run.results.get("benchmarks") or {}).get(f"{score['task']}.{score['method']}") or {}).get("examples")


def seeds_table(runs: Sequence[Run]) -> Table:
    """Mean +- standard deviation and interval over seeds, one row per configuration, method and benchmark; no stars."""
    rows = []
    for row in base_once(combine_seeds(runs)):
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
        "for the mean over seeds, on these examples (of a generated task: on those that each seed draws); fewer than "
        "three seeds, or equal scores, give none. Nothing is "
        "starred: examples answered under several seeds are not that many examples."
    )
    return Table(
        ("configuration", "method", "benchmark", "metric", "mean", "95% interval", "seeds", "n"),
        rows,
        text_columns=frozenset({0, 1, 2, 3}),
        note=note,
        caption="Means over seeds",
    )


def base_once(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `combine_seeds`, each base that several configurations scored alike once, for all of them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        base = row["method"] == "base"  # its split is that of a student beside it
        same = {k: v for k, v in row.items() if k not in ("configuration", "runs") and not (base and k == "split")}
        alone = {} if base else {"configuration": row["configuration"]}
        found.setdefault(json.dumps({**same, **alone}, sort_keys=True, default=str), []).append(row)
    every = len({row["configuration"] for row in rows})
    shown = []
    for group in found.values():
        first = dict(group[0])
        if len(group) > 1:
            first["configuration"] = "all" if len(group) == every else f"{len(group)} of {every}"
            first["runs"] = [name for row in group for name in row["runs"]]
        shown.append(first)
    return sorted(shown, key=lambda row: row["method"] != "base")


@dataclass(frozen=True)
class Grid:
    """A score over two options: ``values[i][j]`` for row i and column j, shares as fractions, None where no run is.

    ``intervals`` has that of the one run of a cell, or that of the mean over its seeds (three or more); else None.
    ``noise`` is the width that most cells have: of these intervals, and of a run's own where a cell has none.
    ``left_out`` counts the runs of other settings, which are in no cell.
    """

    title: str
    metric: str
    row_option: str
    column_option: str
    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]
    intervals: list[list[Sequence[float] | None]]
    noise: float = 0.0
    left_out: int = 0


def _order(values: set[Any]) -> list[Any]:
    """Numbers by size, then everything else by its text."""
    is_number = {v: isinstance(v, int | float) and not isinstance(v, bool) for v in values}
    return sorted(values, key=lambda v: (not is_number[v], v if is_number[v] else math.inf, str(v)))


def sweep_grid(runs: Sequence[Run]) -> Grid | None:
    """The trained method's in-domain score over rank and layers, averaged over the seeds of a cell.

    Runs of another method, task or model are none of its cells, nor are those that would share a cell and differ in
    another option; of several sets the one that covers most of the grid is taken. None where its runs differ in neither
    option.
    """
    given = len(runs)
    families: dict[str, list[Run]] = {}
    for run in runs:
        model = run.conditions.get("content.model") or run.option("subspace.model_name_or_path")
        kind = [run.results["method"], run.results["trained_on"], model]
        families.setdefault(json.dumps(kind, default=str), []).append(run)

    def cells_of(found: Sequence[Run]) -> int:
        return len({(str(run.option(ROW)), str(run.option(COLUMN))) for run in found})

    several, runs = len(families) > 1, max(families.values(), key=cells_of)
    shared: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        shared.setdefault((str(run.option(ROW)), str(run.option(COLUMN))), []).append(run)
    mixed = sorted({name for cell in shared.values() for name in varying_options(cell)})
    settings: dict[str, list[Run]] = {}
    for run in runs:
        settings.setdefault(json.dumps([run.conditions.get(name) for name in mixed], default=str), []).append(run)
    runs = max(settings.values(), key=cells_of)
    if not {ROW, COLUMN} & set(varying_options(runs)):
        return None
    target = None
    for run in runs:
        trained = [s for s in run.scores if s["method"] == run.results["method"]] or run.scores
        target = next(
            (task_metric(s) for s in trained if s["split"] == "in"), task_metric(trained[0]) if trained else None
        )
        if target is not None:
            break
    if target is None:
        return None

    def place(run: Run, option: str) -> Any:
        value = run.option(option)
        return value if isinstance(value, int | float | str) else str(value)

    cells: dict[tuple[Any, Any], list[tuple[Any, dict[str, Any]]]] = {}
    for run in runs:
        for s in run.scores:
            if task_metric(s) == target and s["method"] == run.results["method"]:
                cells.setdefault((place(run, ROW), place(run, COLUMN)), []).append((run.seed, s))
    rows, columns = _order({k[0] for k in cells}), _order({k[1] for k in cells})
    found = [[_cell(cells.get((r, c), []), target[2]) for c in columns] for r in rows]
    title = f"{benchmark_name({'task': target[0], 'protocol': target[1]})}, {metric_name(target[2])}"
    if several:
        model = Path(str(runs[0].option("subspace.model_name_or_path"))).name
        title += f", of {model} by {runs[0].results['method']} on {runs[0].results['trained_on']} alone"
    if mixed:
        title += f", at {', '.join(f'{name}={runs[0].option(name)}' for name in mixed)} alone"
    values, intervals = ([[cell[i] for cell in line] for line in found] for i in (0, 1))
    names = [str(r) for r in rows], [str(c) for c in columns]
    widths = sorted(cell[2] for line in found for cell in line if cell[2] is not None)
    noise = widths[len(widths) // 2] if widths else 0.0
    return Grid(title, target[2], ROW, COLUMN, *names, values, intervals, noise, given - len(runs))


def _cell(found: Sequence[tuple[Any, Mapping[str, Any]]], metric: str) -> tuple[Any, Any, Any]:
    """Mean over the seeds of a cell, each the mean of its runs, and its interval, from (seed, score) each; and the
    width of that, or of the widest of its runs where it has none."""
    if not found:
        return None, None, None
    of_seed: dict[Any, list[float]] = {}
    for seed, s in found:
        of_seed.setdefault(seed, []).append(s["value"])
    values = [sum(v) / len(v) for v in of_seed.values()]
    ci95 = over_seeds(values, (0.0, 1.0) if is_share(metric) else None)[2]
    own = [s["ci95"] for _, s in found if s["ci95"] is not None]
    ci95 = own[0] if own and len(found) == 1 else ci95
    width = max((high - low for low, high in ([ci95] if ci95 is not None else own)), default=None)
    return sum(values) / len(values), ci95, width


def grid_table(grid: Grid) -> Table:
    """The sweep summary as a table."""
    corner = f"{grid.row_option} \\ {grid.column_option}"
    rows = [
        (name, *(f"{format_value(v, grid.metric)} {format_interval(i, grid.metric)}".strip() for v, i in zip(*cells)))
        for name, *cells in zip(grid.rows, grid.values, grid.intervals)
    ]
    return Table((corner, *grid.columns), rows, note=grid.title, caption="The sweep")
