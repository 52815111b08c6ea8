"""How many processes and which device a plan counts with; its figures are compared with real runs in integration."""

from __future__ import annotations

from typing import Any

import pytest

from spd_lightning.cost.plan import Plan

NOTHING: Any = None


@pytest.mark.parametrize(
    ("trainer", "processes", "device"),
    [
        ({"accelerator": "cpu", "devices": 3, "num_nodes": 2}, 6, "cpu"),
        ({"accelerator": "cpu", "devices": "2", "num_nodes": None}, 2, "cpu"),
        ({"accelerator": "cpu", "devices": "auto", "num_nodes": 1}, 1, "cpu"),
        ({"accelerator": "gpu", "devices": [0, 2, 3], "num_nodes": 1}, 3, "cuda"),
    ],
)
def test_processes_of_a_trainer(trainer: dict[str, Any], processes: int, device: str) -> None:
    plan = Plan(NOTHING, NOTHING, NOTHING, NOTHING, trainer)
    assert (plan.processes, plan.device.type) == (processes, device)
