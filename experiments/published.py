"""The published main table, run and shown beside the published cells.

    python -m experiments.published [--out runs/main_table] [--workers 1]

runs ``configs/paper/main_table.yaml`` (what is missing of it) and writes ``<out>/main_table.md``. Each column is of the
models that were trained on its own domain, as published; answers are read as the authors' script reads them.
Reference: arXiv:2605.22675, main table, Qwen2.5-0.5B-Instruct.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.files import write_atomic
from spd_lightning.errors import UserError
from spd_lightning.report import read_run
from spd_lightning.report.render import Table, markdown_table, text_table
from spd_lightning.report.wording import format_interval
from spd_lightning.scoring.verdicts import SCRIPT, is_share
from spd_lightning.sweep.grid import points, read_sweep
from spd_lightning.sweep.runner import run_sweep

SWEEP = "configs/paper/main_table.yaml"
Z = 1.96  # of a normal 95% interval


@dataclass(frozen=True)
class Column:
    """A column of the published table.

    Attributes:
        name: As published.
        task: Our benchmark.
        trained_on: The task of its domain.
        n: Examples of the published number; None where the paper does not say how they spread (mean losses).
        published: By method, per cent; losses in nats.
    """

    name: str
    task: str
    trained_on: str
    n: int | None
    published: dict[str, float]


def _cells(base: float, psr: float, ssd: float, spd: float) -> dict[str, float]:
    return {"base": base, "psr": psr, "ssd": ssd, "spd": spd}


COLUMNS = (
    Column("MBPP", "mbpp_sanitized", "mbpp", 257, _cells(17.0, 29.0, 18.3, 25.5)),
    Column("GSM8K", "gsm8k", "gsm8k", 100, _cells(11.0, 17.0, 12.0, 22.0)),
    Column("MMLU", "mmlu", "mmlu", 200, _cells(46.0, 43.0, 48.0, 49.0)),
    Column("SVAMP", "svamp", "gsm8k", 100, _cells(16.0, 19.0, 16.0, 32.0)),
    Column("BBH", "bbh:paper", "mmlu", 300, _cells(32.7, 33.7, 36.0, 38.7)),
    Column("CodeAlpaca", "codealpaca", "mbpp", None, _cells(0.683, 0.683, 0.682, 0.679)),
)


@dataclass(frozen=True)
class Cell:
    """One of our cells: the mean over seeds.

    Attributes:
        value: Per cent; a mean loss in nats.
        error: Standard error: of the examples, which all seeds share, and of the seeds.
        n: Examples.
        seeds: How many.
    """

    value: float
    error: float
    n: int
    seeds: int


def cell_of(rows: Sequence[dict[str, Any]]) -> Cell:
    """Combine the score rows of one method on one benchmark, a row for each seed.

    The variance is that of the examples (once, since all seeds answer the same ones) plus the seeds' variance over
    their number; with a single seed the latter is not known and counts as 0.
    """
    scale = 100.0 if is_share(rows[0]["metric"]) else 1.0
    values = [scale * row["value"] for row in rows]
    examples = statistics.fmean((scale * row["stderr"]) ** 2 for row in rows)
    between = statistics.variance(values) / len(values) if len(values) > 1 else 0.0
    return Cell(statistics.fmean(values), math.sqrt(examples + between), rows[0]["n"], len(rows))


def rows_of(results: Iterable[dict[str, Any]], column: Column, method: str) -> list[dict[str, Any]]:
    """The scores of a cell, one a seed: as the script reads answers where it does, else the first metric."""
    found = []
    for made in results:
        fits = made["trained_on"] == column.trained_on and (method == "base" or made["method"] == method)
        scores = [s for s in made["scores"] if fits and (s["task"], s["method"]) == (column.task, method)]
        if scores:
            found.append(next((s for s in scores if s["metric"].endswith(SCRIPT)), scores[0]))
    by_seed = {row["seed"]: row for row in found}
    if method == "base":  # nothing is drawn: every seed has the same
        return list(by_seed.values())[:1]
    return [by_seed[seed] for seed in sorted(by_seed)]


def published_table(results: Sequence[dict[str, Any]]) -> Table:
    """Our cells beside the published ones, with the difference and its interval.

    Args:
        results: Contents of ``results.json``, of any number of runs.
    """
    table = []
    for column in COLUMNS:
        for method, published in column.published.items():
            digits, scale, metric = (3, 1, "nll_per_token") if column.n is None else (1, 100, "acc")
            rows = rows_of(results, column, method)
            if not rows:
                table.append((column.name, method, f"{published:.{digits}f}", "not run", "", "", ""))
                continue
            ours = cell_of(rows)
            error = ours.error
            if column.n is not None:  # one student of theirs, of which only the examples' part is known
                error = math.hypot(error, math.sqrt(published * (100 - published) / column.n))
            difference = ours.value - published
            interval = [end / scale for end in (difference - Z * error, difference + Z * error)]
            table.append(
                (
                    column.name,
                    method,
                    f"{published:.{digits}f}",
                    f"{ours.value:.{digits}f} +- {Z * ours.error:.{digits}f}",
                    f"{difference:+.{digits}f} {format_interval(interval, metric, sign=True)}",
                    str(ours.n),
                    str(ours.seeds),
                )
            )
    note = (
        "Per cent; CodeAlpaca in nats a token, lower is better. Intervals are normal ones of 95%: of our mean over "
        "examples and seeds, and of the difference with the published number's own examples too (GSM8K and SVAMP 100, "
        "MBPP 257, MMLU 200, BBH 300; not known for CodeAlpaca). How far a published student would differ from another "
        "seed's is not known, so they are too narrow. CodeAlpaca's cells compare only where rows come from the hub, "
        "since a local copy in another order has another last hundred."
    )
    header = ("benchmark", "method", "published", "ours", "ours - published", "n", "seeds")
    return Table(header, table, text_columns=frozenset({0, 1}), note=note)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point; 0 success, 2 a mistake of the user or a failed run."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.published", description="Run the published main table.", allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("runs/main_table"), help="folder of the runs")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time (default: 1)")
    given = parser.parse_args(args)
    try:
        sweep = read_sweep(SWEEP)
        run_sweep(sweep, given.out, given.workers)
        runs = [read_run(given.out / point.name) for point in points(sweep)]
        if changed := next((run for run in runs if run.changed), None):
            raise UserError(
                f"{changed.path} is not as it was written ({'; '.join(changed.changed)}). Put the files back, or "
                "remove the folder to have that run made again."
            )
        table = published_table([run.results for run in runs])
        write_atomic(given.out / "main_table.md", markdown_table(table))
        print(f"{text_table(table)}\n\n{given.out / 'main_table.md'}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Start again to run what is missing.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
