"""The capability subspace: an orthonormal basis per K/V site, chosen from second moments, saved, loaded, checked.

Shapes, here and in all of ``subspace/``: ``b`` batch, ``s`` sequence, ``kv_dim`` features of a site, ``r`` rank, ``M``
calibration tokens. The projector is ``P = V_r V_r^T`` with the r leading right singular vectors of G (arXiv:2605.22675,
section 3); with ``strength`` a it acts as ``(1 - a) I + a P``.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from spd_lightning.artifacts.files import write_atomic
from spd_lightning.artifacts.store import STAGE_VERSION
from spd_lightning.errors import UserError
from spd_lightning.subspace.moments import HEADER, Moments, read_safetensors, site_keys
from spd_lightning.subspace.sites import Side, SiteKey, kv_sites, weights_digest

Basis = Literal["capability", "random", "complement"]
Rank = int | str


@dataclass
class CapabilitySubspace:
    """Orthonormal bases of key and value activations, and how they came about.

    Attributes:
        bases: ``(layer, side)`` to ``[kv_dim, r]`` float32, columns by falling singular value, each column's entry of
            largest size positive.
        spectra: ``(layer, side)`` to ``[kv_dim]`` float32, the singular values of G.
        metadata: JSON values; see `subspace_from_moments`.
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
        return write_atomic(path, save(tensors, metadata={HEADER: json.dumps(self.metadata, sort_keys=True)}))

    @classmethod
    def load(cls, path: str | Path) -> CapabilitySubspace:
        """Read what `save` wrote.

        Raises:
            UserError: If there is no such file, or it holds no subspace.
        """
        tensors, metadata = read_safetensors(path, "basis")
        keys = site_keys(tensors, "basis")
        bases = {key: tensors[f"layers.{key[0]}.{key[1]}.basis"] for key in keys}
        spectra = {key: tensors[f"layers.{key[0]}.{key[1]}.singular_values"] for key in keys}
        return cls(bases, spectra, metadata)

    def check_model(self, model: nn.Module | str) -> None:
        """Refuse a model that this subspace was not extracted from.

        Args:
            model: A model in memory (bare or PEFT-wrapped; its K/V weights at the target sites are compared, without
                LoRA), or the fingerprint of model files as `model_fingerprint` gives it.

        Raises:
            UserError: If the model is another one, or lacks a target site, or its kv_dim differs.
        """
        name = self.metadata.get("model", "another model")
        advice = "Extract again with --subspace.model_name_or_path set to this model, or load the model it belongs to."
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


def subspace_from_moments(
    moments: Moments,
    rank: Rank = "half",
    center: bool = False,
    basis: Basis = "capability",
    strength: float = 1.0,
    seed: int = 42,
    metadata: Mapping[str, Any] | None = None,
) -> CapabilitySubspace:
    """Choose a basis per site.

    Args:
        moments: Second moments of the gradient rows.
        rank: ``half`` (kv_dim // 2, the paper), an integer, or ``energy:x``: the smallest rank whose leading singular
            values hold the share x of the squared ones. Each site for itself.
        center: Subtract the column mean of G first ([reference script]); the paper does not.
        basis: ``capability``: the r leading right singular vectors. Controls of the same rank: ``random``, the column
            space of a Gaussian matrix seeded by (seed, layer, side); ``complement``, the r trailing singular vectors
            (for r up to kv_dim / 2 orthogonal to the leading ones).
        strength: a in ``(1 - a) I + a P``, 0 to 1.
        seed: For ``random`` alone.
        metadata: Joined to that of the moments.

    Returns:
        The subspace. Its metadata holds that of the moments and: layers, sides, rank (an integer where all sites agree,
        else the rule), rank_rule, ranks and energy per site (``"15.k"``), center, basis, strength, version.

    Raises:
        UserError: If rank, basis or strength is not allowed.
    """
    if basis not in ("capability", "random", "complement"):
        raise UserError(f"basis={basis!r} is not known. Set --subspace.basis to capability, random or complement.")
    if not 0.0 <= strength <= 1.0:
        raise UserError(f"strength={strength} is not between 0 and 1. Set --subspace.strength.")
    bases: dict[SiteKey, Tensor] = {}
    spectra: dict[SiteKey, Tensor] = {}
    energy: dict[str, float] = {}
    for layer, side in sorted(moments.sites):
        site = moments.sites[layer, side]
        values, vectors = torch.linalg.eigh(site.gram(center))
        singular_values, vectors = values.flip(0).clamp(min=0).sqrt(), vectors.flip(1)
        r = choose_rank(rank, singular_values, layer)
        _warn_if_rank_deficient(r, singular_values, site.count, layer, side)
        if basis == "capability":
            chosen = vectors[:, :r]
        elif basis == "complement":
            chosen = vectors[:, -r:]
        else:
            chosen = _random_basis(len(values), r, seed, layer, side)
        bases[layer, side] = _positive_peaks(chosen).float().contiguous()
        spectra[layer, side] = singular_values.float()
        captured = (chosen * (site.gram(center) @ chosen)).sum() / values.clamp(min=0).sum()
        energy[f"{layer}.{side}"] = round(float(captured), 12)
    ranks = {f"{layer}.{side}": basis_.shape[1] for (layer, side), basis_ in bases.items()}
    facts = {
        **moments.metadata,
        **(metadata or {}),
        "layers": sorted({layer for layer, _ in bases}),
        "sides": "".join(sorted({side for _, side in bases})),
        "rank": next(iter(ranks.values())) if len(set(ranks.values())) == 1 else rank,
        "rank_rule": rank,
        "ranks": ranks,
        "energy": energy,
        "center": center,
        "basis": basis,
        "strength": strength,
        "version": STAGE_VERSION["subspace"],
    }
    if basis == "random":
        facts["basis_seed"] = seed
    return CapabilitySubspace(bases, spectra, facts)


