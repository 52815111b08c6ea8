"""The corpus on disk: order, torn lines, other fingerprints, full disks, and its figures."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from pathlib import Path

import pytest

from spd_lightning.errors import UserError
from spd_lightning.generation.corpus import Corpus
from spd_lightning.generation.figures import statistics
from spd_lightning.generation.requests import Request


def record(example_id: str, sample: int = 0, completion: str = " 7é\u2028", ids: tuple[int, ...] = (1, 2)) -> dict:
    return {
        "id": example_id,
        "sample": sample,
        "prompt": "Q",
        "completion": completion,
        "token_ids": list(ids),
        "num_tokens": len(ids),
        "finish_reason": "stop",
        "seed": 42,
    }


def requests(*ids: str) -> list[Request]:
    return [Request(i, "Q", (1,)) for i in ids]


def test_parts_become_one_file_in_the_order_of_the_requests(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "c", "f1")
    assert corpus.finished() == set() and not corpus.is_final()
    corpus.append([record("b"), record("a")], rank=1)
    corpus.append([record("d")], rank=0)
    corpus.append([record("c")], rank=1)
    assert corpus.finished() == {("a", 0), ("b", 0), ("c", 0), ("d", 0)}
    path = corpus.finalise(requests("a", "b", "c", "d"))
    assert corpus.is_final() and corpus.read() == [record(i) for i in "abcd"]
    corpus.remove_parts()
    assert [p.name for p in (tmp_path / "c").iterdir()] == [path.name] == ["generations.jsonl"]
    assert path.read_bytes().count(b"\n") == 4
    assert Corpus(tmp_path / "c", "f1").finished() == corpus.finished()


def test_torn_line_is_dropped_counted_and_written_over(tmp_path: Path) -> None:
    Corpus(tmp_path, "f1").append([record("a"), record("b")])
    part = tmp_path / "part-0.jsonl"
    whole = part.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in sorted({*range(0, len(whole), 7), last - 1, last, last + 1, len(whole) - 1}):
        part.write_bytes(whole[:end])
        corpus = Corpus(tmp_path, "f1")
        done = corpus.finished()
        assert done == ({("a", 0)} if end >= last else set())
        torn = end > 0 and whole[end - 1 : end] != b"\n"
        assert corpus.torn == torn
        corpus.append([record("a"), record("b")])
        assert corpus.finished() == {("a", 0), ("b", 0)} and corpus.torn == torn
    corpus.finalise(requests("a", "b"))
    assert corpus.read() == [record("a"), record("b")], "a record that was written twice stands once"


def test_until_the_parts_are_removed_they_are_what_counts(tmp_path: Path) -> None:
    """Killed before the finished file has its record: it is sorted from the parts again, whatever stands in it."""
    corpus = Corpus(tmp_path, "f1")
    corpus.append([record("a")])
    first = corpus.finalise(requests("a")).read_bytes()
    corpus.path.write_text('{"id": "z", "sample": 0}\n')
    assert Corpus(tmp_path, "f1").finished() == {("a", 0)}
    assert Corpus(tmp_path, "f1").finalise(requests("a")).read_bytes() == first


def test_part_of_another_fingerprint_is_refused(tmp_path: Path) -> None:
    Corpus(tmp_path, "old1").append([record("a")], rank=3)
    other = Corpus(tmp_path, "new2")
    with pytest.raises(
        UserError, match=r"part-3.jsonl belongs to another corpus \(fingerprint 'old1', needed 'new2'\)"
    ):
        other.finished()
    with pytest.raises(UserError, match="old1"):
        other.append([record("b")], rank=3)
    assert Corpus(tmp_path, "old1").finished() == {("a", 0)}, "the other corpus is untouched"


def test_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    Corpus(tmp_path, "f1").append([record("a"), record("b")])
    part = tmp_path / "part-0.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    for damaged in (b'{"id": "a", \n', lines[1].replace(b" 7", b" 8"), lines[1].replace(b"\t", b""), b"[1]\n", b"\n"):
        part.write_bytes(lines[0] + damaged + lines[2])
        with pytest.raises(UserError, match=r"part-0.jsonl, line 2: not as it was written"):
            Corpus(tmp_path, "f1").finished()


def test_missing_records_are_named_and_parts_stay(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, "f1")
    corpus.append([record("a")])
    with pytest.raises(UserError, match=r"lacks 1 of 2 completions, e.g. \('z', 0\)"):
        corpus.finalise(requests("a", "z"))
    assert corpus.finished() == {("a", 0)} and not corpus.is_final()


def test_disk_that_fills_up_leaves_a_usable_corpus(tmp_path: Path) -> None:
    """A real limit of the file size: the kernel writes a part of the batch, then refuses."""
    corpus = Corpus(tmp_path, "f1")
    corpus.append([record("a")])
    size = (tmp_path / "part-0.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))
    try:
        with pytest.raises(UserError, match=r"Cannot write the corpus part .*part-0.jsonl: File too large"):
            corpus.append([record("b"), record("c")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "part-0.jsonl").stat().st_size == size
    assert Corpus(tmp_path, "f1").finished() == {("a", 0)}
    corpus.append([record("b"), record("c")])
    assert corpus.finished() == {("a", 0), ("b", 0), ("c", 0)} and corpus.torn == 0


def test_disk_full_at_the_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(tmp_path, "f1")

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(UserError, match="No space left on device"):
            corpus.append([record("a")])
    corpus.append([record("a")])
    assert Corpus(tmp_path, "f1").finished() == {("a", 0)}


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(tmp_path, "f1")
    corpus.append([record("a")])

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:  # root may write anywhere, so the refusal is made here
        patch.setattr("builtins.open", refuse)
        with pytest.raises(UserError, match="Read-only file system"):
            corpus.append([record("b")])
    assert corpus.finished() == {("a", 0)}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write the corpus part .*file/c/part-0.jsonl: Not a directory"):
        Corpus(tmp_path / "file" / "c", "f1").append([record("a")])


def test_empty_completions_stop_with_three_examples(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, "f1")
    corpus.append([record(i, completion=" \n", ids=(257,)) for i in "abcd"])
    with pytest.raises(UserError, match=r"Every one of the 4 completions is empty \(a: .*; b: .*; c: .*, 1 tokens\)"):
        corpus.finalise(requests("a", "b", "c", "d"))
    corpus.append([record("e")])
    assert corpus.finalise(requests("a", "b", "c", "d", "e")).exists(), "one text is enough"


def test_records_keep_their_bytes(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, "f1")
    odd = record("a", completion='line\nsep\u2028 "q" \\ \r\x00 é 你')
    corpus.append([odd])
    text = corpus.finalise(requests("a")).read_text(encoding="utf-8")
    assert json.loads(text) == odd and list(json.loads(text)) == list(odd)
    assert "你" in text, "text stays UTF-8"


def test_statistics_of_a_corpus_counted_by_hand() -> None:
    rows = [
        record("a", ids=(1, 2, 1, 2)),
        record("b", ids=(1, 2)),
        record("c", completion=" ", ids=(9,)) | {"finish_reason": "length"},
    ]
    figures = statistics(rows, answered=lambda r: r["id"] == "b")
    assert figures == {
        "n": 3,
        "tokens_mean": pytest.approx(7 / 3),
        "tokens_median": 2,
        "tokens_max": 4,
        "tokens_total": 7,
        "stopped": pytest.approx(2 / 3),
        "empty": pytest.approx(1 / 3),
        "distinct_1": pytest.approx(3 / 7),
        "distinct_2": pytest.approx(2 / 4),  # (1, 2) three times, (2, 1) once
        "answered": pytest.approx(1 / 3),
    }
    assert "answered" not in statistics(rows)
    with pytest.raises(UserError, match="0 completions"):
        statistics([])
