"""Stage 1: find the capability subspace of keys and values, and project onto it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spd_lightning.subspace.projection import fold_into, fold_projection, project_kv
    from spd_lightning.subspace.subspace import CapabilitySubspace

__all__ = ["CapabilitySubspace", "fold_into", "fold_projection", "project_kv"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: a report reads the files of this folder without PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "subspace" if name == "CapabilitySubspace" else "projection"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