def choose_rank(rank: Rank, singular_values: Tensor, layer: int, detail: str = "") -> int:
    """The rank of a site.

    Args:
        rank: ``half``, an integer, or ``energy:x`` with 0 < x <= 1.
        singular_values: ``[kv_dim]``, falling.
        layer: For the message.
        detail: What kv_dim is made of, for the message.

    Raises:
        UserError: For another word, or a number out of range.
    """
    kv_dim = len(singular_values)
    if isinstance(rank, str) and rank.isdigit():
        rank = int(rank)
    if rank == "half":
        return max(1, kv_dim // 2)
    if isinstance(rank, int) and not isinstance(rank, bool):
        if rank > kv_dim:
            raise UserError(
                f"rank={rank} exceeds kv_dim={kv_dim} of layer {layer}{detail}. "
                f"Set --subspace.rank to at most {kv_dim}."
            )
        if rank < 1:
            raise UserError(f"rank={rank} keeps nothing. Set --subspace.rank to 1 up to {kv_dim}.")
        return rank
    share = energy_share(rank)
    energy = singular_values.double().square().cumsum(0)
    return min(kv_dim, int((energy < share * energy[-1]).sum()) + 1)


def energy_share(rank: Rank) -> float:
    """x of ``energy:x``.

    Raises:
        UserError: If that is not what ``rank`` is.
    """
    try:
        word, share = str(rank).split(":")
        value = float(share)
    except ValueError:
        word, value = "", 0.0
    if word != "energy" or not 0.0 < value <= 1.0:
        raise UserError(f"rank={rank!r} is not known. Set --subspace.rank to half, an integer, or energy:0.95.")
    return value


def _warn_if_rank_deficient(rank: int, singular_values: Tensor, count: int, layer: int, side: Side) -> None:
    tolerance = float(singular_values[0]) * len(singular_values) * torch.finfo(torch.float32).eps
    numerical = min(int((singular_values > tolerance).sum()), count)
    if rank > numerical:
        carries = choose_rank("energy:0.95", singular_values, layer)
        warnings.warn(
            f"rank={rank} exceeds the numerical rank {numerical} of the {count} gradient rows at layer {layer}, side "
            f"{side}: the last {rank - numerical} directions are arbitrary. Rank {carries} carries 95% of the energy; "
            f"set --subspace.rank to at most {numerical}, or use more examples.",
            stacklevel=3,
        )


def _random_basis(kv_dim: int, rank: int, seed: int, layer: int, side: Side) -> Tensor:
    digest = hashlib.sha256(f"{seed}:{layer}:{side}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    gaussian = torch.randn(kv_dim, rank, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(gaussian).Q


def _positive_peaks(basis: Tensor) -> Tensor:
    """Flip columns so that the entry of largest size is positive: a singular vector has no sign of its own."""
    peaks = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))
    return basis * torch.where(peaks < 0, -1.0, 1.0)
