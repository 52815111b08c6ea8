"""The files of stage 1, moments and subspaces: safetensors with our JSON in the header, read and written here alone.

Tensors are named ``layers.{layer}.{side}.{part}``. No time and no path is written, so equal content gives equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import safe_open

from spd_lightning.artifacts.files import write_atomic
from spd_lightning.artifacts.reading import reading
from spd_lightning.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from spd_lightning.subspace.sites import Side, SiteKey

ADVICE = "Give a file that `extract` wrote."
HEADER = "spd"  # the key of the safetensors header under which our JSON stands


def write_safetensors(path: str | Path, tensors: dict[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write tensors and our header, whole or not at all."""
    from safetensors.torch import save

    return write_atomic(path, save(tensors, metadata={HEADER: json.dumps(metadata, sort_keys=True)}))


def read_safetensors(
    path: str | Path, part: str, framework: Literal["pt", "numpy"] = "pt"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and our header of a safetensors file.

    Args:
        path: The file.
        part: What it must hold.
        framework: ``pt`` for tensors; ``numpy`` for arrays, which a report reads without loading PyTorch.

    Raises:
        UserError: If there is no such file, it is not safetensors, or holds no ``layers.*.<part>``.
    """
    with reading(path, "a safetensors file", ADVICE):
        with safe_open(str(path), framework=framework) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
        for name in tensors:
            if name.startswith("layers.") and not re.fullmatch(r"layers\.\d{1,6}\.[kv]\.\w+", name):
                raise ValueError(f"{name} is no site: layers.<number>.<k or v>.<part>")
    if not isinstance(header, dict) or not site_keys(tensors, part):
        raise UserError(f"{path} holds no {part} of capability subspaces. {ADVICE}")
    return tensors, header


def site_keys(tensors: Mapping[str, Any], part: str) -> list[SiteKey]:
    """The ``(layer, side)`` of every tensor ``layers.{layer}.{side}.{part}``, by layer, K before V."""
    keys: list[SiteKey] = []
    for name in tensors:
        words = name.split(".")
        if len(words) == 4 and words[0] == "layers" and words[3] == part:
            side: Side = "k" if words[2] == "k" else "v"
            keys.append((int(words[1]), side))
    return sorted(keys)
