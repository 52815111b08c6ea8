"""A fingerprint covers the whole key and nothing else; what is in the store is found under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from spd_lightning.artifacts.locks import file_lock
from spd_lightning.artifacts.store import ArtifactStore, fingerprint

KEY = {"rank": 8, "layers": [1, 2], "dtype": "float32"}


def test_order_of_the_options_does_not_count_and_their_values_do() -> None:
    first = fingerprint("subspace", **KEY)
    assert first == fingerprint("subspace", **dict(reversed(KEY.items())))
    others = [{**KEY, "rank": 9}, {**KEY, "layers": [2, 1]}, {**KEY, "new": None}]
    assert len({first, fingerprint("moments", **KEY), *(fingerprint("subspace", **key) for key in others)}) == 5


def test_a_stage_without_a_version_has_no_fingerprint() -> None:
    with pytest.raises(KeyError):
        fingerprint("soup", **KEY)


def test_what_a_run_takes_is_held_and_was_used_now(tmp_path: Path) -> None:
    import os

    store = ArtifactStore(tmp_path)
    folder = store.folder("subspace", KEY)
    store.complete(folder, KEY)
    assert ArtifactStore(tmp_path).in_use(folder), "its maker holds it"
    del store
    other = ArtifactStore(tmp_path)
    assert not other.in_use(folder)
    os.utime(folder / "complete.json", (1.0, 1.0))
    assert other.take(folder) is not None and ArtifactStore(tmp_path).in_use(folder)
    assert other.list()[0]["used"] > 1e9
    writing = other.folder("corpus", KEY)
    with file_lock(writing / ".lock", "a writer"):
        assert other.in_use(writing)
    assert not other.in_use(writing)


def test_a_store_that_others_can_write_is_told(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    assert store.open_to_others() is None
    store.root.mkdir()
    assert store.open_to_others() is None
    store.root.chmod(0o777)
    assert "chmod o-w" in str(store.open_to_others())
