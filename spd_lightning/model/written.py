"""Folders of models that this program wrote: a list of checksums stands in each, compared before it is used.

A dequantised copy in the cache, the base and the student of a later round: they are made of what is checked elsewhere,
so one that is damaged is written anew.
"""

from __future__ import annotations

from pathlib import Path

from spd_lightning.artifacts.checksums import changes, checksums, is_sealed, sealed
from spd_lightning.artifacts.files import write_json
from spd_lightning.artifacts.reading import part_of, read_object
from spd_lightning.errors import UserError

FILE = "spd-checksums.json"


def list_files(folder: Path) -> None:
    """Note what a folder holds, once everything in it is written."""
    write_json(folder / FILE, sealed({"files": checksums(folder)}))


def damage_of(folder: Path) -> list[str]:
    """What of a folder is not as it was written, a few words each; nothing of one without a list, as others write it.

    All its files are read, large ones once per process.
    """
    if not (folder / FILE).is_file():
        return []
    try:
        record = read_object(folder / FILE, "")
        files = part_of(folder / FILE, record, "files", dict, "")
    except UserError:
        return [f"{FILE} cannot be read"]
    return changes(folder, files) if is_sealed(record) else [f"{FILE} was changed"]


def check_written(folder: Path, name: str) -> None:
    """Refuse a model's folder that this program wrote and somebody changed since.

    Args:
        folder: The folder.
        name: The model, as the user named it.

    Raises:
        UserError: If so.
    """
    if why := damage_of(folder):
        raise UserError(
            f"model_name_or_path={name!r} is not as it was written: {'; '.join(why)}. Put the old files back, or "
            f"remove the folder and have it made again by its command; if the change is meant, remove {FILE}."
        )
