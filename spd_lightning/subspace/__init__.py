"""Stage 1: find the capability subspace of keys and values, and project onto it."""

from spd_lightning.subspace.projection import fold_into, fold_projection, project_kv
from spd_lightning.subspace.subspace import CapabilitySubspace

__all__ = ["CapabilitySubspace", "fold_into", "fold_projection", "project_kv"]
