"""Files of training checkpoints: whether one is whole, what it holds, and what is done with one that is damaged.

A checkpoint is a zip file, whose parts have a CRC-32 each, so it is known to be whole without a second file beside it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from spd_lightning.artifacts.reading import OF_THE_FILE, foreign, reading


def checkpoint_damage(path: str | Path) -> str | None:
    """What is wrong with a checkpoint's file, as the rest of a sentence that its path begins; None for nothing.

    All of it is read.

    Raises:
        OSError: If that cannot be told, since nothing can be read now.
    """
    if (what := foreign(path)) is not None:
        return what
    try:
        with zipfile.ZipFile(path) as file:
            changed = file.testzip()
    except Exception as error:  # of a damaged directory, zipfile raises what it comes upon
        if isinstance(error, OSError) and error.errno is not None and error.errno not in OF_THE_FILE:
            raise
        return f"is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return None if changed is None else f"is damaged ({changed} is not as it was written)"


def read_checkpoint(path: str | Path, advice: str) -> dict[str, Any]:
    """What a checkpoint holds, its tensors mapped from the file; nothing in it is run.

    Args:
        path: The file.
        advice: What to do where it cannot be read, a sentence.

    Raises:
        UserError: If it is no checkpoint.
    """
    with reading(path, "a checkpoint", advice):
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(saved, dict):
            raise TypeError(f"it holds {type(saved).__name__}")
        return saved


def set_aside(path: Path, why: str) -> str:
    """Rename a damaged checkpoint to ``<name>.damaged``.

    Returns:
        What to tell the user.
    """
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    return f"{path} {why}: set aside as {aside.name}."


def last_good(folder: Path, damaged: Path) -> Path | None:
    """The newest whole checkpoint of a folder in which another was set aside; None where none was, or there is none.

    Args:
        folder: Of checkpoints.
        damaged: The one that was set aside, by the name it had.
    """
    if not damaged.with_name(f"{damaged.name}.damaged").is_file():
        return None
    others = sorted((p for p in folder.glob("*.ckpt") if p.is_file()), key=lambda p: p.stat().st_mtime, reverse=True)
    return next((path for path in others if checkpoint_damage(path) is None), None)
