"""Self-Policy Distillation with PyTorch Lightning (arXiv:2605.22675): the public names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spd_lightning.evaluation.callback import BenchmarkCallback
    from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
    from spd_lightning.finetuning.module import SPDFineTuningModule
    from spd_lightning.subspace.module import SubspaceExtractionModule
    from spd_lightning.subspace.projection import fold_projection, project_kv
    from spd_lightning.subspace.subspace import CapabilitySubspace

__version__ = "0.1.0"

__all__ = [
    "BenchmarkCallback",
    "CapabilitySubspace",
    "SPDFineTuningModule",
    "SelfGenerationDataModule",
    "SubspaceExtractionModule",
    "fold_projection",
    "project_kv",
]

_HOME = {
    "CapabilitySubspace": "subspace.subspace",
    "SubspaceExtractionModule": "subspace.module",
    "project_kv": "subspace.projection",
    "fold_projection": "subspace.projection",
    "SelfGenerationDataModule": "finetuning.datamodule",
    "SPDFineTuningModule": "finetuning.module",
    "BenchmarkCallback": "evaluation.callback",
}


def __dir__() -> list[str]:
    """The public names too, which are imported on first use."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import spd_lightning`` is quick."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
