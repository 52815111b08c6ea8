"""What the pipeline says before a stage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from spd_lightning.pipeline.stages import Pipeline


@pytest.mark.parametrize("fails", [False, True])
def test_an_estimate_is_said_and_ends_no_run(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(name: str) -> Any:
        if fails:
            raise KeyError("experts")
        return SimpleNamespace(line=lambda: "estimate: 3 s")

    said: list[str] = []
    monkeypatch.setattr("spd_lightning.pipeline.stages.rank_zero_info", said.append)
    Pipeline._say_cost(SimpleNamespace(plan=SimpleNamespace(stage=stage)), "extract")  # type: ignore[arg-type]
    assert said == ["[extract] no estimate: KeyError: 'experts'" if fails else "[extract] estimate: 3 s"]
