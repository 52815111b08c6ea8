"""Stage 4: every two methods on every benchmark, from records to the rows ``comparisons`` of ``results.json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from spd_lightning.evaluation.paired import mean_difference, share_difference
from spd_lightning.evaluation.scores import BenchmarkResult, example_values
from spd_lightning.evaluation.statistics import holm
from spd_lightning.scoring.counting import Record
from spd_lightning.scoring.verdicts import is_share, stands_for


def compare_scores(
    records_a: Sequence[Record],
    records_b: Sequence[Record],
    metric: str,
    *,
    a: str,
    b: str,
    task: str,
    protocol: str,
) -> dict[str, Any]:
    """Compare two methods on the examples that both have: a row of ``results.json``, without Holm's correction.

    ``delta`` is the score of b minus that of a. Its interval and p-value are one procedure: exact McNemar where every
    example is right or wrong, else Student's t on the differences. ``only_a`` and ``only_b`` count the examples that
    one method alone got right (None for means), ``stderr`` is that of a difference of means (None for shares).

    Raises:
        ValueError: If they share no example.
    """
    first, second = example_values(records_a, metric), example_values(records_b, metric)
    common = [example_id for example_id in first if example_id in second]
    if not common:
        raise ValueError(f"{a} and {b} share no example of {task}.")
    values_a, weights = np.array([first[i] for i in common]).T
    values_b = np.array([second[i][0] for i in common])
    if is_share(metric) and np.isin([values_a, values_b], (0.0, 1.0)).all():
        only_a, only_b = int((values_a > values_b).sum()), int((values_b > values_a).sum())
        found = share_difference(only_a, only_b, len(common))
    else:
        found = mean_difference(values_a, values_b, weights, bound=1.0 if is_share(metric) else None)
    return {
        "a": a,
        "b": b,
        "task": task,
        "protocol": protocol,
        "metric": metric,
        "delta": found.delta,
        "ci95": None if found.interval is None else list(found.interval),
        "p_value": found.p_value,
        "p_holm": None,
        "test": found.test,
        "n": len(common),
        "only_a": found.only_a,
        "only_b": found.only_b,
        "stderr": found.stderr,
    }


def compare_all(results: Iterable[BenchmarkResult]) -> list[dict[str, Any]]:
    """Every two methods on every benchmark and metric that both were scored on, corrected by Holm over the table.

    The family that is corrected holds one metric per benchmark, `verdicts.stands_for`: the others read the same answers
    once more (strict and flexible, per token and per character), and would make a finding cost more the more ways it
    is written down. Their rows have an interval and a p-value of their own, and ``p_holm`` None: nothing is claimed.

    Args:
        results: Of any number of tasks and methods; the order of methods decides which is a and which b.
    """
    groups: dict[tuple[str, str], list[BenchmarkResult]] = {}
    for result in results:
        if result.scores:
            groups.setdefault((result.task, result.protocol), []).append(result)
    rows, family = [], []
    for (task, protocol), members in groups.items():
        for a, b in combinations(members, 2):
            shared = {score.metric for score in b.scores}
            for metric in [score.metric for score in a.scores if score.metric in shared]:
                names = {"a": a.method, "b": b.method, "task": task, "protocol": protocol}
                rows.append(compare_scores(a.records, b.records, metric, **names))
                if metric == stands_for(a.answer_type):
                    family.append(rows[-1])
    for row, corrected in zip(family, holm([row["p_value"] for row in family])):
        row["p_holm"] = corrected
    return rows
