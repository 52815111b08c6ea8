"""What is asked of the model: where long prompts are cut."""

from __future__ import annotations

import re

import pytest

from spd_lightning.errors import UserError
from spd_lightning.generation.requests import truncate


@pytest.mark.parametrize(
    ("side", "left"),
    [("start", (0, 1, 6, 7, 8, 9)), ("end", (0, 1, 2, 3, 4, 9)), ("middle", (0, 1, 2, 7, 8, 9))],
)
def test_the_named_part_is_cut_and_what_must_stay_stays(side: str, left: tuple[int, ...]) -> None:
    assert truncate(range(10), 6, side, keep_prefix=2, keep_suffix=1) == left


@pytest.mark.parametrize("side", ["start", "end", "middle"])
def test_every_length_is_kept_exactly(side: str) -> None:
    for n in range(12):
        for limit in range(4, 14):
            for prefix in range(min(n, 2) + 1):
                for suffix in range(min(n - prefix, 1) + 1):
                    found = truncate(range(n), limit, side, prefix, suffix)
                    assert len(found) == min(n, limit)
                    assert found[:prefix] == tuple(range(prefix))
                    assert found[len(found) - suffix :] == tuple(range(n - suffix, n))
                    assert list(found) == sorted(set(found)), "tokens keep their order"


def test_without_anything_kept_a_side_is_a_slice() -> None:
    assert truncate(range(9), 4, "start") == (5, 6, 7, 8)
    assert truncate(range(9), 4, "end") == (0, 1, 2, 3)
    assert truncate(range(9), 4, "middle") == (0, 1, 7, 8)
    assert truncate(range(9), 5) == (0, 1, 6, 7, 8), "the larger half is the end, where a question is asked"


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UserError, match=re.escape("truncation='left' is not known")):
        truncate(range(9), 4, "left")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"limit of 4 tokens .* take 4 of them"):
        truncate(range(9), 4, "end", 3, 1)
    assert truncate(range(4), 4, "end", 3, 1) == (0, 1, 2, 3), "what fits is not looked at"
