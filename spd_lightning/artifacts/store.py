"""The artifact store that runs share: what an artifact depends on is its fingerprint, which names its folder.

An artifact is a folder ``<stage>-<fingerprint>/``. The fingerprint covers exactly what it depends on and the version of
the stage, so another setting is another folder: nothing stale is ever reused, and nothing is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.files import write_json

# Raised by hand when a stage's arithmetic or file format changes, so that older artifacts are not reused.
STAGE_VERSION = {"moments": 4, "subspace": 2, "corpus": 3, "student": 2, "scores": 7, "movement": 1, "run": 3}
COMPLETE = "complete.json"


def fingerprint(stage: str, **key: Any) -> str:
    """16 hexadecimal digits that stand for ``key`` (JSON values) and the version of the stage.

    >>> fingerprint("moments", seed=1) == fingerprint("moments", seed=1)
    True
    """
    payload = json.dumps({"stage": stage, "version": STAGE_VERSION[stage], **key}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(payload.encode()).hexdigest()[:16]


class ArtifactStore:
    """Folder of artifacts that runs share.

    Args:
        root: The store's folder; made on first use.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._asked: dict[Path, None] = {}

    def folder(self, stage: str, key: Mapping[str, Any]) -> Path:
        """The folder of an artifact, whether it exists or not."""
        folder = self.root / f"{stage}-{fingerprint(stage, **key)}"
        self._asked[folder] = None
        return folder

    def used(self) -> list[str]:
        """Names of the finished artifacts that were asked for through this object: those that its run is made of."""
        return [folder.name for folder in self._asked if self.is_complete(folder)]

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
