"""What a run logs of its corpus, as a W&B experiment receives it."""

from __future__ import annotations

from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger

from spd_lightning.pipeline.tracking import log_corpus


class Recorder(WandbLogger):
    """A W&B logger whose experiment keeps what it is given."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self._prefix, self._wandb_init = "", {}

    @property
    def experiment(self) -> Any:
        return self

    def log(self, row: dict[str, Any], **kwargs: Any) -> None:
        self.rows |= row

    def define_metric(self, *args: Any, **kwargs: Any) -> None:
        """Not needed."""


def test_corpus_figures_lengths_and_table_of_samples() -> None:
    logger = Recorder()
    samples = [{"id": "a", "prompt": "2 + 2?", "base": " 5", "projected": " 4"}]
    log_corpus([logger], {"n": 3, "stopped": 0.5}, [4, 7, 7], samples)
    assert logger.rows["corpus/n"] == 3.0 and logger.rows["corpus/stopped"] == 0.5
    histogram, table = logger.rows["corpus/lengths"], logger.rows["corpus/samples"]
    assert isinstance(histogram, wandb.Histogram) and sum(histogram.histogram) == 3
    assert table.columns == ["id", "prompt", "base", "projected"] and table.data == [["a", "2 + 2?", " 5", " 4"]]
    log_corpus([again := Recorder()], {"n": 3}, [4], [])
    assert "corpus/samples" not in again.rows
