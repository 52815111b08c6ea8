"""Folders of models that this program wrote: damage is named, and what others wrote is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spd_lightning.errors import UserError
from spd_lightning.model.source import resolve_source
from spd_lightning.model.written import FILE, check_written, damage_of, list_files
from tests.conftest import byte_tokenizer, tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    list_files(tmp_path / "model")
    return tmp_path / "model"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


DONE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "weights flipped": ("model.safetensors", flip, "model.safetensors was changed"),
    "tokenizer gone": ("tokenizer.json", Path.unlink, "tokenizer.json is missing"),
    "list edited": (FILE, lambda p: p.write_text(p.read_text().replace("a", "b")), f"{FILE} was changed"),
    "list of no files": (FILE, lambda p: p.write_text('{"files": 7}'), f"{FILE} cannot be read"),
    "list emptied": (FILE, lambda p: p.write_text(""), f"{FILE} cannot be read"),
}


@pytest.mark.parametrize("name", DONE)
def test_what_was_changed_is_named_and_the_model_not_used(name: str, folder: Path) -> None:
    file, change, said = DONE[name]
    assert damage_of(folder) == [] and resolve_source(str(folder)) == (str(folder), True)
    change(folder / file)
    assert damage_of(folder) == [said]
    with pytest.raises(UserError, match=rf"is not as it was written: .*{said}.*if the change is meant, remove {FILE}"):
        check_written(folder, str(folder))
    with pytest.raises(UserError, match=file):
        resolve_source(str(folder))


def test_a_folder_that_others_wrote_has_no_list(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / "checksums.json").write_text(json.dumps({"model.safetensors": "of another tool"}))
    flip(folder / "model.safetensors")
    assert damage_of(folder) == [] and resolve_source(str(folder))[1]
