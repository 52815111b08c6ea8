"""Checkpoints are whole or not there, on any file system; a damaged one is named and never taken."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spd_lightning.artifacts import files
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError
from spd_lightning.finetuning.checkpoint_file import checkpoint_damage, read_checkpoint
from spd_lightning.pipeline.resume import check_checkpoint, checkpoint_to_continue, set_damaged_aside
from spd_lightning.pipeline.whole_checkpoint import WholeCheckpointIO

CHECKPOINT = {"state_dict": {"w": torch.arange(5000.0)}, "global_step": 3, "spd": {"recipe": '{"base": "b"}'}}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    WholeCheckpointIO().save_checkpoint(CHECKPOINT, run.checkpoint)
    return run


def test_what_was_written_is_read(run: RunFolder) -> None:
    saved = read_checkpoint(run.checkpoint, "")
    assert saved["global_step"] == 3 and torch.equal(saved["state_dict"]["w"], CHECKPOINT["state_dict"]["w"])
    assert [p.name for p in run.checkpoints.iterdir()] == ["last.ckpt"]
    assert checkpoint_to_continue(run, {"base": "b"}, None) == str(run.checkpoint)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_disk_that_fails_leaves_the_checkpoint_before(
    call: str, number: int, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run.checkpoint.read_bytes()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, fail)
        with pytest.raises(UserError, match=rf"Cannot write .*last.ckpt: {os.strerror(number)}"):
            WholeCheckpointIO().save_checkpoint({"state_dict": {}}, run.checkpoint)
    assert run.checkpoint.read_bytes() == before
    assert [p.name for p in run.checkpoints.iterdir()] == ["last.ckpt"]


def test_what_reads_back_otherwise_does_not_take_the_place(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.checkpoint.read_bytes()
    save = torch.save

    def spoil(value: Any, file: Any) -> None:
        save(value, file)
        file.seek(3000)
        file.write(b"\xff")

    monkeypatch.setattr(torch, "save", spoil)
    with pytest.raises(UserError, match=r"Cannot write .*last.ckpt: what was written is damaged"):
        WholeCheckpointIO().save_checkpoint(CHECKPOINT, run.checkpoint)
    assert run.checkpoint.read_bytes() == before


def test_no_other_folder_is_written(run: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The temporary folder may be another file system, or full."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "not-there"))
    monkeypatch.setattr("tempfile.tempdir", None)
    WholeCheckpointIO().save_checkpoint(CHECKPOINT, run.checkpoint)
    assert checkpoint_damage(run.checkpoint) is None


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "flipped": lambda p: flip(p, 3000),
    "flipped at the end": lambda p: flip(p, -30),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-100]),
    "emptied": lambda p: p.write_bytes(b""),
    "a web page": lambda p: p.write_bytes(b"<html>"),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "no zip": lambda p: p.write_bytes(pickle.dumps({"a": 1})),
    "a zip of nothing": lambda p: zipfile.ZipFile(p, "w").close(),
    "a pickle with code": lambda p: torch.save({"spd": subprocess.Popen}, p),
    "a list": lambda p: torch.save([1], p),
    "another's": lambda p: torch.save({"state_dict": {}}, p),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_that_was_named_gives_one_sentence(
    name: str, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spd_lightning.pipeline.resume.model_fingerprint", lambda name: "b")
    HOSTILE[name](run.checkpoint)
    with pytest.raises(UserError) as found:
        check_checkpoint(str(run.checkpoint), "tiny")
    assert "\n" not in str(found.value) and "ckpt_path" in str(found.value)


def test_a_damaged_one_is_set_aside_and_the_last_good_one_taken(run: RunFolder, capsys: Any) -> None:
    key = {"base": "b"}
    set_damaged_aside(run)
    assert capsys.readouterr().err == "" and run.checkpoint.is_file()
    flip(run.checkpoint, 3000)
    set_damaged_aside(run)
    assert "last.ckpt.damaged. The training starts anew." in capsys.readouterr().err
    assert checkpoint_to_continue(run, key, None) is None
    good = run.checkpoints / "epoch=0.ckpt"
    for path in (good, run.checkpoint, run.checkpoints / "newer.ckpt"):
        WholeCheckpointIO().save_checkpoint(CHECKPOINT, path)
    flip(run.checkpoint, 3000)
    flip(run.checkpoints / "newer.ckpt", 3000)
    set_damaged_aside(run)
    assert f"goes on from {good}" in capsys.readouterr().err
    assert checkpoint_to_continue(run, key, None) == str(good)
    with pytest.raises(UserError, match="of another student"):
        checkpoint_to_continue(run, {"base": "c"}, None)
