"""A subspace: its projector, its file, and the model it belongs to."""

import json

import pytest
import torch

from spd_lightning.errors import UserError
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.sites import kv_sites, weights_digest
from spd_lightning.subspace.subspace import CapabilitySubspace
from tests.conftest import tiny_model
from tests.unit.subspace.moments_by_hand import KEY, random_moments


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


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda s: s.metadata.update(strength=7), "its strength is 7.0, not 0 to 1"),
        (lambda s: s.metadata.update(strength="much"), "could not convert string to float"),
        (lambda s: s.metadata.update(strength=float("nan")), "its strength is nan"),
        (lambda s: s.bases.update({KEY: torch.full((8, 2), torch.nan)}), "is no finite matrix"),
        (lambda s: s.bases.update({KEY: torch.ones(8)}), "is no finite matrix"),
        (lambda s: s.bases.update({KEY: torch.ones(2, 8)}), "do not fit"),
        (lambda s: s.spectra.update({KEY: torch.ones(3)}), "do not fit"),
        (lambda s: s.bases.update({KEY: 1.01 * torch.eye(8)[:, :2]}), "are not orthonormal"),
    ],
)
def test_a_file_that_holds_no_subspace_is_refused_at_load(change, what, tmp_path) -> None:  # type: ignore[no-untyped-def]
    subspace = CapabilitySubspace({KEY: torch.eye(8)[:, :2].contiguous()}, {KEY: torch.ones(8)})
    CapabilitySubspace.load(subspace.save(tmp_path / "whole"))
    change(subspace)
    with pytest.raises(UserError, match=f"cannot be read as a capability subspace .*{what}"):
        CapabilitySubspace.load(subspace.save(tmp_path / "file"))
