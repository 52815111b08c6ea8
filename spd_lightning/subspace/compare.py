"""How far subspaces agree, site by site, and how far random ones would.

For orthonormal bases A ``[d, p]`` and B ``[d, q]`` the cosines of the principal angles are the singular values of
``A^T B``. Two random subspaces have an expected mean squared cosine of ``max(p, q) / d`` (r / kv_dim for equal rank r):
only what lies above it is signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spd_lightning.errors import UserError
from spd_lightning.subspace.sites import Side, SiteKey
from spd_lightning.subspace.subspace import CapabilitySubspace


@dataclass(frozen=True, kw_only=True)
class SiteComparison:
    """Two subspaces at one site.

    Attributes:
        a, b: Names of the subspaces.
        layer, side: The site.
        kv_dim: Width of the site.
        rank_a, rank_b: Their ranks.
        mean_squared_cosine: 1 for equal (or nested) subspaces, 0 for orthogonal ones.
        random_expectation: The same of two random subspaces of these ranks.
        smallest_cosine: Cosine of the largest principal angle.
        grassmann_distance: 2-norm of the principal angles, radians.
        angles: Principal angles, radians, rising, ``min(rank_a, rank_b)`` of them.
    """

    a: str
    b: str
    layer: int
    side: Side
    kv_dim: int
    rank_a: int
    rank_b: int
    mean_squared_cosine: float
    random_expectation: float
    smallest_cosine: float
    grassmann_distance: float
    angles: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """Principal angles between two column spaces, rising, exact for small angles too.

    Args:
        a: Orthonormal columns ``[d, p]``.
        b: Orthonormal columns ``[d, q]``.

    Returns:
        ``[min(p, q)]`` float64, radians. Cosines alone would lose angles under 1e-8, so sines are taken as well
        (Bjorck and Golub, 1973).
    """
    a, b = torch.linalg.qr(a.double()).Q, torch.linalg.qr(b.double()).Q
    if a.shape[1] < b.shape[1]:
        a, b = b, a
    overlap = a.T @ b
    cosines = torch.linalg.svdvals(overlap)
    sines = torch.linalg.svdvals(b - a @ overlap)[: b.shape[1]].flip(0)
    return torch.atan2(sines, cosines)


def compare_bases(a: Tensor, b: Tensor) -> tuple[Tensor, float]:
    """Principal angles of two bases, and the mean squared cosine that random ones of their ranks would have."""
    return principal_angles(a, b), max(a.shape[1], b.shape[1]) / a.shape[0]


def short_names(paths: Sequence[str]) -> list[str]:
    """Paths without the parts that all of them begin or end with.

    >>> short_names(["runs/gsm8k/subspace/s.safetensors", "runs/mbpp/subspace/s.safetensors"])
    ['gsm8k', 'mbpp']
    """
    parts = [Path(path).parts for path in paths]
    for end in (0, -1):
        while min(map(len, parts)) > 1 and len({part[end] for part in parts}) == 1:
            parts = [part[1:] if end == 0 else part[:-1] for part in parts]
    return [str(Path(*part)) for part in parts]


def compare_subspaces(subspaces: Mapping[str, CapabilitySubspace]) -> list[SiteComparison]:
    """Compare every pair of subspaces at every site they share.

    Args:
        subspaces: Name to subspace, two or more.

    Raises:
        UserError: If there are fewer than two, two share no site, or their kv_dim differs.
    """
    if len(subspaces) < 2:
        raise UserError(f"compare needs at least two subspaces, found {len(subspaces)}. Give two or more files.")
    rows = []
    for (name_a, a), (name_b, b) in combinations(subspaces.items(), 2):
        shared: list[SiteKey] = sorted(set(a.sites) & set(b.sites))
        if not shared:
            raise UserError(
                f"{name_a} and {name_b} share no site: layers {a.layers}, sides {a.sides} there, layers {b.layers}, "
                f"sides {b.sides} here. Extract both with the same --subspace.layers and --subspace.sides."
            )
        for layer, side in shared:
            basis_a, basis_b = a.basis(layer, side), b.basis(layer, side)
            if len(basis_a) != len(basis_b):
                raise UserError(
                    f"{name_a} has kv_dim={len(basis_a)} at layer {layer}, {name_b} kv_dim={len(basis_b)}: they belong "
                    "to models of different shape. Compare subspaces of one architecture."
                )
            angles, expected = compare_bases(basis_a, basis_b)
            rows.append(
                SiteComparison(
                    a=name_a,
                    b=name_b,
                    layer=layer,
                    side=side,
                    kv_dim=len(basis_a),
                    rank_a=basis_a.shape[1],
                    rank_b=basis_b.shape[1],
                    mean_squared_cosine=float(angles.cos().square().mean()),
                    random_expectation=expected,
                    smallest_cosine=float(angles.cos().min()),
                    grassmann_distance=float(angles.norm()),
                    angles=tuple(angles.tolist()),
                )
            )
    return rows
