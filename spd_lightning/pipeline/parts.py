"""The objects of the stages, as one configuration makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.subspace.module import SubspaceExtractionModule


@dataclass(frozen=True)
class Parts:
    """The objects of the stages, as one configuration makes them.

    Attributes:
        extraction: Stage 1.
        data: Stage 2; also the training batches of stage 3.
        student: Stage 3.
        benchmarks: Stage 4.
        trainer: The trainer's options.
    """

    extraction: SubspaceExtractionModule
    data: SelfGenerationDataModule
    student: SPDFineTuningModule
    benchmarks: BenchmarkCallback
    trainer: Mapping[str, Any]
