"""The configurations that come with the package: the folder ``configs/``, wherever the package was installed.

``--config gsm8k`` and ``--config configs/gsm8k.yaml`` mean the same file, in a checkout and outside one; a file of the
user's own goes before.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from spd_lightning.errors import UserError, unknown_name

FOLDER = Path(__file__).parent / "configs"  # in the repository a link to the folder beside the package


def names() -> list[str]:
    """What may be named, e.g. ``gsm8k``, ``paper/gsm8k``, ``trainer/ddp``, ``sweeps/rank``."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def find(name: str | Path) -> Path | None:
    """The file that a name stands for: one that is there, else the shipped one of that name; None for neither."""
    path = Path(name)
    if path.is_file():
        return path
    parts = path.parts[1:] if path.parts[:1] == (FOLDER.name,) else path.parts
    inside = FOLDER.joinpath(*parts) if parts and not path.is_absolute() and ".." not in parts else None
    if inside is None or path.suffix not in ("", ".yaml"):
        return None
    return shipped if (shipped := inside.with_suffix(".yaml")).is_file() else None


def summary(name: str) -> str:
    """What a shipped configuration is: its first line."""
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def copy(name: str, out: str | Path | None = None) -> Path:
    """Copy a shipped configuration, to be changed.

    Args:
        name: See `names`.
        out: File, or folder (one that is there, or ends in a slash); None is the name's last part in this folder.

    Raises:
        UserError: If there is no such configuration, or a file already stands there.
    """
    source = FOLDER / f"{name.removesuffix('.yaml')}.yaml"
    if source.relative_to(FOLDER).with_suffix("").as_posix() not in names():
        raise unknown_name("configuration", name, names(), "NAME")
    target = Path(out) if out is not None else Path(source.name)
    target = target / source.name if target.is_dir() or str(out).endswith("/") else target
    if target.exists():
        raise UserError(f"{target} is already there; nothing was written. Set --out to another file.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            target.unlink()  # a part of it would be in the way
        raise UserError(f"{target} cannot be written: {error.strerror}. Set --out to another file.") from error
    return target
