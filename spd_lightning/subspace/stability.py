"""Whether a subspace hangs on the draw of its calibration examples: the overlap of those of two halves.

The examples are parted by turns in order of length, each half gives moments of its own, and so a subspace of the same
rank. What two random subspaces of that rank would show is printed beside the overlap. Half as many examples find a
subspace less surely than all do, so that of two whole draws is higher.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spd_lightning.subspace.choice import Basis, Rank, choose_rank
from spd_lightning.subspace.compare import compare_bases
from spd_lightning.subspace.moments import Moments, SiteMoments


def overlap_of_halves(whole: Moments | None, rank: Rank, center: bool, basis: Basis) -> list[dict[str, Any]]:
    """Mean squared cosine between the subspaces of two halves of the examples, site by site, JSON values.

    Args:
        whole: Moments of all examples, with those of a half; the other half is the rest. None where none were taken.
        rank: As for the subspace; the rank that all examples choose at a site is taken for both halves.
        center: As for the subspace.
        basis: As for the subspace. One that hangs on no example (random) has no rows, nor have moments without a half.

    Returns:
        ``layer``, ``side``, ``rank``, ``kv_dim``, ``overlap`` (0 to 1), ``chance``.
    """
    half = None if whole is None else whole.half
    if whole is None or half is None or basis == "random":
        return []
    rest = whole.without(half)
    rows = []
    for layer, side in sorted(whole.sites):
        parts = [m.sites[layer, side] for m in (whole, half, rest)]
        if not all(part.second_moment.any() for part in parts[1:]):
            continue  # a half without a gradient has no direction
        spectrum = _directions(parts[0], center)[0]
        r = choose_rank(rank, spectrum, layer)
        a, b = (_directions(part, center)[1] for part in parts[1:])
        chosen = slice(len(spectrum) - r, None) if basis == "complement" else slice(0, r)
        angles, chance = compare_bases(a[:, chosen], b[:, chosen])
        overlap = float(angles.cos().square().mean())
        rows.append(
            {
                "layer": layer,
                "side": side,
                "rank": r,
                "kv_dim": len(spectrum),
                "overlap": overlap,
                "chance": chance,
            }
        )
    return rows


def _directions(site: SiteMoments, center: bool) -> tuple[Tensor, Tensor]:
    """Singular values ``[kv_dim]``, falling, and the right singular vectors as columns."""
    values, vectors = torch.linalg.eigh(site.gram(center))
    return values.flip(0).clamp(min=0).sqrt(), vectors.flip(1)
