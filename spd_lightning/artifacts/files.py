"""Files and folders that are whole or not there: written aside and put in place; JSON Lines, SHA-256."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.reading import foreign, reading
from spd_lightning.errors import UserError, cannot_write, fault_number

CLONE = 0x40049409  # ioctl FICLONE: a copy that shares its blocks until one of the two is changed
LARGE = 2**20  # bytes; smaller files are hashed whenever they are asked for


def typed_path(name: str | Path) -> Path:
    """The path that a person typed, ``~`` and ``~user`` as home folders; of an unknown user it is a path like any.

    Raises:
        UserError: If it is longer than any path may be.
    """
    path = Path(os.path.expanduser(name))
    try:
        path.exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{str(name)[:40]}... is too long for the name of a file or folder. Shorten it.") from error
    return path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path aside to write a file to, which takes the place of ``path`` once the context ends well; parents are made.

    So a reader sees the old content or the new, never a part.

    Raises:
        UserError: If the folder cannot be written or the disk is full (the old content then stands).
    """
    path = Path(path)
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}-{secrets.token_hex(4)}-new")
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # what the umask leaves of it
        yield aside
        _sync(aside)
        os.replace(aside, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if aside is not None:
            with contextlib.suppress(OSError):
                aside.unlink()


@contextlib.contextmanager
def whole_folder(path: str | Path, replace: bool = False, shared: bool = False) -> Iterator[Path]:
    """A folder aside to write to, which becomes ``path`` once the context ends well; parents are made.

    Args:
        path: Where the folder appears, whole or not at all.
        replace: Remove what stands there; else an `OSError` says that something does.
        shared: Other processes may be writing the same folder: the one aside then has a name of its own.

    Raises:
        OSError: Where the disk has a fault, with ``path`` if whatever wrote there names none.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}-{os.getpid()}-new" if shared else f".{path.name}-new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for part in (*aside.rglob("*"), aside):
            _sync(part)
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)
    except Exception as error:
        if (number := fault_number(error)) is None or getattr(error, "filename", None):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's entries, on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a file; where the file system can, without taking space for what stays the same."""
    with open(source, "rb") as old, open(target, "wb") as new, contextlib.suppress(OSError):
        fcntl.ioctl(new.fileno(), CLONE, old.fileno())
        return
    shutil.copyfile(source, target)


def copy_into(source: Path, target: Path) -> None:
    """Copy what a folder holds into another that is there (`shutil.copytree` tells no errors, but a list of words)."""
    for name in sorted(os.listdir(source)):
        path, to = source / name, target / name
        if path.is_dir():
            to.mkdir()
            copy_into(path, to)
        else:
            copy_file(path, to)


def add_file(source: Path, target: Path) -> Path:
    """Put a copy of an artifact's file at ``target``, atomically: editing it leaves the artifact alone."""
    with whole_file(target) as aside:
        copy_file(source, aside)
    return target


def add_folder(source: Path, target: Path) -> Path:
    """The same of an artifact's folder; it appears when it is whole.

    Raises:
        UserError: If it cannot be written.
    """
    try:
        with whole_folder(target) as aside:
            copy_into(source, aside)
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Write a file as `whole_file` does.

    Raises:
        UserError: If the folder cannot be written or the disk is full, or the text holds half a character, as the names
            of files can (the old content then stands).
    """
    try:
        data = content.encode("utf-8") if isinstance(content, str) else content
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 30) : error.end + 10]
        raise UserError(
            f"{path} cannot hold {near!r}: {error.object[error.start]!r} is half a character. Write that text, or that "
            "file's name, in UTF-8."
        ) from error
    with whole_file(path) as aside:
        aside.write_bytes(data)
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON with two spaces of indent, atomically; NaN is refused, since other readers would."""
    return write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file (plain or ``.gz``).

    Raises:
        UserError: For a line that is not a JSON object, with file and line number.
    """
    return (row for _, row in numbered_jsonl(path))


def numbered_jsonl(path: str | Path, writable: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON Lines file as `read_jsonl`, each with the number of its line, counted from 1.

    Args:
        path: The file.
        writable: See `parse_json`.

    Raises:
        UserError: If the file cannot be read, or a line is no JSON object.
    """
    import gzip

    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    with reading(path, "JSON Lines", "Put the whole file there again."), opener(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line.decode("utf-8"), writable)
            except ValueError as error:
                if (what := foreign(path)) is not None:
                    raise UserError(f"{path} {what}. Put the whole file there again.") from error
                raise UserError(
                    f"{path}, line {number}: not valid JSON ({error}). Mend or remove that line."
                ) from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: a JSON object is needed, found {type(row).__name__}.")
            yield number, row


class _Twice(ValueError):
    """A key that stands in one JSON object twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(f"{next(name for name in found if names.count(name) > 1)!r} stands in it twice")
    return found


def parse_json(text: str, writable: bool = True, strict: bool = False) -> Any:
    """What a JSON text holds.

    Args:
        text: The text.
        writable: Refuse half a character (a lone surrogate, which JSON can escape), since no file could hold it again.
        strict: Refuse a key that an object has twice, of which only the last would count.

    Raises:
        ValueError: Saying in a few words why it cannot be taken.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once if strict else None)
        if writable and "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(error.msg) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"\\u{ord(error.object[error.start]):x} is half a character, without the other") from error
    except _Twice:
        raise
    except ValueError as error:
        raise ValueError("a number has too many digits") from error
    return found


def write_jsonl(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON Lines, atomically; keys keep their order, text stays UTF-8."""
    return write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, hexadecimal.

    A large file is read once per process as long as its inode, size and times of change stay: weights of many GB are
    asked for by every stage.
    """
    stat = os.stat(path)
    if stat.st_size < LARGE:
        return _digest(str(path))
    return _remembered(str(Path(path).resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=4096)
def _remembered(path: str, inode: int, size: int, modified: int, changed: int) -> str:
    return _digest(path)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(folder: Path) -> str:
    """What an adapter or checkpoint folder holds: the names and contents of its weights and configuration."""
    files = sorted(
        p for p in folder.glob("*") if p.suffix in (".safetensors", ".bin") or p.name.endswith("config.json")
    )
    return hashlib.sha256("".join(f"{p.name}:{file_sha256(p)};" for p in files).encode()).hexdigest()
