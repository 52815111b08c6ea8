"""The methods: one list, from which types, model cards and reports take theirs."""

from __future__ import annotations

from typing import get_args

from spd_lightning.generation.methods import METHODS, Method
from spd_lightning.report.wording import method_order


def test_every_method_that_trains_has_its_sentence() -> None:
    assert ["base", *METHODS] == list(get_args(Method))
    assert len(set(METHODS.values())) == 4 and all("trained on" in sentence for sentence in METHODS.values())


def test_reports_show_them_in_this_order_and_strangers_last() -> None:
    names = ["zz", "student", "filtered", "spd", "ssd", "psr", "projected", "base"]
    assert method_order(names) == ["base", "projected", "psr", "ssd", "spd", "filtered", "student", "zz"]
