"""Every method that trains has its sentence, and the base is none of them."""

from __future__ import annotations

from typing import get_args

from spd_lightning.generation.methods import METHODS, Method


def test_methods_that_train_are_all_but_the_base() -> None:
    assert {*METHODS, "base"} == set(get_args(Method))
    assert all("trained on" in sentence for sentence in METHODS.values())
