"""Checksums of a folder's content: what they cover, and what is said of a change."""

from __future__ import annotations

from pathlib import Path

from spd_lightning.artifacts.checksums import changes, checksums, is_sealed, sealed


def test_every_file_counts_but_locks_and_what_is_being_written(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.txt", "deep/b.txt", "deep/.hidden", ".lock", ".a.txt-x7-new", "out.txt", "deep/.c-new"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".aside-new").mkdir()
    (tmp_path / ".aside-new" / "d.txt").write_text("d")
    known = checksums(tmp_path, {"out.txt"})
    assert list(known) == ["a.txt", "deep/.hidden", "deep/b.txt"]
    assert changes(tmp_path, known) == []
    (tmp_path / "a.txt").write_text("A.txt")
    (tmp_path / "deep" / "b.txt").unlink()
    (tmp_path / "deep" / ".hidden").unlink()
    (tmp_path / "deep" / ".hidden").mkdir()
    assert changes(tmp_path, known) == [
        "a.txt was changed",
        "deep/.hidden cannot be read (Is a directory)",
        "deep/b.txt is missing",
    ]


def test_a_record_knows_itself() -> None:
    record = sealed({"key": {"b": 1.5, "a": [None]}, "é": "x"})
    assert is_sealed(record) and is_sealed(dict(reversed(record.items())))
    for wrong in ({}, {**record, "key": {}}, {**record, "sha256": "0"}, {**record, "more": 1}):
        assert not is_sealed(wrong)
