"""Moments made by hand, for the tests of this folder."""

import torch

from spd_lightning.subspace.moments import Moments

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
