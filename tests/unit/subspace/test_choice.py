"""Bases from moments: planted directions, ranks, centring, controls, refusals."""

import warnings

import pytest
import torch

from spd_lightning.errors import UserError
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.compare import principal_angles
from tests.unit.subspace.moments_by_hand import KEY, moments_of, planted, random_moments


def test_planted_low_rank_gradients_are_recovered():
    basis, rows = planted()
    found = subspace_from_moments(moments_of(rows), rank=4)
    assert principal_angles(found.basis(*KEY), basis).max() < 1e-6
    assert found.metadata["energy"]["1.k"] == pytest.approx(1.0)
    exact = torch.linalg.svdvals(rows)
    assert torch.allclose(found.singular_values(*KEY)[:4].double(), exact[:4], rtol=1e-6)


def test_basis_and_spectrum_equal_those_of_the_svd_centred_or_not():
    rows = torch.randn(300, 12, dtype=torch.float64) * torch.linspace(4, 1, 12) + 1.5
    for center in (False, True):
        found = subspace_from_moments(moments_of(rows), rank=5, center=center)
        _, values, vectors = torch.linalg.svd(rows - rows.mean(0) if center else rows, full_matrices=False)
        assert principal_angles(found.basis(*KEY), vectors[:5].T).max() < 1e-6
        assert torch.allclose(found.singular_values(*KEY).double(), values, rtol=1e-6)
        column = found.basis(*KEY)[:, 0].double()
        assert abs(float(column @ vectors[0])) == pytest.approx(1.0, abs=1e-6)  # by falling singular value
    assert found.metadata["center"] is True


def test_columns_are_orthonormal_with_a_positive_peak():
    for kind in ("capability", "random", "complement"):
        basis = subspace_from_moments(random_moments(), basis=kind).basis(*KEY)
        assert basis.dtype == torch.float32 and basis.shape == (16, 8)
        assert torch.allclose(basis.T @ basis, torch.eye(8), atol=1e-6)
        peaks = basis.gather(0, basis.abs().argmax(0, keepdim=True))
        assert (peaks > 0).all()


def test_ranks():
    moments = random_moments()
    assert subspace_from_moments(moments).metadata["rank"] == 8
    assert subspace_from_moments(moments, rank=3).basis(*KEY).shape == (16, 3)
    assert subspace_from_moments(moments, rank="3").basis(*KEY).shape == (16, 3)
    found = subspace_from_moments(moments, rank="energy:0.8")
    for key in found.sites:
        energy = found.singular_values(*key).double().square()
        share = energy.cumsum(0) / energy.sum()
        r = found.basis(*key).shape[1]
        assert share[r - 1] >= 0.8 > share[r - 2]
        assert found.metadata["energy"][f"1.{key[1]}"] == pytest.approx(float(share[r - 1]), abs=1e-6)
    assert subspace_from_moments(moments, rank="energy:1").basis(*KEY).shape[1] >= 15


@pytest.mark.parametrize("rank", [0, -2, 17, "most", "energy:0", "energy:1.5", "energy:x", "0.95", True])
def test_ranks_that_are_not_allowed(rank):
    with pytest.raises(UserError, match=f"rank={rank!r}[ :]"):
        subspace_from_moments(random_moments(), rank=rank)


def test_other_options_that_are_not_allowed():
    with pytest.raises(UserError, match="basis='another'"):
        subspace_from_moments(random_moments(), basis="another")
    with pytest.raises(UserError, match=r"strength=1.5 is not between"):
        subspace_from_moments(random_moments(), strength=1.5)


def test_rank_above_the_numerical_rank_warns_with_the_rank_that_carries_the_energy():
    _, rows = planted()
    with pytest.warns(UserWarning, match=r"rank=8 exceeds the numerical rank 4 of the 200 .*Rank [123] carries 95%"):
        subspace_from_moments(moments_of(rows), rank=8)
    with pytest.warns(UserWarning, match="numerical rank 3 of the 3"):
        subspace_from_moments(moments_of(torch.randn(3, 16)), rank=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subspace_from_moments(moments_of(rows), rank=4)


def test_controls_have_the_same_rank_and_are_seeded():
    moments = random_moments()
    leading, trailing = subspace_from_moments(moments), subspace_from_moments(moments, basis="complement")
    assert (leading.basis(*KEY).T @ trailing.basis(*KEY)).abs().max() < 1e-6
    one = subspace_from_moments(moments, basis="random", seed=1)
    assert torch.equal(one.basis(*KEY), subspace_from_moments(moments, basis="random", seed=1).basis(*KEY))
    assert not torch.equal(one.basis(*KEY), subspace_from_moments(moments, basis="random", seed=2).basis(*KEY))
    assert not torch.equal(one.basis(*KEY), one.basis(1, "v"))
    assert one.metadata["basis_seed"] == 1 and "basis_seed" not in leading.metadata
    assert leading.metadata["energy"]["1.k"] > one.metadata["energy"]["1.k"] > trailing.metadata["energy"]["1.k"]
