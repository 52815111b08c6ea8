"""Tokens and padding, counted by hand."""

from __future__ import annotations

import pytest

from spd_lightning.finetuning import pace


def test_steps_and_the_fit_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 4.0, 8.0])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
    meter = pace.Pace()
    meter.add(6, 8)
    meter.add(4, 8)
    assert meter.end_step() == (5.0, 6 / 16)
    meter.add(8, 8)
    assert meter.real == 10, "without the step that is under way"
    assert meter.end_step() == (4.0, 0.0)
    assert (meter.real, meter.seconds(), meter.padding()) == (18, 8.0, pytest.approx(6 / 24))
