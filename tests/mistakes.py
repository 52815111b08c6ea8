"""The table of mistakes: every `UserError` of the package, and the test that provokes it or why none can.

`sites` finds them in the sources: each ``raise`` of one, and each place that makes one, by file and the constant part
of its message. ``mistakes.json`` has a row for each: the id of a test, or a reason in words. `Listener` hears in which
test each is made, so that a row is proved whenever its test runs (``conftest.py``).

After a change: ``MISTAKES_SEEN=seen python -m pytest tests/unit/ROOM``, then ``python -m tests.mistakes seen``.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spd_lightning.errors import UserError

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "spd_lightning"
TABLE = ROOT / "tests" / "mistakes.json"
MAKERS = ("UserError", "InUseError", "unknown_name")
DEEP = 4  # frames of the package between a site and the error: `raise wrong(...)` has one

Table = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Site:
    """A place that tells a mistake.

    Attributes:
        file: Within the package.
        text: The message, what is filled in as ``{}``; the expression where nothing of it is constant.
        first: Its first line.
        last: Its last line.
    """

    file: str
    text: str
    first: int
    last: int


def words_of(node: ast.AST) -> str:
    """The text of a message; what is filled in stands as ``{}``."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(value) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return words_of(node.left) + words_of(node.right)
    return "{}"


@cache
def sites_of(file: str) -> tuple[Site, ...]:
    """The sites of one file of the package, in order."""
    found = []
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "id", "")
        ours = name in MAKERS if call is node else name.lstrip("_")[:1].islower() and name not in MAKERS
        if ours:
            text = " ".join(words_of(arg) for arg in call.args)
            if name not in MAKERS[:2] or not any(c.isalpha() for c in text):
                text = ast.unparse(call)
            found.append(Site(file, text, node.lineno, node.end_lineno or node.lineno))
    return tuple(sorted(found, key=lambda site: site.first))


def sites() -> list[Site]:
    """Every site of the package."""
    files = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
    return [site for file in files for site in sites_of(file)]


def read_table() -> Table:
    """File -> text -> the test that provokes it, or the reason why none does."""
    return json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {}


def is_test(entry: str) -> bool:
    """Whether an entry of the table is the id of a test."""
    return entry.startswith("tests/") and "::" in entry


@cache
def told_by() -> dict[str, list[tuple[str, str]]]:
    """Test -> what the table says that it provokes."""
    found: dict[str, list[tuple[str, str]]] = {}
    for file, rows in read_table().items():
        for text, entry in rows.items():
            if is_test(entry):
                found.setdefault(entry, []).append((file, text))
    return found


class Listener:
    """Hears of every `UserError` that is made in this process."""

    def __init__(self) -> None:
        self._lines: set[tuple[str, int]] = set()

    def start(self) -> None:
        """Listen from now on, for as long as the process lives."""
        lines = self._lines

        def made(error: UserError, *args: Any) -> None:
            Exception.__init__(error, *args)
            frame: Any = sys._getframe(1)
            for _ in range(DEEP):
                if frame is None or not frame.f_code.co_filename.startswith(str(PACKAGE)):
                    break
                lines.add((str(Path(frame.f_code.co_filename).relative_to(PACKAGE)), frame.f_lineno))
                frame = frame.f_back

        UserError.__init__ = made  # type: ignore[assignment]

    def heard(self) -> set[tuple[str, str]]:
        """The sites since the last call, as (file, text)."""
        found = {(f, s.text) for f, line in self._lines for s in sites_of(f) if s.first <= line <= s.last}
        self._lines.clear()
        return found


def seen(path: Path) -> Iterator[tuple[str, str, str]]:
    """What a run of tests has noted: file, text, test."""
    for line in path.read_text(encoding="utf-8").splitlines():
        file, text, test = json.loads(line)
        yield file, text, test


def renewed(table: Table, noted: Iterable[tuple[str, str, str]]) -> tuple[Table, list[Site]]:
    """The table without rows of sites that are gone, with those of new ones; and the sites without one.

    Of several tests, one of the units is taken before another, and the shortest name.
    """
    tests: dict[tuple[str, str], set[str]] = {}
    for file, text, test in noted:
        tests.setdefault((file, text), set()).add(test)
    new: Table = {}
    missing = []
    for site in sites():
        entry = table.get(site.file, {}).get(site.text)
        if entry is None and (found := tests.get((site.file, site.text))):
            entry = min(found, key=lambda test: (not test.startswith("tests/unit"), len(test), test))
        if entry is None:
            missing.append(site)
        else:
            new.setdefault(site.file, {})[site.text] = entry
    return new, missing


if __name__ == "__main__":
    table, missing = renewed(read_table(), [row for name in sys.argv[1:] for row in seen(Path(name))])
    TABLE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for site in missing:
        print(f"spd_lightning/{site.file}:{site.first}: no row: {site.text}")
    sys.exit(1 if missing else 0)
