"""A fingerprint covers the whole key and nothing else; what is in the store is found under it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.files import write_atomic
from spd_lightning.artifacts.locks import file_lock
from spd_lightning.artifacts.store import ArtifactStore, fingerprint

HOLDS = """
import sys
from spd_lightning.artifacts.locks import file_lock
with file_lock(sys.argv[1], "x"):
    print(flush=True)
    input()
"""
KEY = {"rank": 8, "layers": [1, 2], "dtype": "float32"}


def in_use(store: ArtifactStore, folder: Path) -> bool:
    """Whether a run holds an artifact (`take`), or writes it."""
    with store._unless_used(folder) as free:
        return not free


def test_order_of_the_options_does_not_count_and_their_values_do() -> None:
    first = fingerprint("subspace", **KEY)
    assert first == fingerprint("subspace", **dict(reversed(KEY.items())))
    others = [{**KEY, "rank": 9}, {**KEY, "layers": [2, 1]}, {**KEY, "new": None}]
    assert len({first, fingerprint("moments", **KEY), *(fingerprint("subspace", **key) for key in others)}) == 5


def test_a_stage_without_a_version_has_no_fingerprint() -> None:
    with pytest.raises(KeyError):
        fingerprint("soup", **KEY)


def test_what_a_run_takes_is_held_and_was_used_now(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    folder = store.folder("subspace", KEY)
    store.complete(folder, KEY)
    assert in_use(ArtifactStore(tmp_path), folder), "its maker holds it"
    del store
    other = ArtifactStore(tmp_path)
    assert not in_use(other, folder)
    os.utime(folder / "complete.json", (1.0, 1.0))
    assert other.take(folder) is not None and in_use(ArtifactStore(tmp_path), folder)
    assert other.list()[0]["used"] > 1e9
    writing = other.folder("corpus", KEY)
    with file_lock(writing / ".lock", "a writer"):
        assert in_use(other, writing)
    assert not in_use(other, writing)


def test_a_store_that_others_can_write_is_told(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    assert store.open_to_others() is None
    store.root.mkdir()
    assert store.open_to_others() is None
    store.root.chmod(0o777)
    assert "chmod o-w" in str(store.open_to_others())


def made(store: ArtifactStore, key: dict[str, Any], content: str = "whole") -> Path:
    folder = store.folder("moments", key)
    write_atomic(folder / "moments.txt", content)
    store.complete(folder, key)
    return folder


def test_of_two_that_make_one_artifact_the_second_waits_and_takes_it(tmp_path: Path) -> None:
    folder = ArtifactStore(tmp_path).folder("moments", {})
    first, second = threading.Event(), []

    def wait() -> None:
        first.wait(timeout=30)
        with ArtifactStore(tmp_path).writing(folder) as wanted:
            second.append(wanted)

    other = threading.Thread(target=wait)
    other.start()
    with (store := ArtifactStore(tmp_path)).writing(folder) as wanted:
        first.set()
        time.sleep(0.1)
        assert wanted and not second
        made(store, {})
    other.join(timeout=30)
    assert second == [False] and sorted(p.name for p in folder.iterdir()) == ["complete.json", "moments.txt"]


def test_what_another_set_aside_and_made_anew_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    store, other = (ArtifactStore(tmp_path, said.append) for _ in range(2))
    folder = made(store, {})
    (folder / "moments.txt").write_text("flipped")

    @contextlib.contextmanager
    def late(*_: Any) -> Iterator[None]:
        monkeypatch.undo()
        assert other.take(folder) is None
        made(other, {})
        yield

    monkeypatch.setattr("spd_lightning.artifacts.store.waited_lock", late)
    assert store.take(folder) is None and len(said) == 1
    assert store.take(folder) is not None and len(list(tmp_path.glob("*.damaged*"))) == 1
    assert store.set_aside(tmp_path / "moments-gone", "x").name == "moments-gone.damaged", "another did"


def test_an_artifact_that_is_written_once_more_is_not_damaged(tmp_path: Path) -> None:
    """Between its file and its record another process has it."""
    folder = made(ArtifactStore(tmp_path), {})
    (folder / "moments.txt").write_text("the last digit differs on another number of threads")
    command = [sys.executable, "-c", HOLDS, str(folder / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert ArtifactStore(tmp_path).take(folder) is None and folder.is_dir()
        other.communicate("\n")
    assert ArtifactStore(tmp_path).take(folder) is None and not folder.exists(), "nobody writes it any more"


@pytest.mark.parametrize("readable", [True, False])
def test_what_another_user_uses_is_not_removed(readable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files can only be read here, or not even that."""
    folder = made(ArtifactStore(tmp_path), {})
    holder = ArtifactStore(tmp_path)
    assert holder.take(folder) is not None
    real = open

    def of_another(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if "+" in mode or not readable:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, mode, *args, **more)

    monkeypatch.setattr("builtins.open", of_another)
    other = ArtifactStore(tmp_path)
    assert in_use(other, folder) and not other.remove(folder) and folder.is_dir()
    del holder
    assert in_use(other, folder) != readable, "who cannot look cannot tell"


def test_what_is_removed_is_gone_at_once_or_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(tmp_path)
    folder = made(ArtifactStore(tmp_path), {})
    assert store.take(folder) is not None and not ArtifactStore(tmp_path).remove(folder) and folder.is_dir()
    del store

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            ArtifactStore(tmp_path).remove(folder)
    (row,) = ArtifactStore(tmp_path).list()
    assert not folder.exists() and not row["complete"]
    assert ArtifactStore(tmp_path).remove(row["path"]) and not list(tmp_path.iterdir())
