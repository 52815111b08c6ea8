"""The corpus in numbers: what the run recorded, counted only where it recorded none."""

from types import SimpleNamespace
from typing import Any

from spd_lightning.report.corpus import corpus_facts

RECORDS = [
    {"completion": "a b", "num_tokens": 3, "finish_reason": "stop"},
    {"completion": " ", "num_tokens": 1, "finish_reason": "length"},
    {"completion": "a b", "num_tokens": 4, "finish_reason": "stop"},
]
SHAPE = {"completions": 3, "tokens": 8, "median length (tokens)": 3, "longest (tokens)": 4, "empty": 1}


def facts_of(records: list[dict[str, Any]], corpus: Any) -> dict[str, Any]:
    return corpus_facts(SimpleNamespace(completions=records, results={"corpus": corpus}))  # type: ignore[arg-type]


def test_figures_are_counted_where_none_are_recorded() -> None:
    facts = facts_of(RECORDS, {"distinct_2": 0.5})
    assert SHAPE.items() <= facts.items() and facts["mean length (tokens)"] == 8 / 3
    assert facts["stopped by itself"] == facts["distinct completions"] == "66.7%"
    assert facts["distinct pairs of tokens"] == "50.0%"
    assert facts_of([], None) == {}


def test_recorded_figures_are_read_and_not_counted_again() -> None:
    recorded = {"n": 10, "tokens_mean": 5.5, "tokens_median": 5, "tokens_max": 9, "tokens_total": 55, "empty": 0.2}
    for records in (RECORDS, []):
        facts = facts_of(records, {**recorded, "stopped": 0.7, "torn_lines": 1, "more": 2})
        expected = {"completions": 10, "tokens": 55, "longest (tokens)": 9, "empty": 2, "stopped by itself": "70.0%"}
        assert expected.items() <= facts.items() and facts["torn lines dropped on resume"] == 1 and facts["more"] == 2
        assert not {"n", "tokens_mean", "stopped"} & facts.keys()
