"""How far subspaces agree: principal angles, what chance gives, names, refusals."""

import pytest
import torch

from spd_lightning.errors import UserError
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.compare import compare_subspaces, principal_angles, short_names
from tests.unit.subspace.moments_by_hand import random_moments


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
