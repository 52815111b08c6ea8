"""Stage 4: from the records of a benchmark to its scores. No model, no files.

A record is one line of ``samples/<task>.<method>.jsonl``: id, sample, prompt, completion, answer, expected, correct,
reason, scores. Every number is computed from records by the scorers of `metrics`, with its interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from spd_lightning.evaluation.metrics import (
    ExactMatchNumber,
    LetterAccuracy,
    ParseRate,
    PassAtK,
    TextExactMatch,
    TokenNLL,
    pass_at_k,
    pass_counts,
)
from spd_lightning.evaluation.statistics import is_share, jackknife_error, t_interval, wilson_interval
from spd_lightning.tasks.task import AnswerType

Record = dict[str, Any]
RECORD_KEYS = ("id", "sample", "prompt", "completion", "answer", "expected", "correct", "reason", "scores")
PASS_K = (1, 10, 100)
ONE_PROCESS = "_one_process"  # behind pass@k: tests and program in one process, as the benchmarks define it
SCRIPT = "_script"  # behind a metric's name: answers as the authors' script reads them (see `script_answers`)

# The one metric of a benchmark whose comparisons are claims: Holm's correction counts these, and stars follow it.
STANDS_FOR: dict[AnswerType, str] = {
    "number": "exact_match_flexible",
    "letter": "acc",
    "text": "exact_match",
    "program": "pass@1",
    "likelihood": "nll_per_token",
}


@dataclass(frozen=True)
class Score:
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

    def row(self) -> dict[str, Any]:
        """The row of ``results.json``, JSON types."""
        return asdict(self) | {"ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass
class BenchmarkResult:
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


def domain_split(trained_task: str | None, trained_domain: str | None, task: str, domain: str) -> str | None:
    """How far a benchmark is from what was trained on.

    Variants of a task are one task (``arithmetic:hard``, ``mbpp_sanitized``).

    >>> domain_split("gsm8k", "math", "svamp", "math")
    'transfer'
    """
    if trained_task is None:
        return None
    if _family(trained_task) == _family(task):
        return "in"
    return "transfer" if trained_domain == domain else "out"


def _family(task: str) -> str:
    return task.split(":")[0].removesuffix("_sanitized")


def metric_names(answer_type: AnswerType, num_samples: int = 1, script: bool = False) -> list[str]:
    """The metrics of an answer type, the one that stands for the task first; ``script`` adds its second reading."""
    if script:
        names = metric_names(answer_type, num_samples)
        return [*names, names[0] + SCRIPT]
    if answer_type == "program":
        ks = [k for k in PASS_K if k <= num_samples]
        return [f"pass@{k}{way}" for way in ("", ONE_PROCESS) for k in sorted({*ks, num_samples})]
    return {
        "number": ["exact_match_flexible", "exact_match_strict"],
        "letter": ["acc"],
        "text": ["exact_match"],
        "likelihood": ["nll_per_token", "nll_per_char", "parse_rate"],
    }[answer_type]


def program_verdicts(records: Sequence[Record], metric: str) -> tuple[int, list[bool]]:
    """The k of a ``pass@k`` metric, and the verdicts that it counts."""
    k = int(metric.removeprefix("pass@").removesuffix(ONE_PROCESS))
    if metric.endswith(ONE_PROCESS):
        return k, [bool(r["scores"]["one_process"]) for r in records]
    return k, [r["correct"] for r in records]


def program_facts(records: Sequence[Record]) -> dict[str, Any]:
    """How many programs shared a process with their tests, and which ones the two ways of running judge differently."""
    differ = [r for r in records if r["correct"] != bool(r["scores"]["one_process"])]
    return {
        "shared": sum("shared" in r["scores"] for r in records),
        "disagreements": [{key: r[key] for key in ("id", "sample", "correct", "reason")} for r in differ],
    }


def example_values(records: Sequence[Record], metric: str) -> dict[str, tuple[float, float]]:
    """Value and weight of each example under a metric; the score is the weighted mean.

    Weights are 1, but tokens or characters for the likelihood per token or character.
    """
    if metric.endswith(SCRIPT):
        counts = pass_counts([r["script_correct"] for r in records], [r["id"] for r in records])
        return {problem: (pass_at_k(n, c, 1), 1.0) for problem, (n, c) in counts.items()}
    if metric.startswith("pass@"):
        k, passed = program_verdicts(records, metric)
        counts = pass_counts(passed, [r["id"] for r in records])
        return {problem: (pass_at_k(n, c, k), 1.0) for problem, (n, c) in counts.items()}
    if metric.startswith("nll_per_"):
        unit = {"nll_per_token": "tokens", "nll_per_char": "chars"}[metric]
        return {r["id"]: (r["scores"]["nll"] / r["scores"][unit], float(r["scores"][unit])) for r in records}
    if metric == "exact_match_strict":
        strict = ExactMatchNumber("strict", ())
        return {r["id"]: (float(strict.verdict(r["completion"], r["expected"])), 1.0) for r in records}
    return {r["id"]: (float(r["correct"]), 1.0) for r in records}


def metric_value(records: Sequence[Record], metric: str) -> float:
    """A score, computed by its `evaluate.Metric` from all records at once."""
    completions, expected = [r["completion"] for r in records], [r["expected"] for r in records]
    answers = [r["answer"] or "" for r in records]
    if metric.endswith(SCRIPT):
        verdicts, ids = [r["script_correct"] for r in records], [r["id"] for r in records]
        return PassAtK().compute(predictions=verdicts, references=ids, k=(1,))["pass@1"]
    if metric.startswith("pass@"):
        k, passed = program_verdicts(records, metric)
        way = "one_process" if metric.endswith(ONE_PROCESS) else ""
        return PassAtK(way).compute(predictions=passed, references=[r["id"] for r in records], k=(k,))[metric]
    if metric.startswith("nll_per_"):
        unit = metric.removeprefix("nll_per_")
        sums, lengths = [r["scores"]["nll"] for r in records], [r["scores"][f"{unit}s"] for r in records]
        return TokenNLL(unit).compute(predictions=sums, references=lengths)[metric]
    if metric.startswith("exact_match_"):  # completions are cut at the task's stop strings already
        mode: Any = metric.removeprefix("exact_match_")
        return ExactMatchNumber(mode, ()).compute(predictions=completions, references=expected)[metric]
    if metric == "acc":
        letters = "".join(sorted({*"ABCD", *expected, *(a for a in answers if a)}))
        return LetterAccuracy(letters, ()).compute(predictions=answers, references=expected)[metric]
    if metric == "parse_rate":
        return ParseRate().compute(predictions=completions)[metric]
    if metric == "exact_match":
        return TextExactMatch(()).compute(predictions=completions, references=expected)[metric]
    raise ValueError(f"metric={metric!r} is not known.")


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
        pairs = np.array(list(example_values(records, metric).values()))
        error, ci95 = interval(pairs[:, 0], pairs[:, 1], is_share(metric))
        value = metric_value(records, metric)
        scores.append(
            Score(method, task, split, protocol, metric, value, len(pairs), error, ci95, seed, isolation, seconds)
        )
    return scores


def unique_records(records: Iterable[Record], order: Sequence[str]) -> list[Record]:
    """Records once each by (id, sample), in the order of the benchmark's ids, then by sample."""
    position = {example_id: i for i, example_id in enumerate(order)}
    found = {(record["id"], record["sample"]): record for record in records}
    return [found[key] for key in sorted(found, key=lambda key: (position[key[0]], key[1]))]


def group_table(records: Sequence[Record], metric: str, group_of: dict[str, str]) -> dict[str, dict[str, Any]]:
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
