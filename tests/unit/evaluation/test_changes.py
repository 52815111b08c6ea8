"""What changed between two sets of answers, by counts that are made by hand."""

from __future__ import annotations

import random

import pytest

from spd_lightning.evaluation.changes import answer_changes, distinct, parts_of_difference
from spd_lightning.evaluation.scores import BenchmarkResult


def record(
    id: str, answer: str | None, expected: str = "7", completion: str = "", finish: str = "stop", sample: int = 0
):  # type: ignore[no-untyped-def]
    return {
        "id": id,
        "sample": sample,
        "prompt": "?",
        "completion": completion,
        "answer": answer,
        "expected": expected,
        "correct": answer == expected,
        "reason": "",
        "scores": {},
        "num_tokens": len(completion) + 1,
        "finish_reason": finish,
    }


def result(method: str, records, answer_type: str = "number") -> BenchmarkResult:  # type: ignore[no-untyped-def]
    return BenchmarkResult("sums", method, "standard", answer_type, records)  # type: ignore[arg-type]


def encode(text: str) -> list[int]:
    return list(text.encode())


def test_changes_of_answers_are_counted_by_pairs() -> None:
    base = [
        record("a", "7", completion="7"),
        record("b", None, completion="xx", finish="length"),
        record("c", "7", completion="7"),
    ]
    new = [record("c", "8", completion="8"), record("a", "7", completion="7 "), record("b", "7", completion="7")]
    found = answer_changes(result("base", base), result("spd", [*new, record("d", "7")]), encode)
    assert found is not None
    assert (found["n"], found["wrong_to_right"], found["right_to_wrong"], found["other_text"]) == (3, 1, 1, 3)
    assert found["base"]["parsed"] == pytest.approx(2 / 3) and found["student"]["parsed"] == 1
    assert found["base"]["correct_if_parsed"] == 1 and found["student"]["correct_if_parsed"] == pytest.approx(2 / 3)
    assert (found["base"]["stopped"], found["student"]["stopped"]) == (pytest.approx(2 / 3), 1)
    assert found["base"]["tokens"] == pytest.approx((2 + 3 + 2) / 3)
    assert found["base"]["distinct_1"] == 2 / 4 and found["base"]["distinct_2"] == 1
    assert found["delta"] == 0 and found["from_parsing"] == pytest.approx(5 / 18)
    assert found["from_accuracy"] == pytest.approx(-5 / 18)


def test_the_two_parts_are_the_difference_whatever_the_shares() -> None:
    draw = random.Random(3)
    for _ in range(200):
        p, q, p2, q2 = (draw.choice([0.0, 1.0, draw.random()]) for _ in range(4))
        a, b = parts_of_difference(p, q if p else None, p2, q2 if p2 else None)
        assert a + b == pytest.approx(p2 * q2 - p * q, abs=1e-12)
    assert parts_of_difference(0.4, 0.5, 0.9, 0.5) == (pytest.approx(0.25), 0.0), "form alone"
    assert parts_of_difference(0.4, 0.5, 0.4, 1.0) == (0.0, pytest.approx(0.2)), "accuracy alone"
    assert parts_of_difference(0.0, None, 0.5, 0.6) == (pytest.approx(0.3), 0.0), "nothing was read before"


def test_drawn_samples_are_no_pairs_and_likelihoods_are_neither_right_nor_wrong() -> None:
    rows = [record("a", "7", sample=s) for s in range(2)]
    drawn = answer_changes(result("base", rows), result("spd", rows), encode)
    assert drawn is not None and drawn["wrong_to_right"] is None and drawn["delta"] == 0.0
    text = [record("a", "x = 1", "x = 1", "x = 1")]
    likelihood = answer_changes(result("base", text, "likelihood"), result("spd", text, "likelihood"), encode)
    assert likelihood is not None and likelihood["delta"] is None and likelihood["right_to_wrong"] is None


def test_letters_are_not_written_and_have_no_length() -> None:
    letters = [{k: v for k, v in record(i, "A", "A").items() if k not in ("num_tokens", "finish_reason")} for i in "ab"]
    found = answer_changes(result("base", letters, "letter"), result("spd", letters, "letter"), encode)
    assert found is not None and found["other_text"] is None and found["wrong_to_right"] == 0
    assert [found["base"][name] for name in ("tokens", "stopped", "distinct_1")] == [None, None, None]
    assert answer_changes(result("base", letters[:1], "letter"), result("spd", letters[1:], "letter"), encode) is None


def test_distinct_counts_n_grams_within_texts_only() -> None:
    assert distinct([[1], [2]], 2) is None
    assert distinct([[1, 2, 3], [1, 2]], 2) == pytest.approx(2 / 3)
