"""Every scorer used alone, offline, on completions whose score is known by hand."""

from __future__ import annotations

import math
from pathlib import Path

import evaluate
import numpy as np
import pytest

from spd_lightning.evaluation.metrics import (
    ExactMatchNumber,
    LetterAccuracy,
    ParseRate,
    PassAtK,
    TextExactMatch,
    TokenNLL,
)
from spd_lightning.scoring.counting import pass_at_k

METRICS = [
    ExactMatchNumber("strict"),
    ExactMatchNumber("flexible"),
    LetterAccuracy(),
    TextExactMatch(),
    PassAtK(),
    TokenNLL("token"),
    TokenNLL("char"),
    ParseRate(),
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__)
def test_each_is_an_evaluate_metric_that_describes_itself(metric: evaluate.Metric) -> None:
    assert isinstance(metric, evaluate.Metric)
    assert metric.description
    assert "predictions" in metric.features


def test_no_folder_is_made_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`evaluate` makes one for each metric that it is not told a place for, also for those in memory."""
    home = tmp_path / "metrics"
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", home)
    metric = ExactMatchNumber("flexible")
    assert metric.compute(predictions=["18"], references=["18"]) == {"exact_match_flexible": 1.0}
    metric.add_batch(predictions=["18", "5"], references=["18", "6"])
    assert metric.compute() == {"exact_match_flexible": 0.5} and not home.exists()


def test_numbers_strict_and_flexible_differ_where_the_marker_is_missing() -> None:
    predictions = ["... #### 18", "It is 18.", "#### 17 or 18", "none"]
    references = ["18"] * 4
    strict = ExactMatchNumber("strict").compute(predictions=predictions, references=references)
    flexible = ExactMatchNumber("flexible").compute(predictions=predictions, references=references)
    assert strict == {"exact_match_strict": 0.25}
    assert flexible == {"exact_match_flexible": 0.5}  # "17 or 18" says 17 first: a last number that fits is no answer


def test_references_may_hold_commas_and_decimals() -> None:
    found = ExactMatchNumber().compute(predictions=["1000", "3"], references=["1,000", "3.0"])
    assert found == {"exact_match_flexible": 1.0}


def test_batches_added_one_by_one_give_the_same_score() -> None:
    metric = ExactMatchNumber()
    metric.add_batch(predictions=["1", "2"], references=["1", "3"])
    metric.add(prediction="4", reference="4")
    assert metric.compute() == {"exact_match_flexible": pytest.approx(2 / 3)}


def test_letters_and_texts() -> None:
    assert LetterAccuracy().compute(predictions=["(B)", "C", ""], references=["B", "B", "A"]) == {
        "acc": pytest.approx(1 / 3)
    }
    assert TextExactMatch().compute(predictions=["True.\nyes", "(A)"], references=["True", "(B)"]) == {
        "exact_match": 0.5
    }


def test_pass_at_k_is_unbiased() -> None:
    """The estimate over all draws of k from n equals the chance itself: brute force over every subset."""
    from itertools import combinations

    for n, c, k in [(5, 0, 1), (5, 2, 1), (5, 2, 3), (6, 3, 2), (4, 4, 4)]:
        verdicts = [i < c for i in range(n)]
        subsets = list(combinations(verdicts, k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))
        product = 1.0 - (np.prod(1.0 - k / np.arange(n - c + 1, n + 1)) if n - c >= k else 0.0)
        assert pass_at_k(n, c, k) == pytest.approx(product)
    with pytest.raises(ValueError, match="k=6"):
        pass_at_k(5, 1, 6)


def test_pass_at_k_averages_over_problems_and_leaves_out_a_k_above_the_samples() -> None:
    found = PassAtK().compute(
        predictions=[True, False, False, False, True, True], references=["a", "a", "a", "b", "b", "b"], k=(1, 2, 10)
    )
    assert found == {"pass@1": pytest.approx((1 / 3 + 2 / 3) / 2), "pass@2": pytest.approx((2 / 3 + 1.0) / 2)}


def test_pass_at_k_of_one_process_has_a_name_of_its_own() -> None:
    found = PassAtK("one_process").compute(predictions=[True, False], references=["a", "b"])
    assert found == {"pass@1_one_process": 0.5}
    with pytest.raises(ValueError, match="way='two'"):
        PassAtK("two")


def test_nll_is_a_ratio_of_sums() -> None:
    found = TokenNLL("token").compute(predictions=[2.0, 30.0], references=[1, 9])
    assert found == {"nll_per_token": pytest.approx(3.2)}
    assert TokenNLL("char").compute(predictions=[math.log(2)], references=[4])["nll_per_char"] == pytest.approx(
        math.log(2) / 4
    )
    with pytest.raises(ValueError, match="unit='word'"):
        TokenNLL("word")


def test_parse_rate() -> None:
    found = ParseRate().compute(predictions=["```python\nx = 1\n```", "    return 1", "SELECT * FROM t;", ""])
    assert found == {"parse_rate": 0.5}


def test_nothing_to_score_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        TokenNLL().compute(predictions=[0.0], references=[0])
