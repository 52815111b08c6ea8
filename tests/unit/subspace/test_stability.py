"""Subspaces of two halves of the examples: equal where every example says the same, at chance where none does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.stability import overlap_of_halves

KEY = (1, "k")


def moments(rows: Tensor, half: Tensor) -> Moments:
    found = Moments()
    found.update({KEY: rows}, None, ({KEY: half}, len(half)))  # type: ignore[dict-item]
    return found


def test_overlap_is_one_for_one_signal_and_at_chance_without_any() -> None:
    torch.manual_seed(0)
    signal = torch.randn(400, 4, dtype=torch.float64) @ torch.randn(4, 32, dtype=torch.float64)
    (row,) = overlap_of_halves(moments(signal, signal[::2]), 4, False, "capability")
    assert row["overlap"] == pytest.approx(1.0, abs=1e-9)
    assert (row["layer"], row["side"], row["rank"], row["kv_dim"], row["chance"]) == (1, "k", 4, 32, 4 / 32)
    draws = []
    for _ in range(40):
        noise = torch.randn(400, 32, dtype=torch.float64)
        draws.append(overlap_of_halves(moments(noise, noise[::2]), 8, False, "capability")[0]["overlap"])
    assert sum(draws) / len(draws) == pytest.approx(8 / 32, abs=0.03)


def test_the_complement_of_the_halves_agrees_where_the_subspace_does() -> None:
    torch.manual_seed(1)
    rows = torch.randn(200, 3, dtype=torch.float64) @ torch.randn(3, 8, dtype=torch.float64)
    found = moments(rows, rows[::2])
    assert overlap_of_halves(found, 5, True, "complement")[0]["overlap"] == pytest.approx(1.0, abs=1e-9)
    assert overlap_of_halves(found, 3, False, "random") == []
    assert overlap_of_halves(None, 3, False, "capability") == []


def test_halves_survive_the_file_and_the_rest_is_what_is_left(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(2)
    rows = torch.randn(30, 6, dtype=torch.float64)
    found = moments(rows, rows[:10])
    read = Moments.load(found.save(tmp_path / "moments.safetensors"))
    assert read.half is not None and read.half.sites[KEY].count == 10  # type: ignore[index]
    rest = read.without(read.half).sites[KEY]  # type: ignore[index]
    assert torch.allclose(rest.second_moment, rows[10:].T @ rows[10:], atol=1e-12) and rest.count == 20
    plain = Moments()
    plain.update({KEY: rows})  # type: ignore[dict-item]
    assert Moments.load(plain.save(tmp_path / "plain.safetensors")).half is None
    assert overlap_of_halves(plain, 2, False, "capability") == []
