"""SHA-256 of files and of folders of weights."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

LARGE = 2**20  # bytes; smaller files are hashed whenever they are asked for


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
