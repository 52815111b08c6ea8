"""A held run folder: given back, kept or finished, whatever the disk does and whoever removes it meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.files import add_file, add_folder, write_json
from spd_lightning.artifacts.locks import file_lock
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.pipeline.holding import hold

CONFIG, ENVIRONMENT = {"seed_everything": 1}, {"fingerprint": "f"}


def work(folder: RunFolder, doing: Callable[[], Any]) -> None:
    with hold(folder, ArtifactStore(folder.path.parent / "store"), CONFIG, ENVIRONMENT):
        doing()


def test_a_folder_that_is_removed_ends_the_command_and_is_the_runs_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")

    def removed() -> None:
        shutil.rmtree(folder.path)
        (folder.path / "checkpoints").mkdir(parents=True)
        folder.checkpoint.write_text("of this command")
        raise KeyError("student")  # what the command came upon

    with pytest.raises(UserError, match="run was removed or moved while this command worked in it"):
        work(folder, removed)
    work(RunFolder(folder.path), lambda: None)
    assert folder.checkpoint.read_text() == "of this command" and folder.manifest.file.is_file()


def test_also_where_nothing_failed_or_another_has_begun_there(tmp_path: Path) -> None:
    folder, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match="was removed or moved"):
        work(folder, lambda: shutil.rmtree(folder.path))
    assert not folder.path.exists()

    def anothers() -> None:
        shutil.rmtree(folder.path)
        theirs.__enter__()
        other.claim(CONFIG, "seed_everything: 1\n", ENVIRONMENT)

    theirs = file_lock(folder.lock_file, "theirs")
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match="was removed or moved"):
        work(folder, anothers)
    assert other.is_running(), "the lock of the other stays"
    theirs.__exit__(None, None, None)
    work(RunFolder(tmp_path / "run"), lambda: None)


def test_what_is_removed_from_the_store_is_told(tmp_path: Path) -> None:
    folder, kept = RunFolder(tmp_path / "run"), tmp_path / "store" / "moments-1" / "moments.safetensors"

    def reads() -> None:
        write_json(folder.keys_file, {})
        add_file(kept, folder.subspace)

    with pytest.raises(UserError, match=r"removed from the store .*moments\.safetensors.*what is missing is made anew"):
        work(folder, reads)
    with pytest.raises(FileNotFoundError):  # anything else is as it was
        work(folder, (tmp_path / "elsewhere").read_text)


def test_the_first_error_is_told_not_those_of_notes_that_fail_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")

    def fails(*_: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def stopped() -> None:
        monkeypatch.setattr(RunFolder, "note_artifacts", fails)
        monkeypatch.setattr(RunFolder, "release", fails)
        raise UserError("the first")

    with pytest.raises(UserError, match="the first"):
        work(folder, stopped)


def test_an_artifacts_folder_is_copied_whole_or_told(tmp_path: Path) -> None:
    source = tmp_path / "student"
    (source / "merged").mkdir(parents=True)
    (source / "a.json").write_text("1")
    (source / "merged" / "b.json").write_text("2")
    folder = RunFolder(tmp_path / "run")
    add_folder(source, folder.adapter)
    assert sorted(p.relative_to(folder.adapter).as_posix() for p in folder.adapter.rglob("*.json")) == [
        "a.json",
        "merged/b.json",
    ]
    with pytest.raises(UserError, match=r"Cannot write .*round-2: .*nowhere: No such file or directory\. Choose"):
        add_folder(tmp_path / "nowhere", folder.path / "round-2")
