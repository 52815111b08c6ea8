"""Which directions a subspace keeps: rank, centring, basis and strength, decided from second moments without a model.

The capability basis is the r leading right singular vectors of G (arXiv:2605.22675, section 3); a random one and the
trailing vectors are controls of the same rank.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from spd_lightning.artifacts.store import STAGE_VERSION
from spd_lightning.errors import UserError
from spd_lightning.options import energy_share
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.sites import Side, SiteKey
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks.mix import Tasks, label, names_of

Basis = Literal["capability", "random", "complement", "other"]
Rank = int | str


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
            (for r up to kv_dim / 2 orthogonal to the leading ones); ``other``, the leading ones where the moments are
            those of another task (`other_problems`).
        strength: a in ``(1 - a) I + a P``, 0 to 1.
        seed: For ``random`` alone.
        metadata: Joined to that of the moments.

    Returns:
        The subspace. Its metadata holds that of the moments and: layers, sides, rank (an integer where all sites agree,
        else the rule), rank_rule, ranks and energy per site (``"15.k"``), center, basis, strength, version.

    Raises:
        UserError: If rank, basis or strength is not allowed.
    """
    problems = choice_problems(basis, strength)
    if problems:
        raise UserError("\n".join(problems))
    bases: dict[SiteKey, Tensor] = {}
    spectra: dict[SiteKey, Tensor] = {}
    energy: dict[str, float] = {}
    for layer, side in sorted(moments.sites):
        site = moments.sites[layer, side]
        values, vectors = torch.linalg.eigh(site.gram(center))
        singular_values, vectors = values.flip(0).clamp(min=0).sqrt(), vectors.flip(1)
        r = choose_rank(rank, singular_values, layer)
        _warn_if_rank_deficient(r, singular_values, site.count, layer, side)
        if basis in ("capability", "other"):
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


def choice_problems(basis: str, strength: float) -> list[str]:
    """What is wrong with these options, one sentence each; empty if nothing is."""
    problems = []
    if not 0.0 <= strength <= 1.0:
        problems.append(f"strength={strength} is not between 0 and 1. Set --subspace.strength.")
    if basis not in ("capability", "random", "complement", "other"):
        problems.append(
            f"basis={basis!r} is not known. Set --subspace.basis to capability, random, complement or other."
        )
    return problems


def other_problems(basis: str, task: Tasks, basis_task: str | None) -> list[str]:
    """What is wrong with the task of basis ``other``, one sentence each; empty if nothing is."""
    if basis == "other" and basis_task in (None, *names_of(task)):
        return [f"basis=other needs a basis_task other than {label(task)}. Set --subspace.basis_task to one."]
    if basis != "other" and basis_task is not None:
        return [f"basis_task={basis_task} is the task of basis other, and basis={basis}. Set --subspace.basis other."]
    return []


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
