"""The folder of one run: which configuration owns it, from what its artifacts were made, and its checksums."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.checksums import file_sha256
from spd_lightning.artifacts.files import write_atomic, write_json
from spd_lightning.artifacts.settings import differences, settings_of
from spd_lightning.errors import UserError

KEYS = "keys.json"
CLONE = 0x40049409  # ioctl FICLONE: a copy that shares its blocks until one of the two is changed


class RunFolder:
    """Folder of one run: its configuration, artifacts, results, and a manifest of checksums.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def configuration(self) -> dict[str, Any]:
        """What `claim` wrote to ``config.yaml``; empty where there is none."""
        import yaml

        known = self.path / "config.yaml"
        return yaml.safe_load(known.read_text(encoding="utf-8")) if known.is_file() else {}

    def environment(self) -> dict[str, Any]:
        """What stands in ``environment.json``; empty where there is none."""
        file = self.path / "environment.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def claim(self, config: Mapping[str, Any], dump: str, environment: Mapping[str, Any]) -> None:
        """Take the folder for a configuration: a new one is made, one of the same configuration is continued.

        Args:
            config: The configuration.
            dump: Its text for ``config.yaml``, with the comments that the user may want.
            environment: Written to ``environment.json``; its ``fingerprint`` is that of the run, its ``content`` what
                that covers beside the options.

        Raises:
            UserError: If the folder holds another configuration, or something that is no run. Nothing is changed then.

        Ranks:
            Rank 0 only.
        """
        if (self.path / "config.yaml").is_file():
            known, there = self.configuration(), self.environment()
            old, new = settings_of(known), settings_of(config)
            if there.get("fingerprint") == environment["fingerprint"] and old.get("template_date") == new.get(
                "template_date"
            ):
                self._sweep()
                return
            differ = differences(old, new) or differences(there.get("content", {}), environment.get("content", {}))
            what = "; ".join(differ) or "it was written by another version of this program"
            raise UserError(
                f"run_dir={self.path} holds another configuration ({what}). Leave --run_dir out, or choose another."
            )
        if self.path.is_dir() and any(p.name != ".lock" for p in self.path.iterdir()):
            raise UserError(
                f"run_dir={self.path} is not empty and holds no run. Leave --run_dir out, or choose another."
            )
        write_json(self.path / "environment.json", environment)
        write_atomic(self.path / "config.yaml", dump)

    def _sweep(self) -> None:
        """Remove what a killed process was writing: files and folders aside that were not renamed yet."""
        for path in [*self.path.rglob(".*-new")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def release(self) -> None:
        """Give the folder back if it holds nothing but what `claim` wrote: a mistake was found before any work.

        Ranks:
            Rank 0 only.
        """
        claimed = [self.path / name for name in ("config.yaml", "environment.json")]
        if all(p in claimed or p.name == ".lock" for p in self.path.iterdir()):
            for file in claimed:
                file.unlink(missing_ok=True)

    # -- what its artifacts were made from ---------------------------------------------------------------------------

    def changed_inputs(self, stage: str, key: Mapping[str, Any]) -> str | None:
        """Why a stage's artifact may not be put here: what was made from another one stands in the folder.

        A folder without a student, a checkpoint or results takes any.

        Args:
            stage: subspace or corpus.
            key: What the artifact depends on.

        Returns:
            The message of a `UserError`; None where all is well.
        """
        there = self.keys().get(stage)
        made = ("adapter", "results.json", "checkpoints/last.ckpt")
        if there is None or not any((self.path / name).exists() for name in made):
            return None
        differ = differences(there, key)
        if not differ:
            return None
        return (
            f"run_dir={self.path} holds a run made from another {stage} ({'; '.join(differ)}): its inputs changed "
            "under the same options. Set --run_dir to a new folder; the old one keeps what it has."
        )

    def record(self, stage: str, key: Mapping[str, Any]) -> None:
        """Note in ``keys.json`` what the stage's artifact in this folder depends on.

        Ranks:
            Rank 0 only.
        """
        keys = self.keys()
        if keys.get(stage) != json.loads(json.dumps(key)):
            write_json(self.path / KEYS, {**keys, stage: dict(key)})

    def keys(self) -> dict[str, Any]:
        """What was recorded, by stage."""
        file = self.path / KEYS
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def note_revisions(self, commits: Mapping[str, str]) -> None:
        """Record in ``environment.json`` at which commits data sets of the hub were taken, by id.

        Ranks:
            Rank 0 only.
        """
        environment = self.environment()
        known = environment.get("revisions", {})
        if commits and environment and known.get("data", {}) != {**known.get("data", {}), **commits}:
            known = {**known, "data": {**known.get("data", {}), **commits}}
            write_json(self.path / "environment.json", {**environment, "revisions": known})

    def add(self, source: Path, name: str) -> Path:
        """Put a copy of an artifact's file under ``name``, so that editing it leaves the artifact alone."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}-new")
        try:
            _copy(source, temporary)
            os.replace(temporary, target)
        except OSError as error:
            raise UserError(
                f"Cannot write {target}: {error.strerror}. Free space, or choose another folder."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def add_folder(self, source: Path, name: str) -> Path:
        """Put a copy of an artifact's folder under ``name``; it appears when it is whole."""
        target = self.path / name
        aside = target.with_name(f".{target.name}-new")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            shutil.copytree(source, aside, copy_function=lambda old, new: _copy(Path(old), Path(new)))
            aside.rename(target)
        except OSError as error:
            raise UserError(
                f"Cannot write {target}: {error.strerror or error}. Free space, or choose another folder."
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return target

    def write_manifest(self) -> None:
        """List every finished file with its SHA-256; logs and checkpoints, which change, are left out."""
        files = {}
        for path in sorted(p for p in self.path.rglob("*") if p.is_file()):
            name = path.relative_to(self.path).as_posix()
            if name.split("/")[0] not in ("logs", "checkpoints", "manifest.json", ".lock"):
                files[name] = file_sha256(path)
        write_json(self.path / "manifest.json", files)


def _copy(source: Path, target: Path) -> None:
    """Copy a file; where the file system can, without taking space for what stays the same."""
    with open(source, "rb") as old, open(target, "wb") as new, contextlib.suppress(OSError):
        fcntl.ioctl(new.fileno(), CLONE, old.fileno())
        return
    shutil.copyfile(source, target)
