"""Streaming second moments of gradient rows: all that a capability subspace needs, whatever the number of tokens.

The right singular vectors of the stacked G ``[M, kv_dim]`` (arXiv:2605.22675, section 3) are the eigenvectors of
``G^T G`` ``[kv_dim, kv_dim]``, which adds up over batches and processes. With the column sum and M it also gives the
centred matrix, so rank, centring and basis are chosen afterwards without running the model again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from spd_lightning.artifacts.reading import reading
from spd_lightning.errors import UserError
from spd_lightning.subspace.files import ADVICE, read_safetensors, site_keys, write_safetensors
from spd_lightning.subspace.sites import SiteKey


@dataclass
class SiteMoments:
    """Moments of one site, all in float64.

    Attributes:
        second_moment: ``G^T G``, ``[kv_dim, kv_dim]``.
        sum: Column sums of G, ``[kv_dim]``.
        count: Rows of G, M in the paper.
    """

    second_moment: Tensor
    sum: Tensor
    count: int

    def gram(self, center: bool) -> Tensor:
        """``G^T G``, or that of G less its column mean, ``[kv_dim, kv_dim]``."""
        if not center or self.count == 0:
            return self.second_moment
        return self.second_moment - torch.outer(self.sum, self.sum) / self.count

    def without(self, part: SiteMoments) -> SiteMoments:
        """The moments of the rows that are not those of ``part``."""
        second, total = self.second_moment - part.second_moment, self.sum - part.sum
        return SiteMoments(second, total, self.count - part.count)


@dataclass
class Moments:
    """Moments of every target site, and how they came about.

    Attributes:
        sites: ``(layer, side)`` to moments.
        metadata: JSON values that go into the file: model, task, settings, statistics.
        half: Moments of every second example alone, which tell whether the subspace hangs on the draw (`stability`);
            None where nobody parted them.
    """

    sites: dict[SiteKey, SiteMoments] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    half: Moments | None = None

    def update(
        self,
        rows: Mapping[SiteKey, Tensor],
        count: int | Mapping[SiteKey, int] | None = None,
        half: tuple[Mapping[SiteKey, Tensor], Mapping[SiteKey, int]] | None = None,
    ) -> None:
        """Add gradient rows.

        Args:
            rows: Per site ``[m, kv_dim]``, any float dtype and device; products are taken in float64 there (on the CPU
                for a device without float64).
            count: Rows of G that these are, of all sites or of each, where rows known to be zero were left out;
                default m.
            half: Those of them that are of every second example, and their count.
        """
        if half is not None:
            self.half = self.half or Moments()
            self.half.update(*half)
        for key, values in rows.items():
            values = values.detach()
            values = values.cpu().double() if values.device.type == "mps" else values.double()
            site = self.sites.get(key)
            if site is None:
                zeros = values.new_zeros(values.shape[1], values.shape[1])
                site = self.sites[key] = SiteMoments(zeros, values.new_zeros(values.shape[1]), 0)
            site.second_moment.addmm_(values.T, values)
            site.sum.add_(values.sum(dim=0))
            if count is None:
                site.count += len(values)
            else:
                site.count += count[key] if isinstance(count, Mapping) else count

    def ensure(self, kv_dims: Mapping[SiteKey, int], device: torch.device | str = "cpu") -> None:
        """Give every site of ``kv_dims`` moments (zero so far), in that order: what a process without a batch needs."""
        if self.half is not None:
            self.half.ensure(kv_dims, device)
        self.sites = {
            key: self.sites.get(key)
            or SiteMoments(
                torch.zeros(kv_dim, kv_dim, dtype=torch.float64, device=device),
                torch.zeros(kv_dim, dtype=torch.float64, device=device),
                0,
            )
            for key, kv_dim in kv_dims.items()
        }

    def merge(self, other: Moments) -> None:
        """Add the moments of other rows of the same sites; halves only where both have one."""
        if self.half is not None and other.half is not None:
            self.half.merge(other.half)
        else:
            self.half = None
        for key, theirs in other.sites.items():
            mine = self.sites.get(key)
            if mine is None:
                self.sites[key] = SiteMoments(theirs.second_moment.clone(), theirs.sum.clone(), theirs.count)
                continue
            mine.second_moment += theirs.second_moment
            mine.sum += theirs.sum
            mine.count += theirs.count

    def without(self, part: Moments) -> Moments:
        """The moments of the rows that are not those of ``part``, which has the same sites."""
        return Moments({key: site.without(part.sites[key]) for key, site in self.sites.items()})

    def all_reduce(self, device: torch.device | str = "cpu", group: dist.ProcessGroup | None = None) -> None:
        """Sum over processes, so that every one holds the moments of all rows; they are on the CPU afterwards.

        Args:
            device: Where the collective runs: the process's GPU for nccl.
            group: Process group; None for the default one.

        Ranks:
            Collective, one call a site: every process must hold the same sites in the same order (`ensure`). Without
            an initialised process group it only moves the moments to the CPU.
        """
        if self.half is not None:
            self.half.all_reduce(device, group)
        distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1
        for site in self.sites.values():
            if distributed:
                kv_dim = len(site.sum)
                count = site.sum.new_tensor([site.count])  # exact in float64 up to 2**53 tokens
                packed = torch.cat([site.second_moment.flatten(), site.sum, count]).to(device)
                dist.all_reduce(packed, group=group)
                packed = packed.cpu()
                site.second_moment = packed[: kv_dim * kv_dim].view(kv_dim, kv_dim).clone()
                site.sum = packed[kv_dim * kv_dim : -1].clone()
                site.count = int(packed[-1])
            else:
                site.second_moment, site.sum = site.second_moment.cpu(), site.sum.cpu()

    def finite(self) -> bool:
        """Whether every entry is finite."""
        return all(bool(torch.isfinite(site.second_moment).all()) for site in self.sites.values())

    def check(self, dtype: str) -> None:
        """Refuse moments that hold no direction.

        Args:
            dtype: Dtype of the forward pass, for the message.

        Raises:
            UserError: If a site's gradients are not finite, or all zero.
        """
        for (layer, side), site in self.sites.items():
            where = f"layer {layer}, side {side}, forward in {dtype}"
            is_float32 = dtype == "float32"
            advice = "Look at its weights." if is_float32 else "Set dtype=float32 (--subspace.dtype)."
            if not torch.isfinite(site.second_moment).all():
                raise UserError(f"The gradients at {where} are not finite. {advice}")
            if site.count and not site.second_moment.any():
                raise UserError(
                    f"The gradients at {where} are all zero: the model is already certain of every token in S, or the "
                    "dtype is too coarse. Set --subspace.dtype=float32, loss=full (--subspace.loss) or another "
                    "task (--subspace.task)."
                )

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file; equal moments give equal bytes."""
        tensors: dict[str, Tensor] = {}
        for part, moments in (("", self), ("half_", self.half)):
            for (layer, side), site in moments.sites.items() if moments is not None else ():
                name = f"layers.{layer}.{side}.{part}"
                tensors[f"{name}second_moment"] = site.second_moment.cpu().contiguous()
                tensors[f"{name}sum"] = site.sum.cpu().contiguous()
                tensors[f"{name}count"] = torch.tensor(site.count, dtype=torch.int64)
        return write_safetensors(path, tensors, self.metadata)

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """Read what `save` wrote.

        Raises:
            UserError: If there is no such file, or it holds no moments.
        """
        tensors, metadata = read_safetensors(path, "second_moment")
        with reading(path, "moments", ADVICE):
            half = cls(_sites_of(tensors, "half_"))
            return cls(_sites_of(tensors, ""), metadata, half if half.sites else None)


def _sites_of(tensors: Mapping[str, Tensor], part: str) -> dict[SiteKey, SiteMoments]:
    """What `Moments.save` wrote of each site: of all examples, or of the half."""
    sites: dict[SiteKey, SiteMoments] = {}
    for layer, side in site_keys(tensors, f"{part}second_moment"):
        name = f"layers.{layer}.{side}.{part}"
        second, total, count = (tensors[f"{name}{what}"] for what in ("second_moment", "sum", "count"))
        sites[layer, side] = SiteMoments(second, total, int(count))
    return sites
