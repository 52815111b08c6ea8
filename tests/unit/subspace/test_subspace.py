"""Bases from moments: planted directions, ranks, controls, files, refusals, comparison."""

import json
import warnings

import matplotlib.image
import pytest
import torch

from spd_lightning.errors import UserError
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.compare import (
    compare_subspaces,
    comparison_table,
    plot_comparison,
    principal_angles,
    short_names,
)
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.sites import kv_sites, weights_digest
from spd_lightning.subspace.subspace import CapabilitySubspace
from tests.conftest import tiny_model

KEY = (1, "k")


def moments_of(rows, key=KEY, **metadata):
    moments = Moments(metadata=metadata)
    moments.update({key: rows})
    return moments


def random_moments(kv_dim=16, seed=0, sites=(KEY, (1, "v")), **metadata):
    moments = Moments(metadata=metadata)
    generator = torch.Generator().manual_seed(seed)
    for key in sites:
        scale = torch.linspace(3, 1, kv_dim)
        moments.update({key: torch.randn(100, kv_dim, generator=generator) * scale})
    return moments


def planted(kv_dim=16, rank=4, rows=200):
    basis = torch.linalg.qr(torch.randn(kv_dim, rank, dtype=torch.float64)).Q
    return basis, torch.randn(rows, rank, dtype=torch.float64) * torch.tensor([8.0, 4, 2, 1]) @ basis.T


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


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_projector_is_symmetric_and_never_grows_a_vector(strength):
    subspace = subspace_from_moments(random_moments(), strength=strength)
    projector = subspace.projector(*KEY)
    assert torch.allclose(projector, projector.T)
    x = torch.randn(100, 16, dtype=torch.float64)
    assert ((x @ projector).norm(dim=1) <= x.norm(dim=1) * (1 + 1e-6)).all()
    if strength == 1.0:
        assert torch.allclose(projector @ projector, projector, atol=1e-6)
    inside = x @ subspace_from_moments(random_moments(), strength=1.0).projector(*KEY)
    assert torch.allclose(inside @ projector, inside, atol=1e-5)


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
    with pytest.raises(UserError, match=f"rank={rank!r} "):
        subspace_from_moments(random_moments(), rank=rank)


def test_other_options_that_are_not_allowed():
    with pytest.raises(UserError, match="basis='other'"):
        subspace_from_moments(random_moments(), basis="other")
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


def test_file_is_the_contract_and_repeats_bit_for_bit(tmp_path):
    from safetensors import safe_open

    moments = random_moments(model="m", fingerprint="f", task="gsm8k", num_tokens=100)
    subspace = subspace_from_moments(moments, rank=3, strength=0.5)
    path = subspace.save(tmp_path / "subspace.safetensors")
    with safe_open(str(path), framework="pt") as file:
        assert sorted(file.keys()) == [
            "layers.1.k.basis",
            "layers.1.k.singular_values",
            "layers.1.v.basis",
            "layers.1.v.singular_values",
        ]
        metadata = json.loads(file.metadata()["spd"])
        assert file.get_tensor("layers.1.k.basis").shape == (16, 3)
        assert file.get_tensor("layers.1.k.singular_values").dtype == torch.float32
    assert metadata == subspace.metadata and metadata["rank"] == 3 and metadata["sides"] == "kv"
    loaded = CapabilitySubspace.load(path)
    assert torch.equal(loaded.basis(*KEY), subspace.basis(*KEY)) and loaded.strength == 0.5
    assert loaded.save(tmp_path / "again").read_bytes() == path.read_bytes()
    assert subspace_from_moments(moments, rank=3, strength=0.5).save(tmp_path / "b").read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match="holds no basis"):
        CapabilitySubspace.load(moments.save(tmp_path / "moments"))


def test_absent_site_names_those_that_exist():
    with pytest.raises(KeyError, match=r"no subspace for layer 7, side 'k'; there is one for \(1, 'k'\), \(1, 'v'\)"):
        subspace_from_moments(random_moments()).basis(7, "k")


