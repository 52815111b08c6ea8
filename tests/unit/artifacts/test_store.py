"""A fingerprint covers the whole key and nothing else; what is in the store is found under it."""

from __future__ import annotations

import pytest

from spd_lightning.artifacts.store import fingerprint

KEY = {"rank": 8, "layers": [1, 2], "dtype": "float32"}


def test_order_of_the_options_does_not_count_and_their_values_do() -> None:
    first = fingerprint("subspace", **KEY)
    assert first == fingerprint("subspace", **dict(reversed(KEY.items())))
    others = [{**KEY, "rank": 9}, {**KEY, "layers": [2, 1]}, {**KEY, "new": None}]
    assert len({first, fingerprint("moments", **KEY), *(fingerprint("subspace", **key) for key in others)}) == 5


def test_a_stage_without_a_version_has_no_fingerprint() -> None:
    with pytest.raises(KeyError):
        fingerprint("soup", **KEY)
