"""How fast the device of this process is: matrix products in each dtype, and reading memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spd_lightning.model.packed_linear import packed_linears


@dataclass(frozen=True)
class Machine:
    """Speed of one process's device.

    Attributes:
        flops: Matrix products, operations a second, by dtype.
        bandwidth: Reading memory, bytes a second.
        link: Exchange between processes, bytes a second each way; None where it is not known (then not counted).
        overhead: Memory of a process without a model, bytes.
    """

    flops: Mapping[torch.dtype, float]
    bandwidth: float
    link: float | None = None
    overhead: int = 0


def measure_machine(device: torch.device | str, dtypes: Iterable[torch.dtype]) -> Machine:
    """Measure this machine for about a second: square matrix products in each dtype, and reading a large block."""
    device = torch.device(device)
    size = 1024 if device.type == "cpu" else 4096
    flops = {}
    for dtype in dict.fromkeys(dtypes):
        layer = nn.Linear(size, size, bias=False, device=device, dtype=dtype).requires_grad_(False)
        x = torch.ones(size, size, device=device, dtype=dtype)
        with packed_linears(layer):
            flops[dtype] = 2 * size**3 / _fastest(lambda f=layer, x=x: f(x), device)
    block = torch.ones(2**25, dtype=torch.int64, device=device)
    bandwidth = block.numel() * 8 / _fastest(block.sum, device)
    return Machine(flops, bandwidth, overhead=_resident() if device.type == "cpu" else 2**29)


def _fastest(work: Any, device: torch.device, seconds: float = 0.25) -> float:
    """Least time of one call, over at least three calls and a quarter of a second."""
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 50):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _resident() -> int:
    """Memory of this process now, bytes (libraries are loaded, no model is)."""
    try:
        import resource

        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return 2**29
