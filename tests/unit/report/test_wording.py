"""How numbers and names are written wherever a report shows them."""

from __future__ import annotations

import pytest

from spd_lightning.report.wording import (
    benchmark_name,
    equals_p,
    format_any,
    format_interval,
    format_p,
    format_value,
    format_word,
    method_order,
    metric_name,
)


def test_shares_are_per_cent_and_losses_nats() -> None:
    assert [format_value(v, "acc") for v in (0.5, 0.12345, None)] == ["50.0", "12.3", "-"]
    assert format_value(0.5, "acc", sign=True) == "+50.0" and format_value(-0.5, "acc", sign=True) == "-50.0"
    assert format_value(1.23456, "nll_per_token") == "1.235"
    assert format_interval((0.1, 0.25), "pass@10") == "[10.0, 25.0]"
    assert format_interval(None, "acc") == ""
    assert metric_name("acc") == "acc (%)"
    assert metric_name("nll_per_char") == "nll_per_char (nats, lower is better)"


def test_small_p_values_have_a_bound() -> None:
    assert [format_p(p) for p in (0.0123, 0.001, 0.00099, 0.0, None)] == ["0.012", "0.001", "<0.001", "<0.001", "-"]
    assert [equals_p(p) for p in (0.0123, 0.0)] == ["= 0.012", "<0.001"]


def test_a_p_value_is_written_on_its_side_of_the_level() -> None:
    """What is marked as below 0.05 never reads 0.050."""
    for p in [0.05 + sign * 10.0**-k for k in range(2, 15) for sign in (-1, 1)] + [0.05, 0.04950001, 0.0505]:
        assert (float(format_p(p)) < 0.05) is (p < 0.05), p
    assert [format_p(p) for p in (0.0496, 0.04999, 0.05, 0.0504)] == ["0.0496", "0.04999", "0.050", "0.050"]


def test_an_end_of_a_difference_s_interval_is_written_on_its_side_of_zero() -> None:
    """What leaves out 0 never reads 0.0; what is 0 stays so, and scores, which have no sides, keep their decimals."""
    for low in [sign * 10.0**-k for k in range(2, 7) for sign in (-1, 1)]:
        end = float(format_interval((low, 0.2), "acc", sign=True).strip("[]").split(",")[0])
        assert (end > 0) is (low > 0) and (end < 0) is (low < 0), low
    assert format_interval((0.0003, 0.0829), "acc", sign=True) == "[+0.03, +8.3]"
    assert format_interval((-0.0041, -0.000004), "acc", sign=True) == "[-0.4, -0.0004]"
    assert format_interval((-0.00004, 0.00006), "nll_per_token", sign=True) == "[-0.00004, +0.0001]"
    assert format_interval((0.0, 1e-12), "acc", sign=True) == "[+0.0, +0.0]"
    assert format_interval((0.0003, 0.0829), "acc") == "[0.0, 8.3]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (None, "-"),
        (9999, "9999"),
        (-12345, "-12,345"),
        (0.123456, "0.1235"),
        ([1, 2.5], "1, 2.5"),
        (list(range(9)), "0, 1, 2, 3, 4, 5, 6, 7, ... (9 in all)"),
        ({"a": 1, "b": False}, "a: 1, b: no"),
    ],
)
def test_any_fact_in_one_line(value: object, text: str) -> None:
    assert format_any(value) == text


def test_a_protocol_is_named_unless_it_is_the_standard_or_in_the_task() -> None:
    rows = [("gsm8k", "standard"), ("gsm8k", "paper"), ("bbh:paper", "paper")]
    named = [benchmark_name({"task": task, "protocol": protocol}) for task, protocol in rows]
    assert named == ["gsm8k", "gsm8k (paper)", "bbh:paper"]


def test_methods_stand_in_one_order() -> None:
    assert method_order({"spd", "mine", "base", "ssd"}) == ["base", "ssd", "spd", "mine"]


def test_no_difference_is_told_with_the_margin_that_it_was_tested_against() -> None:
    """An interval of [-2.1, -0.5] leaves out 0 and is no difference of 3 points: both are true."""
    assert format_word({"word": "no difference", "margin": 0.03}) == "no difference of 3 points"
    assert format_word({"word": "no difference", "margin": None}) == "no difference"
    assert format_word({"word": "undecided", "margin": 0.03}) == "undecided"
