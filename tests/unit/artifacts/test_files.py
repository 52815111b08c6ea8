"""Files appear whole or not at all, JSON Lines tell where they are broken, and one process holds a lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spd_lightning.artifacts import files
from spd_lightning.artifacts.files import (
    InUseError,
    file_lock,
    read_jsonl,
    whole_file,
    whole_folder,
    write_atomic,
    write_json,
    write_jsonl,
)
from spd_lightning.errors import UserError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_atomic(tmp_path / "deep" / "a.txt", "old")

    def full(*args: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(UserError, match="Cannot write"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["a.txt"]


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    assert write_atomic(tmp_path / "a", "é\n").read_bytes() == "é\n".encode()
    assert write_atomic(tmp_path / "a", b"\x00\r\n").read_bytes() == b"\x00\r\n"
    assert write_json(tmp_path / "b.json", {"b": 1, "a": "é"}).read_text(encoding="utf-8").endswith("}\n")


def test_rows_come_back(tmp_path: Path) -> None:
    rows = [{"text": "two\nlines\u2028é"}, {"n": 1.5}]
    assert list(read_jsonl(write_jsonl(tmp_path / "rows.jsonl", rows))) == rows


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(UserError, match=r"rows\.jsonl.*2"):
        list(read_jsonl(tmp_path / "rows.jsonl"))


def test_a_lock_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    with (
        file_lock(tmp_path / "lock", "the first"),
        pytest.raises(InUseError),
        file_lock(tmp_path / "lock", "the second"),
    ):
        pass
    with file_lock(tmp_path / "lock", "the third"):
        pass


def test_a_file_that_is_written_aside_is_never_seen_half(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    with whole_file(path) as aside:
        aside.write_bytes(b"half")
        assert not path.exists() and aside.name.endswith("-new")  # what a claim of the run folder sweeps away
    assert path.read_bytes() == b"half" and path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(ValueError), whole_file(path) as aside:
        aside.write_bytes(b"other")
        raise ValueError
    assert path.read_bytes() == b"half" and os.listdir(path.parent) == ["a.bin"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_folder_appears_whole_or_not_at_all(shared: bool, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model"
    with pytest.raises(ValueError), whole_folder(path, shared=shared) as aside:
        (aside / "part").write_text("1")
        raise ValueError
    assert os.listdir(path.parent) == []
    with whole_folder(path, shared=shared) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "part").write_text("1")
        assert not path.exists()
    assert (path / "inner" / "part").read_text() == "1" and os.listdir(path.parent) == ["model"]
    with pytest.raises(OSError), whole_folder(path, shared=shared) as aside:
        (aside / "part").write_text("2")
    assert os.listdir(path) == ["inner"], "what stands there stays"
    with whole_folder(path, replace=True, shared=shared) as aside:
        (aside / "part").write_text("2")
    assert os.listdir(path) == ["part"] and os.listdir(path.parent) == ["model"]


def test_what_a_killed_process_left_aside_is_no_part_of_the_next(tmp_path: Path) -> None:
    (tmp_path / ".model-new").mkdir()
    (tmp_path / ".model-new" / "torn").write_text("1")
    with whole_folder(tmp_path / "model") as aside:
        (aside / "part").write_text("2")
    assert os.listdir(tmp_path / "model") == ["part"]
