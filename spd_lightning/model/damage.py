"""Files of a model that are not what their names say: cut short, Git LFS pointers, web pages. Told by a few bytes.

It costs milliseconds, so it is done whenever a model's folder is found, before anything is read from it.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.reading import reading
from spd_lightning.errors import UserError

LARGE = 2**20  # bytes; a larger JSON file is looked at from both ends alone


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file of a model holds.

    Raises:
        UserError: If it holds none.
    """
    with told(path, "JSON"):
        found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {type(found).__name__} where a JSON object is needed: {AGAIN}")
    return found


@contextlib.contextmanager
def told(path: Path, what: str) -> Iterator[None]:
    """See `artifacts.reading`, with more to say of a model's files.

    Args:
        path: The file.
        what: What it should be: ``JSON``.
    """
    with reading(path, what, AGAIN.capitalize()):
        try:
            yield
        except (ValueError, RecursionError) as error:
            if (found := damage(path)) is not None:
                raise UserError(f"{path} {found}") from error
            raise


AGAIN = "copy or download the model again."


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Refuse a model's folder with a file that cannot be what it is called.

    Args:
        folder: Of the model.
        names: Of the files that are going to be read.

    Raises:
        UserError: Naming the first such file, and what to type.
    """
    for name in names:
        path = folder / name
        if not path.is_file():
            raise UserError(
                f"Model folder {str(folder)!r} lacks {name}, which its index of weights names. Copy the folder again."
            )
        if (what := damage(path)) is not None:
            raise UserError(f"{path} {what}")


def damage(path: Path) -> str | None:
    """What is wrong with a file, and what to do, as the rest of a sentence that its path begins; None for nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(max(0, size - 512))
        tail = file.read()
    if head.startswith(b"version https://git-lfs"):
        return f"is a Git LFS pointer, not the file itself. Type: git -C {path.parent} lfs pull"
    if head.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        return f"is a web page (HTML) that was saved in its place: {AGAIN}"
    if size == 0:
        return None if path.suffix in (".txt", ".jinja") else f"is empty: {AGAIN}"
    if path.suffix == ".json":
        return _json_damage(path, size, head, tail)
    if path.suffix == ".safetensors":
        return _safetensors_damage(path, size)
    if path.suffix == ".bin" and head.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"is cut short: its end is missing ({size:,} bytes are there). {AGAIN.capitalize()}"
    if path.suffix == ".bin" and not head.startswith((b"PK", b"\x80")):
        return f"is no PyTorch checkpoint: {AGAIN}"
    if path.suffix == ".gguf" and not head.startswith(b"GGUF"):
        return f"is no GGUF file (it does not begin with GGUF): {AGAIN}"
    return None


def _json_damage(path: Path, size: int, head: bytes, tail: bytes) -> str | None:
    if not head.lstrip().startswith((b"{", b"[")):
        return f"is no JSON: {AGAIN}"
    if size > LARGE:
        return None if tail.rstrip().endswith((b"}", b"]")) else f"is cut short ({size:,} bytes are there): {AGAIN}"
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        cut = "" if tail.rstrip().endswith((b"}", b"]")) else ", it may be cut short"
        return f"is no JSON ({error}){cut}: {AGAIN}"
    return None


def _safetensors_damage(path: Path, size: int) -> str | None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            return f"is cut short, or no safetensors file: {AGAIN}"
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return f"has a header that cannot be read: {AGAIN}"
    expected = 8 + length + end
    return None if size >= expected else f"is cut short: {size:,} of {expected:,} bytes are there. {AGAIN.capitalize()}"
