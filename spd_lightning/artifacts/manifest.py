"""``manifest.json`` of a run folder: the SHA-256 of every file as the run left it, compared when the run is read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.checksums import changes, checksums, passing
from spd_lightning.artifacts.files import file_sha256, write_json
from spd_lightning.artifacts.reading import read_object

ADVICE = "Remove it and give the run's command again, which writes it anew."


class Manifest:
    """What a run folder held when its last command ended well.

    Args:
        folder: The run folder.
        left_out: What changes without a run's doing, right in the folder: logs and checkpoints.
        but: Files in those that do not.
    """

    def __init__(self, folder: Path, left_out: Collection[str], but: Collection[Path] = ()) -> None:
        self.folder, self.file = folder, folder / "manifest.json"
        self._left_out, self._but = {*left_out, self.file.name}, but
        self.aside = folder / ".manifest.json-new"  # while a command may change what it lists, and until one ends well
        self._before: list[tuple[Path, int, int]] = []

    def write(self) -> None:
        """List every finished file with its SHA-256."""
        but = {file.relative_to(self.folder).as_posix(): file_sha256(file) for file in self._but if file.is_file()}
        write_json(self.file, dict(sorted({**checksums(self.folder, self._left_out), **but}.items())))
        self.aside.unlink(missing_ok=True)

    def wrote(self, names: Collection[str]) -> None:
        """Take up files, or folders with all that is in them, that were written after the run ended."""
        if self.file.is_file():
            left_out = {p.name for p in self.folder.iterdir() if p.name not in names}
            others = {name: digest for name, digest in self._known().items() if name.split("/")[0] not in names}
            write_json(self.file, dict(sorted({**others, **checksums(self.folder, left_out)}.items())))

    def changed(
        self, only: Collection[str] = (), left_out: Collection[str] = (), before: bool = False
    ) -> list[str] | None:
        """What is not as the program wrote it, a few words each: files were changed or are missing.

        Args:
            only: Files and folders right in the run's that are looked at; none stands for all.
            left_out: Those that are not.
            before: Where the last command did not end well, take the list of the one before it: for files that no
                command writes in another way than they were.

        Returns:
            None where nothing tells: the last command on this folder did not end well.

        Raises:
            UserError: If the manifest cannot be read.
        """
        file = self.aside if before and not self.file.is_file() else self.file
        if not file.is_file():
            return None
        known = read_object(file, ADVICE)
        tops = {name: name.split("/")[0] for name in known}
        wanted = [name for name, top in tops.items() if (not only or top in only) and top not in left_out]
        return changes(self.folder, {name: known[name] for name in wanted})

    def take_away(self) -> None:
        """Put it aside while a command may change what it lists: if that is killed, nothing is told."""
        if self.file.is_file():
            self.file.rename(self.aside)
            self._before = self._stats()

    def put_back(self) -> None:
        """Have it again, if nothing was changed meanwhile."""
        if self._before and self._stats() == self._before:
            self.aside.rename(self.file)

    def _known(self) -> dict[str, Any]:
        return read_object(self.file, ADVICE)

    def _stats(self) -> list[tuple[Path, int, int]]:
        """Every file with its size and time of change."""
        found = ((p, p.stat()) for p in sorted(self.folder.rglob("*")) if p.is_file() and not passing(p.name))
        return [(p, stat.st_size, stat.st_mtime_ns) for p, stat in found]
