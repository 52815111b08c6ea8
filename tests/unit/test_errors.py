"""The error of a misspelt name helps out of it."""

from __future__ import annotations

from spd_lightning.errors import UserError, unknown_name


def test_the_nearest_name_is_suggested() -> None:
    error = unknown_name("task", "gms8k", ["mmlu", "gsm8k"], "--evaluation.tasks")
    assert isinstance(error, UserError)
    assert str(error) == "Unknown task 'gms8k'. Did you mean 'gsm8k'? Known: gsm8k, mmlu. Set --evaluation.tasks."


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    text = str(unknown_name("method", "xyz", ("spd", "base"), "--data.method"))
    assert text == "Unknown method 'xyz'. Known: base, spd. Set --data.method."
