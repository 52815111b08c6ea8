"""Stage 4: the base at its best decoding: which of a stated grid is best on training rows, to be scored on test rows.

A student that was trained on samples drawn with a cut is compared with a base that may cut as well. The grid stands in
the configuration, and the choice is made on rows that are never scored, so that the row is no best of many tries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spd_lightning.errors import UserError, counted
from spd_lightning.evaluation.decoding import Decoding
from spd_lightning.evaluation.scores import BenchmarkResult
from spd_lightning.tasks.task import Benchmark, Task

METHOD = "base_best_decoding"
OPTIONS = ("temperature", "top_p", "top_k")


def read_grid(grid: Sequence[Mapping[str, float]]) -> list[Decoding]:
    """The decodings of a grid, e.g. ``[{temperature: 0}, {temperature: 0.7, top_p: 0.9}]``.

    Raises:
        UserError: For an entry without a temperature, with another name, or that stands there twice.
    """
    found: list[Decoding] = []
    for entry in grid:
        known = isinstance(entry, Mapping) and "temperature" in entry and not set(entry) - set(OPTIONS)
        if not known or entry.get("top_k", 0) % 1:
            raise UserError(
                f"best_decoding has the entry {entry!r}. Each needs a temperature and may have top_p and top_k, a "
                "whole number: set --evaluation.best_decoding to '[{temperature: 0}, {temperature: 0.7, top_p: 0.9}]', "
                "say."
            )
        kept = {"top_k": int(entry["top_k"])} if "top_k" in entry else {}
        made = Decoding(float(entry["temperature"]), float(entry.get("top_p", 1.0)), **kept)
        if made in found:
            raise UserError(f"best_decoding has {made} twice. Leave one of the two out.")
        found.append(made)
    return found


def cannot_choose(benchmark: Benchmark, task: Task) -> str | None:
    """Why a benchmark has no row at the best decoding; None if it has one."""
    if benchmark.output_type != "generate":
        return "nothing is decoded: likelihoods are compared"
    if task.no_train:
        return f"there are no training rows to choose on: {task.no_train}"
    if benchmark.num_fewshot:
        return "its training rows are not asked as its test rows are, with solved examples before them"
    return None


def on_training_rows(benchmark: Benchmark, task: Task, rows: int) -> Benchmark:
    """A benchmark on the first training rows of its task, asked as its test rows are."""
    found = [replace(e, choices=()) for e in task.examples("train", rows) if e.target.strip()]
    return replace(benchmark, examples=tuple(found), num_dropped=0)


def settings_of(decoding: Decoding) -> dict[str, Any]:
    """Arguments of `run_benchmark`: one answer an example."""
    drawn = {} if decoding.is_greedy else {"top_p": decoding.top_p, "top_k": decoding.top_k}
    return {"num_samples": 1, "temperature": decoding.temperature, "top_p": None, "top_k": None, **drawn}


@dataclass(frozen=True)
class Choice:
    """The best decoding of a grid: arguments of `run_benchmark`, and facts for the result."""

    settings: Mapping[str, Any]
    facts: Mapping[str, Any]


def choose(
    benchmark: Benchmark,
    task: Task,
    grid: Sequence[Decoding],
    rows: int,
    run: Callable[[Benchmark, Mapping[str, Any]], BenchmarkResult],
) -> Choice | str:
    """The decoding with the highest score on training rows, the first of equal ones; or why there is none.

    Args:
        benchmark: To be scored.
        task: Of it.
        grid: At least one.
        rows: How many training rows.
        run: Scores a benchmark under settings.
    """
    if (reason := cannot_choose(benchmark, task)) is not None:
        return reason
    asked = on_training_rows(benchmark, task, rows)
    tried: list[dict[str, Any]] = []
    for decoding in grid:
        result = run(asked, settings_of(decoding))
        if result.not_run is not None:  # programs that may not run
            return result.not_run
        score = result.scores[0]
        tried.append({"decoding": str(decoding), "metric": score.metric, "value": score.value, "n": score.n})
    values = [row["value"] for row in tried]
    best = grid[values.index(max(values))]
    return Choice(settings_of(best), {"grid": tried, "chosen_on": counted(len(asked.examples), "training row")})
