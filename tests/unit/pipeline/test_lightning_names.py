"""What Lightning keeps to itself is still where we take it from; a version that moves it fails here."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from spd_lightning.finetuning.strategy import ShardedStrategy
from spd_lightning.pipeline.lightning_names import ends_with_a_stage, wait_for_others

ASKED, OURS = timedelta(minutes=1), timedelta(hours=12)


def given_to_torch(strategy: DDPStrategy, monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """The timeout that a strategy makes its process group with."""
    seen: dict[str, timedelta] = {}
    monkeypatch.setattr("lightning.pytorch.strategies.ddp._init_dist_connection", lambda *_, **kw: seen.update(kw))
    strategy.parallel_devices, strategy.cluster_environment = [torch.device("cpu")], LightningEnvironment()
    strategy.setup_distributed()
    return seen["timeout"]


def test_the_time_that_is_set_is_the_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, asked = DDPStrategy(), DDPStrategy(timeout=ASKED)
    for strategy in (chosen, asked):
        wait_for_others(strategy, OURS)
    assert given_to_torch(chosen, monkeypatch) == OURS
    assert given_to_torch(asked, monkeypatch) == ASKED


@pytest.mark.parametrize(("strategy", "ends"), [("ddp", False), ("ddp_spawn", True), ("ddp_fork", True)])
def test_processes_that_end_with_a_stage(strategy: str, ends: bool) -> None:
    trainer = Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_checkpointing=False)
    assert ends_with_a_stage(trainer.strategy) is ends


def test_every_process_is_in_the_group_that_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ShardedStrategy` sets by name what Lightning otherwise takes as an argument of its own strategy."""
    assert ModelParallelStrategy(data_parallel_size=3)._data_parallel_size == 3
    strategy = ShardedStrategy()
    strategy.num_nodes, strategy.parallel_devices = 2, [None] * 4  # type: ignore[list-item]
    monkeypatch.setattr(ModelParallelStrategy, "setup_environment", lambda self: None)
    strategy.setup_environment()
    assert strategy._data_parallel_size == 8
