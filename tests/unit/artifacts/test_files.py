"""Files appear whole or not at all, JSON Lines tell where they are broken, and one process holds a lock."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts import files
from spd_lightning.artifacts.files import (
    numbered_jsonl,
    parse_json,
    read_jsonl,
    typed_path,
    whole_file,
    whole_folder,
    write_atomic,
    write_json,
    write_jsonl,
)
from spd_lightning.artifacts.locks import InUseError, file_lock
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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1', "Expecting ',' delimiter"),
        ("[" * 100_000, "it is nested too deep"),
        ('{"a": ' + "9" * 5000 + "}", "a number has too many digits"),
        ('{"a": "x\\ud800"}', "\\ud800 is half a character, without the other"),
    ],
)
def test_json_that_cannot_be_taken_says_why(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as told:
        parse_json(text)
    assert str(told.value) == reason
    (tmp_path / "a.jsonl").write_text(f"{{}}\n{text}\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: not valid JSON \("):
        list(numbered_jsonl(tmp_path / "a.jsonl", writable=True))


def test_half_a_character_is_refused_where_it_would_be_written_alone(tmp_path: Path) -> None:
    """A whole one, in two escapes, is taken everywhere; half of one only where it is shown."""
    whole, half = '{"a": "\\ud83d\\ude00"}', '{"a": "\\ud83d"}'
    assert parse_json(whole) == {"a": "\U0001f600"} and parse_json(half, writable=False) == {"a": "\ud83d"}
    (tmp_path / "a.jsonl").write_text(half)
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"a": "\ud83d"}]


def test_a_path_as_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert typed_path("~/a") == tmp_path / "a"
    assert typed_path("~nobody-of-this-name/a") == Path("~nobody-of-this-name/a")
    with pytest.raises(UserError, match=r"^x{40}\.\.\. is too long for the name of a file or folder"):
        typed_path("x" * 5000)


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "private", "x")
        os.umask(0o002)
        write_atomic(tmp_path / "shared", "x")
    finally:
        os.umask(before)
    assert [(tmp_path / n).stat().st_mode & 0o777 for n in ("private", "shared")] == [0o600, 0o664]


def test_a_lock_says_whose_it_is(tmp_path: Path) -> None:
    who = rf"in use by another process: {os.getpid()} on {socket.gethostname()} since 20\d\d-.*lock file"
    with (
        file_lock(tmp_path / ".lock", "the first"),
        pytest.raises(InUseError, match=who),
        file_lock(tmp_path / ".lock", "the second"),
    ):
        pass


def test_the_link_in_a_locks_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "target")
    with (
        pytest.raises(UserError, match="is a symbolic link, which is not followed"),
        file_lock(tmp_path / ".lock", "x"),
    ):
        pass
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_a_file_stands_in_for_one(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr("spd_lightning.artifacts.locks._WITHOUT_LOCKS", set())
    path = tmp_path / ".lock"
    with (
        file_lock(path, "the first"),
        pytest.raises(InUseError, match=rf"process: {os.getpid()} on .* If that process is gone, remove the file"),
        file_lock(path, "the second"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    with file_lock(path, "the third"):
        pass
    assert capsys.readouterr().err.count("has no locks") == 1
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    stale = tmp_path / ".lock-exclusive-lock"
    stale.write_text(json.dumps({"pid": int(gone.stdout), "host": socket.gethostname(), "since": "2026-01-01"}))
    with file_lock(path, "the fourth"):
        assert json.loads(stale.read_text())["pid"] == os.getpid()
    stale.write_text(json.dumps({"pid": int(gone.stdout), "host": "elsewhere", "since": "2026-01-01"}))
    with pytest.raises(InUseError, match="on elsewhere since 2026-01-01"), file_lock(path, "the fifth"):
        pass


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": "\\ud83d"}', "not valid JSON .* is half a character"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "a JSON object is needed"),
    ],
)
def test_a_line_that_nothing_could_write_again_is_named(line: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "\\ud83d\\ude00"}\n' + line + b"\n")
    with pytest.raises(UserError, match=rf"rows\.jsonl, line 2: {what}"):
        list(numbered_jsonl(path, writable=True))


@pytest.mark.parametrize("content", [b"no gzip", b"\x1f\x8b\x08\x00cut", b""])
def test_a_damaged_archive_is_one_kind_of_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(content)
    if content:
        with pytest.raises(UserError, match=r"rows.jsonl.gz cannot be read as JSON Lines"):
            list(read_jsonl(path))
    else:
        assert list(read_jsonl(path)) == []


def test_a_library_that_names_no_path_is_told_with_that_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large") as told, whole_folder(tmp_path / "student"):
        raise ValueError("Error while serializing: I/O error: File too large (os error 27)")
    assert told.value.filename == str(tmp_path / "student") and not list(tmp_path.iterdir())
