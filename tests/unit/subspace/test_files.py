"""Files of stage 1: equal content gives equal bytes, and another file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spd_lightning.errors import UserError
from spd_lightning.subspace.files import read_safetensors, site_keys, write_safetensors

TENSORS = {"layers.10.v.basis": torch.eye(3), "layers.2.k.basis": torch.ones(2), "layers.2.v.basis": torch.ones(1)}


def test_tensors_and_header_come_back_and_bytes_are_those_of_the_content(tmp_path: Path) -> None:
    first = write_safetensors(tmp_path / "a", TENSORS, {"rank": 3, "layers": [2, 10]})
    second = write_safetensors(tmp_path / "b", dict(reversed(TENSORS.items())), {"layers": [2, 10], "rank": 3})
    assert first.read_bytes() == second.read_bytes()
    tensors, metadata = read_safetensors(first, "basis")
    assert metadata == {"rank": 3, "layers": [2, 10]}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_sites_are_in_order_of_layers_k_before_v() -> None:
    assert site_keys({**TENSORS, "layers.3.k.sum": torch.ones(1)}, "basis") == [(2, "k"), (2, "v"), (10, "v")]


@pytest.mark.parametrize(
    "name", ["layers.2.q.basis", "layers.-1.k.basis", "layers.x.v.basis", "layers.2.k", "layers.2"]
)
def test_a_site_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    """A side q was read as v."""
    path = write_safetensors(tmp_path / "other", {**TENSORS, name: torch.ones(4, 2)}, {})
    with pytest.raises(UserError, match=f"{name} is no site"):
        read_safetensors(path, "basis")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tensors")
    save_file(TENSORS, tmp_path / "no-header")
    for name, part, words in (("text", "basis", "cannot be read"), ("no-header", "basis", "holds no basis")):
        with pytest.raises(UserError, match=words):
            read_safetensors(tmp_path / name, part)
    whole = write_safetensors(tmp_path / "whole", TENSORS, {})
    with pytest.raises(UserError, match="holds no second_moment"):
        read_safetensors(whole, "second_moment")
    with pytest.raises(UserError, match=r"absent does not exist\. Give a file"):
        read_safetensors(tmp_path / "absent", "basis")
