"""Seeds are hashes: what differs in any part differs in the 32 bits that PyTorch's CPU generator keeps."""

from __future__ import annotations

import itertools

import torch

from spd_lightning.seeds import seed_of


def test_parts_that_differ_anywhere_differ_in_the_low_32_bits() -> None:
    parts = list(itertools.product(("dropout", "order"), (0, 42, 43, 2**32, 2**32 + 42), range(50), range(2)))
    seeds = [seed_of(*p) for p in parts]
    assert all(0 <= s < 2**63 for s in seeds)
    assert len({s % 2**32 for s in seeds}) == len(parts)
    draws = {torch.rand(4, generator=torch.Generator().manual_seed(s)).numpy().tobytes() for s in seeds}
    assert len(draws) == len(parts)


def test_a_seed_is_a_function_of_its_parts_alone() -> None:
    assert seed_of("a", 1, 23) == seed_of("a", 1, 23) != seed_of("a", 12, 3)
