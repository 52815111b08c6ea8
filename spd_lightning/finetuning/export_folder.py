"""The folder of an export: it appears whole, and nothing that stands in its place is overwritten."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from spd_lightning.artifacts.checksums import passing
from spd_lightning.artifacts.files import typed_path, whole_folder
from spd_lightning.artifacts.locks import file_lock
from spd_lightning.errors import UserError


def check_empty(out: str | Path) -> Path:
    """The folder to write to, which is not there, or empty; what a killed export was writing in it does not count.

    Raises:
        UserError: If it holds anything.
    """
    out = typed_path(out)
    if out.exists() and (not out.is_dir() or any(not passing(path.name) for path in out.iterdir())):
        raise UserError(f"--out {out} already exists and is not an empty folder. Choose another; nothing was written.")
    return out


@contextlib.contextmanager
def whole_export(out: Path) -> Iterator[Path]:
    """A folder aside to write to; what it holds stands in ``out`` once the context ends well.

    A new folder appears whole. In one that was there (a mounted disk, say, or where the user is) the files do, those
    of the model's configuration last, without which nothing loads it.

    Raises:
        UserError: If ``out`` cannot be made, or another export was there first.
    """
    if out.is_dir():
        with file_lock(out / ".lock", f"--out {out}"):
            check_empty(out)
            whole = out / ".export-new"
            with whole_folder(whole, replace=True) as aside:
                yield aside
            for path in sorted(whole.iterdir(), key=lambda path: (path.name.endswith("config.json"), path.name)):
                path.rename(out / path.name)
            whole.rmdir()
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made: {error.strerror}. Choose another folder.") from error
    try:
        with whole_folder(out, shared=True) as aside:
            yield aside
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            check_empty(out)  # another export was first
        raise
