"""Stage 4: from the records of a benchmark to its scores. No model, no files.

Value, n and interval of a score come of what its examples count, one table for all: ``scoring/verdicts.py``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from spd_lightning.evaluation.statistics import jackknife_error, t_interval, wilson_interval
from spd_lightning.notebook import Shown
from spd_lightning.scoring.counting import Record
from spd_lightning.scoring.verdicts import find_metric, is_share, metric_names
from spd_lightning.tasks.task import AnswerType


@dataclass(frozen=True, kw_only=True, repr=False)
class Score(Shown):
    """One number of ``results.json``.

    Attributes:
        method: base, projected, or the trained method's name.
        task: Task as the user wrote it.
        split: ``in``, ``transfer``, ``out``, or None where nothing was trained.
        protocol: standard or paper.
        metric: E.g. ``exact_match_flexible``; shares are fractions 0 to 1.
        value: The score.
        n: Examples (problems, for pass@k) behind it.
        stderr: Standard error over examples; None for a single one.
        ci95: Wilson's interval for shares, Student's t over examples for means; None where they show no spread.
        seed: Seed of the run.
        isolation: How programs were kept apart; None where none ran.
        seconds: Wall time of the whole benchmark.
    """

    method: str
    task: str
    split: str | None
    protocol: str
    metric: str
    value: float
    n: int
    stderr: float | None
    ci95: tuple[float, float] | None
    seed: int
    isolation: str | None
    seconds: float

    def shown_facts(self) -> dict[str, Any]:
        scale, digits = (100, 1) if is_share(self.metric) else (1, 3)
        interval = None if self.ci95 is None else [round(scale * limit, digits) for limit in self.ci95]
        unit = "%" if is_share(self.metric) else " nats"
        facts = {"task": self.task, "method": self.method, "metric": self.metric}
        return facts | {"value": f"{scale * self.value:.{digits}f}{unit}", "ci95": interval, "n": self.n}

    def row(self) -> dict[str, Any]:
        """The row of ``results.json``, JSON types."""
        return asdict(self) | {"ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(repr=False)
class BenchmarkResult(Shown):
    """What came of one benchmark with one method.

    Attributes:
        records: One per example and sample, in the order of the benchmark; the same on every process.
        scores: Computed from the records; empty if the benchmark was not run.
        facts: How it was computed and what was seen (counts, reasons, tables by subject).
        not_run: Why it was not run; None if it was.
        answer_type: Of the benchmark.
    """

    task: str
    method: str
    protocol: str
    answer_type: AnswerType
    records: list[Record] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    not_run: str | None = None

    def shown_facts(self) -> dict[str, Any]:
        facts = {"task": self.task, "method": self.method, "protocol": self.protocol, "records": len(self.records)}
        return facts | ({} if self.not_run is None else {"not_run": self.not_run})

    def shown_rows(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in score.shown_facts().items() if k not in ("task", "method")} for score in self.scores]


def domain_split(trained: Mapping[str, str], task: str, domain: str) -> str | None:
    """How far a benchmark is from what was trained on: of several tasks, from the nearest.

    Variants of a task are one task (``arithmetic:hard``, ``mbpp_sanitized``).

    >>> domain_split({"gsm8k": "math"}, "svamp", "math")
    'transfer'

    Args:
        trained: Domain of every task that was trained on, by its name; empty where nothing was.
        task: Of the benchmark.
        domain: The same.
    """
    if not trained:
        return None
    if _family(task) in map(_family, trained):
        return "in"
    return "transfer" if domain in trained.values() else "out"


def _family(task: str) -> str:
    name = task.split(":")[0]
    return task if name == "custom" else name.removesuffix("_sanitized")  # files of one's own have nothing in common


def program_facts(records: Sequence[Record]) -> dict[str, Any]:
    """How many programs shared a process with their tests, and which ones the two ways of running judge differently."""
    differ = [r for r in records if r["correct"] != bool(r["scores"]["one_process"])]
    return {
        "shared": sum("shared" in r["scores"] for r in records),
        "disagreements": [{key: r[key] for key in ("id", "sample", "correct", "reason")} for r in differ],
    }


def example_counts(records: Sequence[Record], metric: str) -> dict[str, tuple[float, float]]:
    """Total and weight of each example under a metric: the score is the sum of totals over that of weights.

    Raises:
        ValueError: For a metric that is not in the table of ``scoring/verdicts.py``.
    """
    found = find_metric(metric)
    if found is None:
        raise ValueError(f"metric={metric!r} is not known.")
    of_example: dict[str, list[Record]] = {}
    for record in records:
        of_example.setdefault(record["id"], []).append(record)
    return {example_id: found[0].counts(rows, found[1]) for example_id, rows in of_example.items()}


def example_values(records: Sequence[Record], metric: str) -> dict[str, tuple[float, float]]:
    """Value and weight of each example under a metric; the score is the weighted mean.

    Weights are 1, but tokens or characters for the likelihood per token or character.
    """
    return {key: (total / weight, weight) for key, (total, weight) in example_counts(records, metric).items()}


def interval(values: np.ndarray, weights: np.ndarray, share: bool) -> tuple[float | None, tuple[float, float] | None]:
    """Standard error and 95% interval of a weighted mean over examples.

    Wilson's interval where every example is right or wrong; else Student's t, cut at 0 and 1 for shares. None where
    there is no spread to make an interval from.

    Args:
        values: One per example, shape ``[n]``.
        weights: Shape ``[n]``.
        share: Whether the values are shares (0 to 1).
    """
    error, n = jackknife_error(values, weights), len(values)
    if share and np.isin(values, (0.0, 1.0)).all():
        return error, wilson_interval(int(values.sum()), n)
    mean = float((values * weights).sum() / weights.sum())
    return error, t_interval(mean, error, n, limits=(0.0, 1.0) if share else None)


def score_records(
    records: Sequence[Record],
    answer_type: AnswerType,
    *,
    method: str,
    task: str,
    protocol: str,
    split: str | None = None,
    num_samples: int = 1,
    seed: int = 42,
    isolation: str | None = None,
    seconds: float = 0.0,
) -> list[Score]:
    """Every score of a benchmark, from the gathered records."""
    scores = []
    script = bool(records) and all("script_correct" in r for r in records)
    for metric in metric_names(answer_type, num_samples, script):
        totals, weights = np.array(list(example_counts(records, metric).values())).T
        error, ci95 = interval(totals / weights, weights, is_share(metric))
        scores.append(
            Score(
                method=method,
                task=task,
                split=split,
                protocol=protocol,
                metric=metric,
                value=math.fsum(totals) / math.fsum(weights),
                n=len(totals),
                stderr=error,
                ci95=ci95,
                seed=seed,
                isolation=isolation,
                seconds=seconds,
            )
        )
    return scores


def unique_records(records: Iterable[Record], order: Sequence[str]) -> list[Record]:
    """Records once each by (id, sample), in the order of the benchmark's ids, then by sample."""
    position = {example_id: i for i, example_id in enumerate(order)}
    found = {(record["id"], record["sample"]): record for record in records}
    return [found[key] for key in sorted(found, key=lambda key: (position[key[0]], key[1]))]


