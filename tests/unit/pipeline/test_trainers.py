"""What every trainer of a run is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from lightning.pytorch.strategies import DDPStrategy

from spd_lightning.pipeline.trainers import WAIT_FOR_OTHERS, make_trainer


@pytest.mark.parametrize("strategy", ["auto", "ddp", DDPStrategy(timeout=timedelta(minutes=1))])
def test_a_process_waits_hours_for_a_slower_one_unless_told_otherwise(strategy: Any) -> None:
    """Half an hour, PyTorch's default, is less than one process may decode longer than another."""
    trainer = make_trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_checkpointing=False)
    assert isinstance(trainer.strategy, DDPStrategy)
    expected = WAIT_FOR_OTHERS if isinstance(strategy, str) else timedelta(minutes=1)
    assert trainer.strategy._timeout == expected and timedelta(hours=1) < WAIT_FOR_OTHERS
