"""What is written to disk: fingerprints, the artifact store that runs share, run folders, atomic files, locks.

An artifact is a folder ``<stage>-<fingerprint>/`` in the store. Its fingerprint covers exactly what it depends on, so
another setting is another folder: nothing stale is ever reused, and nothing is overwritten.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spd_lightning.errors import UserError

# Raised by hand when a stage's arithmetic or file format changes, so that older artifacts are not reused.
STAGE_VERSION = {"moments": 3, "subspace": 2, "corpus": 3, "student": 1, "scores": 4, "run": 2}

COMPLETE = "complete.json"


def fingerprint(stage: str, **key: Any) -> str:
    """16 hexadecimal digits that stand for ``key`` (JSON values) and the version of the stage.

    >>> fingerprint("moments", seed=1) == fingerprint("moments", seed=1)
    True
    """
    payload = json.dumps({"stage": stage, "version": STAGE_VERSION[stage], **key}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(payload.encode()).hexdigest()[:16]


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


class ArtifactStore:
    """Folder of artifacts that runs share.

    Args:
        root: The store's folder; made on first use.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, stage: str, key: Mapping[str, Any]) -> Path:
        """The folder of an artifact, whether it exists or not."""
        return self.root / f"{stage}-{fingerprint(stage, **key)}"

    def is_complete(self, folder: Path) -> bool:
        """Whether an artifact was finished: its ``complete.json`` is the last file written."""
        return (folder / COMPLETE).is_file()

    def complete(self, folder: Path, key: Mapping[str, Any], **facts: Any) -> None:
        """Mark an artifact as finished and record what it depends on (``key``) and what was seen (``facts``)."""
        write_json(folder / COMPLETE, {"key": dict(key), **facts})

    def facts(self, folder: Path) -> dict[str, Any]:
        """What `complete` recorded."""
        return json.loads((folder / COMPLETE).read_text(encoding="utf-8"))

    def list(self) -> list[dict[str, Any]]:
        """One row per artifact: stage, fingerprint, whether complete, size in bytes, time of last use (s)."""
        rows = []
        for folder in sorted(
            p for p in self.root.glob("*-*") if p.is_dir() and p.name.rsplit("-", 1)[0] in STAGE_VERSION
        ):
            stage, digest = folder.name.rsplit("-", 1)
            files = [p for p in folder.rglob("*") if p.is_file()]
            rows.append(
                {
                    "stage": stage,
                    "fingerprint": digest,
                    "complete": self.is_complete(folder),
                    "bytes": sum(p.stat().st_size for p in files),
                    "used": max((p.stat().st_mtime for p in files), default=0.0),
                    "path": folder,
                }
            )
        return rows

    def remove(self, folder: Path) -> None:
        """Delete one artifact."""
        shutil.rmtree(folder)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as dotted ones: ``{"subspace": {"rank": 8}}`` becomes ``{"subspace.rank": 8}``."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two keys or configurations, an entry each: ``rank: 8 there, 16 here``; hashes shortened."""

    def short(value: Any) -> str:
        return repr(value[:12] + "..." if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32,}", value) else value)

    old, new = (flatten(json.loads(json.dumps(key))) for key in (there, here))
    return [
        f"{name}: {short(old.get(name))} there, {short(new.get(name))} here"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


# Options that say where and on what a run is computed, not what is computed; a revision's content counts.
PLACE_OPTIONS = {
    "config", "ckpt_path", "model_revision", "data_revision", "estimate", "run_dir", "artifact_dir", "data_dir",
    "data.corpus_dir",
    "evaluation.allow_code_execution", "subspace.device_map", "data.device_map", "evaluation.device_map",
    "trainer.accelerator", "trainer.strategy", "trainer.devices", "trainer.num_nodes", "trainer.logger",
    "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.default_root_dir", "trainer.profiler",
    "trainer.log_every_n_steps", "trainer.plugins", "trainer.detect_anomaly",
}  # fmt: skip


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a configuration that its results depend on, dotted; a callback may stop early, so they count."""
    settings = {k: v for k, v in flatten(config).items() if k not in PLACE_OPTIONS}
    return {
        k: v
        for k, v in settings.items()
        if not k.startswith("trainer.logger") and (k, v) != ("trainer.callbacks", None)
    }
