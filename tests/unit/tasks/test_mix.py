"""Several tasks at once: how they are named and weighed, how prompts are dealt and mixed, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spd_lightning import SelfGenerationDataModule, SubspaceExtractionModule
from spd_lightning.errors import UserError
from spd_lightning.generation.questions import Questions
from spd_lightning.tasks.mix import by_turns, label, names_of, plainest, shares, weights_of


def test_a_list_counts_alike_a_mapping_by_its_weights_and_order_does_not_matter() -> None:
    assert weights_of("letters") == weights_of(["letters"]) == weights_of({"letters": 7}) == {"letters": 1.0}
    assert list(weights_of(["letters", "arithmetic"]).items()) == [("arithmetic", 0.5), ("letters", 0.5)]
    assert weights_of({"letters": 2, "arithmetic": 6}) == weights_of({"arithmetic": 3, "letters": 1})
    assert weights_of({"letters": 2, "arithmetic": 2}) == weights_of(["arithmetic", "letters"])
    assert names_of({"letters": 2, "arithmetic": 6}) == ["letters", "arithmetic"], "as they were named, to be shown"
    assert label(["letters", "arithmetic"]) == "letters + arithmetic"
    assert plainest(["letters"]) == plainest({"letters": 3}) == "letters" and plainest(["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ([], r"task=\[\] \(--subspace.task\) names no task. Set --subspace.task to a name, a list"),
        ({}, r"task={} \(--subspace.task\) names no task"),
        (["letters", "arithmetic", "letters"], r"task \(--subspace.task\) names letters twice. Name it once"),
        (["arithmetic:medium", "arithmetic"], "names one task twice, as arithmetic:medium and arithmetic"),
        ({"letters": 1, "arithmetic": 0}, "the weight of arithmetic is 0. Set it to a number above 0, or leave arith"),
        ({"letters": -1.5}, "the weight of letters is -1.5"),
        ({"letters": math.nan, "gsm8k": 1}, "the weight of letters is nan"),
        ({"letters": math.inf, "gsm8k": 1}, "the weight of letters is inf"),
        ({"letters": True, "gsm8k": 1}, "the weight of letters is True"),
        ({"letters": "much"}, "the weight of letters is 'much'"),
        ("{letters:1,gsm8k:2}", r"task='{letters:1,gsm8k:2}' \(--subspace.task\) cannot be read: a weight is a number"),
    ],
)  # fmt: skip
def test_what_is_no_mix_is_refused_by_every_constructor(task: Any, said: str) -> None:
    for make in (plainest, SubspaceExtractionModule, SelfGenerationDataModule):
        with pytest.raises(UserError, match=said):
            make(task) if make is plainest else make(task=task)  # type: ignore[operator]


def test_harder_variants_are_tasks_of_their_own() -> None:
    assert names_of(["arithmetic", "arithmetic:hard"]) == ["arithmetic", "arithmetic:hard"]


@pytest.mark.parametrize("number", [2, 3, 7, 10, 64, 1000])
@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 0.29, "b": 0.71}])
def test_shares_add_up_and_are_within_one_of_the_weight(number: int, weights: dict[str, float]) -> None:
    found = weights_of(weights)
    counts: dict[str, Any] = shares(number, found)
    assert sum(counts.values()) == number
    assert all(abs(counts[name] - number * found[name]) < 1 for name in found)


def test_all_prompts_where_no_number_is_set_and_none_without_a_prompt() -> None:
    assert shares(None, {"a": 0.5, "b": 0.5}) == {"a": None, "b": None}
    with pytest.raises(UserError, match=r"num_prompts=2 leaves b without a prompt: its weight is 10.0% of the whole"):
        shares(2, {"a": 0.9, "b": 0.1})
    with pytest.raises(UserError, match="leaves letters without a prompt"):
        Questions("m", ["arithmetic", "letters"], num_prompts=1)


def test_turns_keep_each_tasks_order_and_spread_it_evenly() -> None:
    mixed = by_turns({"a": [f"a{i}" for i in range(30)], "b": [f"b{i}" for i in range(10)]})
    assert [x for x in mixed if x[0] == "a"] == [f"a{i}" for i in range(30)] and len(mixed) == 40
    for end in range(4, 41, 4):
        assert abs(sum(x[0] == "b" for x in mixed[:end]) - end / 4) <= 1
    assert by_turns({"a": [3, 1, 2]}) == [3, 1, 2]