def group_scores(records: Sequence[Record], metric: str, group_of: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Score, n and 95% interval of each group of examples (subject, category), groups by name."""
    values: dict[str, list[tuple[float, float]]] = {}
    for example_id, pair in example_values(records, metric).items():
        if example_id in group_of:
            values.setdefault(group_of[example_id], []).append(pair)
    table = {}
    for name in sorted(values):
        value, weight = np.array(values[name]).T
        mean = float((value * weight).sum() / weight.sum())
        ci95 = interval(value, weight, is_share(metric))[1]
        table[name] = {"value": mean, "n": len(value), "ci95": None if ci95 is None else list(ci95)}
    return table


def reasons(records: Sequence[Record]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first."""
    return dict(Counter(r["reason"] for r in records).most_common())


def logged_metrics(results: Sequence[BenchmarkResult]) -> dict[str, float]:
    """Scores under their logged names.

    ``eval/<task>/<metric>`` is the curve from base (step 0) to student; ``eval_base/...``, ``eval_projected/...`` and
    ``eval_base_3_shots/...`` keep those apart.
    """
    metrics = {}
    for s in (score for result in results for score in result.scores):
        reference = s.method == "projected" or s.method.startswith("base_")
        names = ("eval", "eval_base") if s.method == "base" else (f"eval_{s.method}",) if reference else ("eval",)
        metrics.update({f"{name}/{s.task}/{s.metric}": s.value for name in names})
    return metrics
