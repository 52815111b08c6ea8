"""What a folder holds, as a SHA-256 of every file: taken when it is finished, compared when it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.files import file_sha256
from spd_lightning.artifacts.reading import OF_THE_FILE


def checksums(folder: Path, left_out: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 by name of every file of a folder and those in it, in the order of their names.

    Args:
        folder: The folder.
        left_out: Files, or folders with all that is in them, right in ``folder``. What is being written aside
            (``.*-new``) and locks are left out anyway.
    """
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] in left_out or any(passing(part) for part in name.split("/")):
            continue
        found[name] = file_sha256(path)
    return found


def passing(name: str) -> bool:
    """Whether a file is no content: it is being written, or a lock."""
    return name.startswith(".") and name.endswith(("-new", "lock"))


def changes(folder: Path, recorded: Mapping[str, Any]) -> list[str]:
    """What is not as it was recorded, a few words each: ``records.jsonl was changed``, ``a.txt is missing``.

    Raises:
        OSError: If that cannot be told, since nothing can be read now.
    """
    found = []
    for name, digest in recorded.items():
        path = folder / name
        try:
            if file_sha256(path) != digest:
                found.append(f"{name} was changed")
        except FileNotFoundError:
            found.append(f"{name} is missing")
        except OSError as error:
            if error.errno not in OF_THE_FILE:
                raise
            found.append(f"{name} cannot be read ({error.strerror})")
        except ValueError:  # a null byte
            found.append(f"{name!r} is no name of a file")
    return found


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON gives it back, with the checksum of itself, so that nothing in it can change unseen."""
    record = unsealed(json.loads(json.dumps(record)))
    return {**record, "sha256": _digest(record)}


def unsealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without the checksum of itself."""
    return {name: value for name, value in record.items() if name != "sha256"}


def is_sealed(record: Mapping[str, Any]) -> bool:
    """Whether a record that `sealed` gave is as it was."""
    return record.get("sha256") == _digest(unsealed(record))


def untouched(record: Mapping[str, Any]) -> bool:
    """Whether a record is as it was written, for all that it tells: those of older versions have no checksum."""
    return "sha256" not in record or is_sealed(record)


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
