"""The one table: every answer type judges, names its metrics, and every metric says what it is and what it counts."""

from __future__ import annotations

from typing import Any

import pytest

from spd_lightning.errors import UserError
from spd_lightning.scoring.verdicts import (
    KINDS,
    METRICS,
    Verdict,
    find_metric,
    holds_answer,
    is_share,
    judge,
    judge_choice,
    metric_names,
    stands_for,
)


@pytest.mark.parametrize(
    ("kind", "expected", "completion", "verdict"),
    [
        ("number", "1,200", "It is 1200.", Verdict("1200", True, "conclusion")),
        ("number", "18", "17 #### 18", Verdict("18", True, "marker")),
        ("number", "18", "no idea", Verdict(None, False, "no number")),
        ("letter", "B", "(B)", Verdict("B", True, "begins with it")),
        ("text", "Valid", "valid.\nBecause", Verdict("valid", True, "first line")),
        ("likelihood", "", "x = 1", Verdict("x = 1", True, "parses")),
        ("likelihood", "", "x = (", Verdict("x = (", False, "does not parse")),
    ],
)
def test_a_completion_is_judged_on_plain_values(kind: Any, expected: str, completion: str, verdict: Verdict) -> None:
    found = judge(expected, completion, kind)
    assert (found.answer, found.correct) == (verdict.answer, verdict.correct)
    assert found.reason == verdict.reason
    assert holds_answer(completion, kind) is (found.answer is not None and found.reason != "does not parse")


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(UserError, match="no number that can be compared"):
        judge("many", "18", "number")
    with pytest.raises(ValueError, match="judge_all"):
        judge("assert True", "x = 1", "program")


def test_equal_likelihoods_are_no_answer() -> None:
    assert judge_choice("B", {"A": -2.0, "B": -1.0}) == Verdict("B", True, "likelihood", {"A": -2.0, "B": -1.0})
    assert judge_choice("A", {"A": -1.0, "B": -1.0}).answer is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_of_a_metric_is_found_in_the_table(kind: Any) -> None:
    names = metric_names(kind, 100, script=True)
    assert len(names) == len(set(names))
    found = [find_metric(name) for name in names]
    assert all(f is not None and f[0].about for f in found)
    assert names[0] == stands_for(kind) and names[-1] == f"{names[0]}_script"


def test_the_k_of_a_metric_stands_in_its_name() -> None:
    assert metric_names("program", 20) == [
        *("pass@1", "pass@10", "pass@20", "pass@1_one_process", "pass@10_one_process", "pass@20_one_process")
    ]
    assert find_metric("pass@10") == (METRICS["pass@k"], 10)
    assert find_metric("pass@20_one_process") == (METRICS["pass@k_one_process"], 20)
    assert find_metric("pass@many") is None and is_share("pass@many")
    assert not is_share("nll_per_token") and not is_share("nll_per_char") and is_share("parse_rate")


def test_an_example_counts_its_samples_in_pass_at_k() -> None:
    records = [{"correct": i < 2, "scores": {"one_process": float(i < 1)}} for i in range(5)]
    for name, expected in (("pass@1", 0.4), ("pass@5", 1.0), ("pass@1_one_process", 0.2)):
        metric, k = find_metric(name)  # type: ignore[misc]
        assert metric.counts(records, k) == (pytest.approx(expected), 1.0)


def test_losses_are_weighted_by_length() -> None:
    records = [{"scores": {"nll": 6.0, "tokens": 3, "chars": 12}}]
    assert METRICS["nll_per_token"].counts(records, 1) == (6.0, 3.0)
    assert METRICS["nll_per_char"].counts(records, 1) == (6.0, 12.0)


def test_strict_wants_the_marker() -> None:
    strict = METRICS["exact_match_strict"]
    assert strict.counts([{"completion": "#### 18", "expected": "18"}], 1) == (1.0, 1.0)
    assert strict.counts([{"completion": "It is 18", "expected": "18"}], 1) == (0.0, 1.0)
