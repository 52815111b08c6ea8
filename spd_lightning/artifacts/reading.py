"""Files that may be damaged, cut, empty or of another kind: read, or refused in one sentence that says what to do."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from spd_lightning.errors import UserError, disk_fault

Part = TypeVar("Part", list[str], dict[str, Any])

# What the system says of a file that is gone, of another kind, or on a bad part of the disk. All else (too many open
# files, no permission, a network disk that is not there) says nothing of the file, which may be whole.
OF_THE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO)
DEEPEST = 200  # levels of a YAML file; libyaml's loader knows no limit, and ends the process where the stack does
MOST = 100_000  # values of one


@contextlib.contextmanager
def reading(path: str | Path, what: str, advice: str) -> Iterator[None]:
    """Turn whatever is raised while a file is read into one `UserError`, which a `UserError` stays.

    Libraries raise what they like on a damaged file, another thing with every version, so nothing is picked out.

    Args:
        path: The file.
        what: What it should be, with its article: "a safetensors file".
        advice: What to do, a sentence.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (fault := disk_fault(error, path)) is not None:
            raise UserError(fault) from error
        raise UserError(f"{path} {foreign(path) or _unreadable(what, error)}. {advice}") from error


def _unreadable(what: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"cannot be read as {what} ({type(error).__name__}{f': {reason}' if reason else ''})"


def foreign(path: str | Path) -> str | None:
    """What stands in a file's place, as the rest of a sentence that its path begins; None where it may be the file.

    Raises:
        OSError: If that cannot be told, since nothing can be read now.
    """
    path = Path(path)
    if path.is_dir():
        return "is a folder, not a file"
    if not path.exists():
        return "is a link to a file that is not there" if path.is_symlink() else "does not exist"
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        if error.errno not in OF_THE_FILE:
            raise
        return f"cannot be read: {error.strerror}"
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself"
    if head.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        return "is a web page (HTML) that was saved in its place"
    return None


def missing(path: str | Path, what: str = "file") -> str:
    """Why a path that was named is no file, or no folder: nothing is there, or the other one.

    Args:
        path: The path.
        what: ``file`` or ``folder``.
    """
    other = {"file": "folder", "folder": "file"}[what]
    return f"that is a {other}, not a {what}" if Path(path).exists() else f"there is no such {what}"


def absent(path: str | Path) -> str:
    """The same of what is no folder, as the rest of a sentence that its path begins."""
    return "is a file, not a folder" if Path(path).exists() else "does not exist"


def read_text(path: str | Path, what: str, advice: str) -> str:
    """The text of a UTF-8 file.

    Raises:
        UserError: If it cannot be read.
    """
    with reading(path, what, advice):
        return Path(path).read_text(encoding="utf-8")


def read_json(path: str | Path, advice: str) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: If it cannot be read, or holds text that cannot be encoded.
    """
    with reading(path, "JSON", advice):
        found = json.loads(read_text(path, "JSON", advice))
        json.dumps(found, ensure_ascii=False).encode()  # half a character (a lone surrogate) could never be written
        return found


def read_object(path: str | Path, advice: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        UserError: If it cannot be read, or holds something else.
    """
    return _mapping(path, read_json(path, advice), "JSON object", advice)


def part_of(path: str | Path, whole: Mapping[str, Any], name: str, kind: type[Part], advice: str) -> Part:
    """What a file holds under a name, as a list of names or a mapping; an empty one where it holds nothing there.

    Args:
        path: The file.
        whole: What it holds.
        name: Of the part.
        kind: ``list`` (of strings) or ``dict``.
        advice: What to do where it is another thing, a sentence.

    Raises:
        UserError: If it is.
    """
    found = whole.get(name)
    if found is None:
        return kind()
    if isinstance(found, kind) and all(isinstance(item, str) for item in found):
        return found
    what = "list of names" if kind is list else "mapping of names to values"
    raise UserError(f"{path} holds {name}={repr(found)[:80]} where a {what} is needed. {advice}")


def read_yaml(path: str | Path, advice: str) -> dict[str, Any]:
    """The mapping that a YAML file holds; empty for an empty one.

    Raises:
        UserError: If it cannot be read, or holds something else.
    """
    import yaml

    with reading(path, "YAML", advice):
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
        text = Path(path).read_text(encoding="utf-8")
        _check_size(yaml.parse(text, loader))
        found = yaml.load(text, loader)
    return {} if found is None else _mapping(path, found, "mapping of names to values", advice)


def _check_size(events: Iterable[Any]) -> None:
    """Refuse YAML that is nested without end, or stands for more than it holds: aliases of aliases, or of itself.

    Raises:
        ValueError: If so.
    """
    sizes: dict[str, int] = {}  # of what has a name
    open_: list[tuple[str | None, int]] = [(None, 0)]  # name, and values so far, of what is not at its end
    for event in events:
        kind, size = type(event).__name__, 0
        if kind in ("MappingStartEvent", "SequenceStartEvent"):
            open_.append((event.anchor, 1))
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            name, size = open_.pop()
            sizes |= {name: size} if name else {}
        elif kind == "AliasEvent":
            size = sizes.get(event.anchor, 1)
            if any(event.anchor == name for name, _ in open_):
                raise ValueError("it holds itself")
        elif kind == "ScalarEvent":
            size = 1
        open_[-1] = (open_[-1][0], open_[-1][1] + size)
        if len(open_) > DEEPEST or open_[-1][1] > MOST:
            raise ValueError("it is nested too deep" if len(open_) > DEEPEST else f"more than {MOST:,} values")


def or_nothing(read: Callable[[Path, str], dict[str, Any]], path: Path) -> dict[str, Any]:
    """What a file holds that is only looked at, as in a list of runs; empty where it is not there or damaged.

    Args:
        read: `read_object` or `read_yaml`.
        path: The file.
    """
    try:
        return read(path, "")
    except UserError:
        return {}


def _mapping(path: str | Path, found: Any, what: str, advice: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {type(found).__name__} where a {what} is needed. {advice}")
    return found
