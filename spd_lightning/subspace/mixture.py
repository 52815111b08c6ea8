"""The moments of several tasks as one: each task's gradients count for its weight, however many and large they are.

A task's second moments grow with its examples and tokens, and with how wrong the model is about them, so their plain
sum would be the subspace of the task with the largest gradients. Therefore each is divided by its trace, site by site:

    gram = sum over tasks of weight * G_t^T G_t / trace(G_t^T G_t)

The trace is the sum of the squared singular values: what weight says is a task's share of the energy at every site.
Centred, each task's own mean is subtracted first. One task alone is never divided, and has the subspace it always had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spd_lightning.subspace.moments import Moments, SiteMoments
from spd_lightning.tasks.mix import label

COUNTED = ("num_examples", "num_skipped", "num_cut", "num_tokens", "num_correctness_tokens")


@dataclass
class MixedSite(SiteMoments):
    """One site's moments of several tasks; ``second_moment`` is that of `gram`, ``sum`` has no meaning and is zero.

    Attributes:
        parts: Weight and moments of each task.
    """

    parts: tuple[tuple[float, SiteMoments], ...] = ()

    def gram(self, center: bool) -> Tensor:
        """See the head of the file; ``[kv_dim, kv_dim]``, of trace 1."""
        return _mixed_gram(self.parts, center)

    def without(self, part: SiteMoments) -> SiteMoments:
        """What is left of each task."""
        assert isinstance(part, MixedSite)
        return mixed_site(
            tuple((w, whole.without(less)) for (w, whole), (_, less) in zip(self.parts, part.parts, strict=True))
        )


def _mixed_gram(parts: tuple[tuple[float, SiteMoments], ...], center: bool) -> Tensor:
    total = torch.zeros_like(parts[0][1].second_moment)
    for weight, site in parts:
        gram = site.gram(center)
        if (trace := float(gram.trace())) > 0:
            total += gram * (weight / trace)
    return total


def mixed_site(parts: tuple[tuple[float, SiteMoments], ...]) -> MixedSite:
    """One site of several tasks.

    Args:
        parts: Weight and moments of each; the sum is taken in this order.
    """
    count = sum(site.count for _, site in parts)
    return MixedSite(_mixed_gram(parts, False), torch.zeros_like(parts[0][1].sum), count, parts)


def mixed(found: Mapping[str, Moments], weights: Mapping[str, float]) -> Moments:
    """The moments of all tasks as one; those of a single task as they are.

    Args:
        found: By task, of the same sites.
        weights: By task, in the order in which they are added up; see `mix.weights_of`.
    """
    if len(weights) == 1:
        return found[next(iter(weights))]
    tasks = {name: found[name] for name in weights}
    first = next(iter(tasks.values()))
    sites: dict[Any, SiteMoments] = {
        key: mixed_site(tuple((weights[name], moments.sites[key]) for name, moments in tasks.items()))
        for key in first.sites
    }
    halves = {name: moments.half for name, moments in tasks.items() if moments.half is not None}
    half = mixed(halves, weights) if len(halves) == len(tasks) else None
    return Moments(sites, _metadata(tasks, weights), half)


def _metadata(tasks: Mapping[str, Moments], weights: Mapping[str, float]) -> dict[str, Any]:
    """What all have in common, their counts added up, and under ``tasks`` each one's."""
    parts = {name: moments.metadata for name, moments in tasks.items()}
    if not all(parts.values()):
        return {}
    skipped: Counter[str] = Counter()
    for metadata in parts.values():
        skipped.update(metadata["skipped"])
    own = (*COUNTED, "skipped")
    return {
        **next(iter(parts.values())),
        "task": label(list(weights)),
        **{name: sum(metadata[name] for metadata in parts.values()) for name in COUNTED},
        "skipped": dict(skipped),
        "tasks": {name: {"weight": weights[name], **{k: parts[name][k] for k in own}} for name in weights},
    }
