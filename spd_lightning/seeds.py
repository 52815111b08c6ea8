"""Seeds of random generators, from a hash of what they stand for.

PyTorch's CPU generator keeps the low 32 bits of its seed: numbers that are put together from parts (seed and step side
by side, a multiple of one plus the other) may differ in the others alone. In a hash every bit hangs on every part.
"""

from __future__ import annotations

import hashlib


def seed_of(*parts: str | int) -> int:
    """A seed below 2^63 for ``torch.manual_seed`` and `torch.Generator.manual_seed`; its low 32 bits are a hash too.

    Args:
        parts: What the draw is for, then what tells it from its like, e.g. ``("dropout", seed, step)``. One use shares
            no stream with another: its name comes first.

    >>> seed_of("dropout", 42, 1) % 2**32 == seed_of("dropout", 43, 1) % 2**32
    False
    """
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
