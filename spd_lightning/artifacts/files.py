"""Files that are whole or not there: written aside and put in place, JSON, JSON Lines, and locks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spd_lightning.errors import UserError


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Write a file so that a reader sees the old content or the new, never a part; parents are made.

    Raises:
        UserError: If the folder cannot be written or the disk is full (the old content then stands).
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise UserError(f"Cannot write {path}: {error.strerror}. Free space, or choose another folder.") from error
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON with two spaces of indent, atomically; NaN is refused, since other readers would."""
    return write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file (plain or ``.gz``).

    Raises:
        UserError: For a line that is not a JSON object, with file and line number.
    """
    return (row for _, row in numbered_jsonl(path))


def numbered_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON Lines file as `read_jsonl`, each with the number of its line, counted from 1."""
    import gzip

    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{path}, line {number}: not valid JSON ({error.msg}). Mend or remove that line."
                ) from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: a JSON object is needed, found {type(row).__name__}.")
            yield number, row


def write_jsonl(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON Lines, atomically; keys keep their order, text stays UTF-8."""
    return write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class InUseError(UserError):
    """What `file_lock` was to hold is held by another process."""


@contextlib.contextmanager
def file_lock(path: str | Path, holder: str) -> Iterator[None]:
    """Hold an exclusive lock on a file while the context lasts; it vanishes with the process, however that ends.

    Raises:
        InUseError: If another process holds it.
        UserError: If the file cannot be made or locked.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except BlockingIOError as error:
        raise InUseError(
            f"{holder} is in use by another process (lock file {path}). Wait for it, or choose another."
        ) from error
    except OSError as error:
        raise UserError(f"{holder} cannot be used: {path}: {error.strerror}. Choose another folder.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _locked(path: Path) -> int:
    """Descriptor of the file, locked; opened again if its last holder removed it meanwhile."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
