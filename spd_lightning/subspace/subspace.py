"""The capability subspace: an orthonormal basis per K/V site; saved, loaded, and checked against a model.

Shapes, here and in all of ``subspace/``: ``b`` batch, ``s`` sequence, ``kv_dim`` features of a site, ``r`` rank, ``M``
calibration tokens. The projector is ``P = V_r V_r^T`` with the r leading right singular vectors of G (arXiv:2605.22675,
section 3); with ``strength`` a it acts as ``(1 - a) I + a P``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spd_lightning.artifacts.reading import reading
from spd_lightning.errors import UserError
from spd_lightning.notebook import Shown
from spd_lightning.subspace.files import ADVICE, read_safetensors, site_keys, write_safetensors
from spd_lightning.subspace.sites import Side, SiteKey, kv_sites, weights_digest

ORTHONORMAL = 1e-3  # most that an entry of V^T V may be off; float32 bases are within 1e-5


@dataclass(repr=False)
class CapabilitySubspace(Shown):
    """Orthonormal bases of key and value activations, and how they came about.

    Attributes:
        bases: ``(layer, side)`` to ``[kv_dim, r]`` float32, columns by falling singular value, each column's entry of
            largest size positive.
        spectra: ``(layer, side)`` to ``[kv_dim]`` float32, the singular values of G.
        metadata: JSON values; see `choice.subspace_from_moments`.
    """

    bases: dict[SiteKey, Tensor]
    spectra: dict[SiteKey, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def sites(self) -> list[SiteKey]:
        """Every ``(layer, side)`` by layer, K before V."""
        return sorted(self.bases)

    @property
    def layers(self) -> list[int]:
        """Target layers, 0-based, rising."""
        return sorted({layer for layer, _ in self.bases})

    @property
    def sides(self) -> list[Side]:
        """Target sides."""
        return sorted({side for _, side in self.bases})

    @property
    def strength(self) -> float:
        """How much of the projection is applied: 0 none, 1 all."""
        return float(self.metadata.get("strength", 1.0))

    def shown_facts(self) -> dict[str, Any]:
        known, ranks = self.metadata, sorted({basis.shape[1] for basis in self.bases.values()})
        facts: dict[str, Any] = {name: known[name] for name in ("model", "task", "basis") if name in known}
        facts |= {"layers": self.layers, "sides": self.sides}
        facts["rank"] = " to ".join(map(str, (ranks[0], ranks[-1]))) if len(ranks) > 1 else ranks[0] if ranks else None
        return facts | {"kv_dim": sorted({len(b) for b in self.bases.values()}), "strength": self.strength}

    def shown_rows(self) -> list[dict[str, Any]]:
        rows = []
        for layer, side in self.sites:
            squares, rank = self.spectra[layer, side].double().square(), self.bases[layer, side].shape[1]
            share = float(squares[:rank].sum() / squares.sum()) if squares.sum() > 0 else 0.0
            row = {"layer": layer, "side": side, "rank": rank}
            rows.append({**row, "energy of as many leading directions": f"{share:.1%}"})
        return rows

    def basis(self, layer: int, side: Side) -> Tensor:
        """Orthonormal basis ``[kv_dim, r]`` of a site.

        Raises:
            KeyError: If there is none; the sites that exist are named.
        """
        return self._of(self.bases, layer, side)

    def singular_values(self, layer: int, side: Side) -> Tensor:
        """Singular values of G at a site, ``[kv_dim]``, falling.

        Raises:
            KeyError: If there are none.
        """
        return self._of(self.spectra, layer, side)

    def projector(self, layer: int, side: Side) -> Tensor:
        """``(1 - a) I + a V_r V_r^T`` at a site, ``[kv_dim, kv_dim]`` float64 (symmetric: it acts from either side)."""
        basis = self.basis(layer, side).double()
        identity = torch.eye(len(basis), dtype=torch.float64)
        return (1 - self.strength) * identity + self.strength * (basis @ basis.T)

    def _of(self, values: dict[SiteKey, Tensor], layer: int, side: Side) -> Tensor:
        if (layer, side) not in values:
            known = ", ".join(f"({i}, {s!r})" for i, s in self.sites)
            raise KeyError(f"no subspace for layer {layer}, side {side!r}; there is one for {known}")
        return values[layer, side]

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file; equal subspaces give equal bytes (no time, no path is in it)."""
        tensors: dict[str, Tensor] = {}
        for layer, side in self.sites:
            tensors[f"layers.{layer}.{side}.basis"] = self.bases[layer, side].float().contiguous()
            tensors[f"layers.{layer}.{side}.singular_values"] = self.spectra[layer, side].float().contiguous()
        return write_safetensors(path, tensors, self.metadata)

    @classmethod
    def load(cls, path: str | Path) -> CapabilitySubspace:
        """Read what `save` wrote.

        Raises:
            UserError: If there is no such file, or it holds no subspace.
        """
        tensors, metadata = read_safetensors(path, "basis")
        keys = site_keys(tensors, "basis")
        with reading(path, "a capability subspace", ADVICE):
            bases = {key: tensors[f"layers.{key[0]}.{key[1]}.basis"] for key in keys}
            spectra = {key: tensors[f"layers.{key[0]}.{key[1]}.singular_values"] for key in keys}
            found = cls(bases, spectra, metadata)
            if not 0 <= found.strength <= 1:
                raise ValueError(f"its strength is {found.strength}, not 0 to 1")
            for (layer, side), basis in bases.items():
                if basis.ndim != 2 or not basis.is_floating_point() or not torch.isfinite(basis).all():
                    raise ValueError(f"the basis of layer {layer}, side {side} is no finite matrix")
                width = basis.shape[-1]
                if width > len(basis) or spectra[layer, side].shape != basis.shape[:1]:
                    raise ValueError(f"the shapes of layer {layer}, side {side} do not fit")
                if width and (basis.T.double() @ basis.double() - torch.eye(width)).abs().max() > ORTHONORMAL:
                    raise ValueError(f"the columns of layer {layer}, side {side} are not orthonormal")
        return found

    def check_model(self, model: nn.Module | str) -> None:
        """Refuse a model that this subspace was not extracted from.

        Args:
            model: A model in memory (bare or PEFT-wrapped; its K/V weights at the target sites are compared, without
                LoRA), or the fingerprint of model files as `model_fingerprint` gives it.

        Raises:
            UserError: If the model is another one, or lacks a target site, or its kv_dim differs.
        """
        name = self.metadata.get("model", "another model")
        advice = (
            "Extract again with model_name_or_path (--subspace.model_name_or_path) set to this model, or load the "
            "model it belongs to."
        )
        if isinstance(model, str):
            known = self.metadata.get("fingerprint")
            if known is not None and known != model:
                raise UserError(
                    f"The subspace belongs to {name} (fingerprint {known[:16]}), not to the model of fingerprint "
                    f"{model[:16]}. {advice}"
                )
            return
        sites = kv_sites(model)
        for layer, side in self.sites:
            kv_dim = len(self.bases[layer, side])
            found = sites[layer, side].kv_dim if (layer, side) in sites else None
            if found != kv_dim:
                what = f"has kv_dim={found} there" if found else "has no such site"
                raise UserError(
                    f"The subspace belongs to {name}: it was made for layer {layer}, side {side} with "
                    f"kv_dim={kv_dim}, but this {type(model).__name__} {what}. {advice}"
                )
        known = self.metadata.get("weights_digest")
        digest = weights_digest({key: sites[key] for key in self.sites}) if known is not None else None
        if known != digest:
            raise UserError(
                f"The subspace belongs to {name} (K/V weights {str(known)[:16]}), but this {type(model).__name__} has "
                f"other K/V weights ({str(digest)[:16]}), or is already projected. {advice}"
            )
