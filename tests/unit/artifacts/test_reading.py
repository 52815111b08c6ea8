"""A file that is none of what it should be gives one sentence with its path, the reason and what to do."""

from __future__ import annotations

import errno
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.files import write_json
from spd_lightning.artifacts.reading import foreign, read_json, read_object, read_yaml, reading
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.finetuning.checkpoint_file import checkpoint_damage

WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (lambda p: None, "does not exist"),
    "empty": (lambda p: p.touch(), "is empty"),
    "folder": (lambda p: p.mkdir(), "is a folder, not a file"),
    "dangling": (lambda p: p.symlink_to("nowhere"), "is a link to a file that is not there"),
    "pointer": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "is a Git LFS pointer"),
    "page": (lambda p: p.write_text("\n<!DOCTYPE html><html>"), "is a web page"),
    "cut": (lambda p: p.write_text('{"a": [1, '), r"cannot be read as JSON \(JSONDecodeError"),
    "deep": (lambda p: p.write_text("[" * 100_000), r"cannot be read as JSON \(RecursionError"),
    "latin": (lambda p: p.write_bytes(b'{"a": "\xe9"}'), r"cannot be read as JSON \(UnicodeDecodeError"),
    "half a character": (lambda p: p.write_text('{"a": "\\ud83d"}'), r"cannot be read as JSON \(UnicodeEncodeError"),
    "list": (lambda p: p.write_text("[1]"), "holds list where a JSON object is needed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(name: str, tmp_path: Path) -> None:
    make, what = WRONG[name]
    path = tmp_path / "file.json"
    make(path)
    with pytest.raises(UserError, match=rf"^{path} {what}[^\n]*\. Do this\.$"):
        read_object(path, "Do this.")


def test_whole_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('{"a": "é"}', encoding="utf-8")
    assert read_json(path, "") == read_object(path, "") == read_yaml(path, "") == {"a": "é"}
    path.write_text("# nothing\n")
    assert read_yaml(path, "") == {} and foreign(path) is None
    for text in ("a: [", "- 1", "!!python/object/apply:os.system [id]", "a: \x00"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"Do this\.$"):
            read_yaml(path, "Do this.")


def test_what_a_library_raises_is_one_kind_and_a_signal_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    said = r"cannot be read as a stone \(ZeroDivisionError: two lines\)\. Throw it\."
    with pytest.raises(UserError, match=said), reading(tmp_path / "file", "a stone", "Throw it."):
        raise ZeroDivisionError("two\nlines")
    with pytest.raises(UserError, match=r"^mine$"), reading(tmp_path / "file", "a stone", "Throw it."):
        raise UserError("mine")
    with pytest.raises(KeyboardInterrupt), reading(tmp_path / "file", "a stone", "Throw it."):
        raise KeyboardInterrupt


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EACCES])
def test_a_file_that_cannot_be_read_now_is_not_taken_for_damaged(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file = ArtifactStore(tmp_path / "store"), tmp_path / "keys.json"
    folder = store.folder("moments", {"a": 1})
    write_json(folder / "moments.json", {})
    store.complete(folder, {"a": 1})
    write_json(file, {})
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w") as made:
        made.writestr("a", "b")
    real = io.open

    def fails(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).endswith(("moments.json", "keys.json", "last.ckpt")):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", fails)
        patch.setattr("builtins.open", fails)
        with pytest.raises(OSError, match=os.strerror(number)):
            store.take(folder)
        with pytest.raises(OSError, match=os.strerror(number)):
            checkpoint_damage(tmp_path / "last.ckpt")
        with pytest.raises(UserError, match=rf"keys\.json: {os.strerror(number)}\. .*then give the same command again"):
            read_object(file, "Remove it.")
    assert store.take(folder) is not None and checkpoint_damage(tmp_path / "last.ckpt") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "it is nested too deep"),
        ("- " * 5_000 + "a", "it is nested too deep"),
        ("a: &a {b: *a}\n", "it holds itself"),
        ("a: &a [b, {c: [*a]}]\n", "it holds itself"),
        (
            "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
            + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)),
            "more than 100,000 values",
        ),
    ],
    ids=["brackets", "dashes", "itself", "itself deeper", "aliases of aliases"],
)
def test_yaml_that_stands_for_more_than_it_holds_is_refused(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"a\.yaml cannot be read as YAML \(ValueError: {why}\)"):
        read_yaml(tmp_path / "a.yaml", "")


def test_aliases_are_what_they_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {b: [1, &two 2]}\nc: [*a, *a, *two]\nd: &d 3\ne: *d\n")
    one = {"b": [1, 2]}
    assert read_yaml(tmp_path / "a.yaml", "") == {"a": one, "c": [one, one, 2], "d": 3, "e": 3}