def test_another_model_is_refused():
    model = tiny_model()
    digest = weights_digest({k: s for k, s in kv_sites(model).items() if k[0] == 1})
    subspace = subspace_from_moments(random_moments(model="mine", fingerprint="a" * 64, weights_digest=digest))
    subspace.check_model(model)
    subspace.check_model("a" * 64)
    with pytest.raises(
        UserError, match=r"belongs to mine .fingerprint aaaaaaaaaaaaaaaa., .* fingerprint bbbbbbbbbbbbbbbb"
    ):
        subspace.check_model("b" * 64)
    with pytest.raises(UserError, match=r"belongs to mine .*this LlamaForCausalLM has other K/V weights"):
        subspace.check_model(tiny_model(seed=1))
    with pytest.raises(UserError, match=r"layer 1, side k with kv_dim=16, .*has kv_dim=8 there"):
        subspace.check_model(tiny_model(num_key_value_heads=1))
    with pytest.raises(UserError, match=r"layer 1, side k .* has no such site"):
        subspace.check_model(tiny_model(num_hidden_layers=1))


def test_principal_angles_of_known_planes():
    a = torch.eye(4, dtype=torch.float64)[:, :2]
    tilt = 1e-9
    b = torch.stack(
        [a[:, 0], torch.cos(torch.tensor(0.3)) * a[:, 1] + torch.sin(torch.tensor(0.3)) * torch.eye(4)[2]], 1
    )
    assert torch.allclose(principal_angles(a, b), torch.tensor([0, 0.3], dtype=torch.float64), atol=1e-7)
    c = a.clone()
    c[3, 1] = tilt
    assert principal_angles(a, c)[1] == pytest.approx(tilt, rel=1e-6)
    assert principal_angles(a, torch.eye(4)[:, 2:]).tolist() == pytest.approx([torch.pi / 2] * 2)
    assert principal_angles(a, a[:, :1]).tolist() == [0.0]


def test_principal_angles_agree_with_scipy():
    from scipy.linalg import subspace_angles

    a, b = torch.linalg.qr(torch.randn(12, 5)).Q, torch.linalg.qr(torch.randn(12, 3)).Q
    assert principal_angles(a, b).flip(0).tolist() == pytest.approx(subspace_angles(a.numpy(), b.numpy()), abs=1e-6)


def test_random_subspaces_meet_the_random_expectation():
    subspaces = {
        str(i): subspace_from_moments(random_moments(kv_dim=32), rank=8, basis="random", seed=i) for i in range(8)
    }
    rows = compare_subspaces(subspaces)
    assert len(rows) == 28 * 2
    assert rows[0].random_expectation == 0.25
    assert sum(r.mean_squared_cosine for r in rows) / len(rows) == pytest.approx(0.25, abs=0.02)


def test_comparison_table_and_heat_map(tmp_path):
    moments = random_moments()
    subspaces = {"gsm8k": subspace_from_moments(moments), "mbpp": subspace_from_moments(moments, rank=4)}
    rows = compare_subspaces(subspaces)
    assert [(r.layer, r.side) for r in rows] == [(1, "k"), (1, "v")]
    assert rows[0].mean_squared_cosine == pytest.approx(1.0) and rows[0].grassmann_distance < 1e-6
    assert "| gsm8k | mbpp | 1 | k | 8/4 of 16 | 1.0000 | 0.5000 | 1.0000 |" in comparison_table(rows)
    assert json.dumps(rows[0].as_dict())
    assert plot_comparison(rows, tmp_path / "plots" / "compare.png").stat().st_size > 5000
    sites = [(layer, side) for layer in range(5) for side in "kv"]
    many = {str(i): subspace_from_moments(random_moments(seed=i, sites=sites)) for i in range(2)}
    image = matplotlib.image.imread(plot_comparison(compare_subspaces(many), tmp_path / "many.png"))
    assert image.shape[1] < 2000, "ten sites stand in rows of four"


def test_short_names_keep_what_tells_paths_apart():
    assert short_names(["a/x/s.bin", "a/y/s.bin", "a/y/z/s.bin"]) == ["x", "y", "y/z"]
    assert short_names(["runs/one/s.bin", "runs/one"]) == ["one/s.bin", "one"]
    assert short_names(["/tmp/s.bin", "s.bin"]) == ["/tmp/s.bin", "s.bin"]
    assert short_names(["s", "s"]) == ["s", "s"]


def test_subspaces_that_cannot_be_compared():
    one = subspace_from_moments(random_moments())
    with pytest.raises(UserError, match="at least two subspaces, found 1"):
        compare_subspaces({"a": one})
    with pytest.raises(UserError, match=r"a and b share no site: layers \[1\], .* layers \[2\]"):
        compare_subspaces({"a": one, "b": subspace_from_moments(random_moments(sites=[(2, "k")]))})
    with pytest.raises(UserError, match="a has kv_dim=16 at layer 1, b kv_dim=8"):
        compare_subspaces({"a": one, "b": subspace_from_moments(random_moments(kv_dim=8))})
