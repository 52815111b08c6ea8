"""What a report is made of (sections, tables, lists, verbatim text, figures) and how that becomes text or Markdown.

`html` makes the page of the same blocks. Whatever a model wrote is escaped wherever it stands.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from spd_lightning.report.chart import Chart


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        header: Names of the columns.
        rows: Cells, as many per row as there are columns.
        marked: (row, column) of cells to stress.
        text_columns: Columns aligned left; the others hold numbers and are aligned right.
        note: A sentence under the table.
        mark: What stands behind a marked cell in plain text: a star where blocks of seeds decide, else another sign.
        caption: What the rows are, in a line.
        greyed: Rows that decide nothing, shown weaker on a page; a cell of theirs says why.
    """

    kind: ClassVar[str] = "table"
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    marked: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    text_columns: frozenset[int] = frozenset({0})
    note: str = ""
    mark: str = "*"
    caption: str = ""
    greyed: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Heading:
    """A heading of level 2 or 3."""

    kind: ClassVar[str] = "heading"
    text: str
    level: int = 2


@dataclass(frozen=True)
class Code:
    """Verbatim text: a command, a configuration, or what a model wrote. ``folded`` hides it behind its title."""

    kind: ClassVar[str] = "code"
    text: str
    title: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    items: list[str]


@dataclass(frozen=True)
class Figure:
    """A chart: inline on the page, a file ``plots/<name>.*`` beside the Markdown."""

    kind: ClassVar[str] = "figure"
    chart: Chart
    name: str
    caption: str


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, side by side with what differs marked."""

    kind: ClassVar[str] = "pair"
    prompt: str
    names: tuple[str, str]
    texts: tuple[str, str]


@dataclass(frozen=True)
class Explorer:
    """Samples that one looks through on the page; ``instead`` is what stands in Markdown."""

    kind: ClassVar[str] = "explorer"
    samples: Mapping[str, Any]
    instead: Sequence[Block]


Block = Heading | Code | Bullets | Explorer | Figure | Pair | Table | str


@dataclass(frozen=True)
class Section:
    """A part of the page: its title, what it comes to in a line, and its blocks, which the page folds away.

    Attributes:
        title: Of the section.
        headline: One sentence.
        blocks: The evidence.
        opened: Whether the page shows the blocks from the start.
    """

    title: str
    headline: str
    blocks: Sequence[Block]
    opened: bool = False


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def clean(text: Any) -> str:
    """Text that every file and terminal can hold: control characters and lone surrogates become visible escapes."""
    if isinstance(text, str) and text.isascii() and not _CONTROLS.search(text):
        return text
    shown = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        c if c in "\n\t" or ((c.isprintable() or c.isspace()) and c >= " ") else f"\\x{ord(c):02x}" for c in shown
    )


def text_table(table: Table) -> str:
    """The table for a terminal; stressed cells carry an asterisk."""
    cells = [
        [clean(c).replace("\n", " ") + (table.mark if (i, j) in table.marked else "") for j, c in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    widths = [max(len(row[j]) for row in [list(table.header), *cells]) for j in range(len(table.header))]

    def line(row: Sequence[str]) -> str:
        padded = [c.ljust(w) if j in table.text_columns else c.rjust(w) for j, (c, w) in enumerate(zip(row, widths))]
        return "  ".join(padded).rstrip()

    lines = [line(table.header), "  ".join("-" * w for w in widths), *(line(row) for row in cells)]
    return "\n".join([*lines, *([table.note] if table.note else [])])


def escape_markdown(text: Any) -> str:
    """Text for a Markdown paragraph or table cell: nothing in it acts as markup."""
    shown = html.escape(clean(text).replace("\n", " "), quote=False)
    for character in "\\`*_|[]":
        shown = shown.replace(character, "\\" + character)
    return shown


def markdown_table(table: Table, plain: bool = False) -> str:
    """The table in GitHub's Markdown; stressed cells are bold and carry the mark.

    Args:
        table: What to render.
        plain: Write cells as they are, for names that are also read as they stand: on a terminal, in a model card.
    """
    cell = clean if plain else escape_markdown
    rule = ["---" if j in table.text_columns else "---:" for j in range(len(table.header))]
    lines = [" | ".join(cell(c) for c in table.header), " | ".join(rule)]
    for i, row in enumerate(table.rows):
        cells = [cell(c) for c in row]
        lines.append(
            " | ".join(f"**{c}{cell(table.mark)}**" if (i, j) in table.marked else c for j, c in enumerate(cells))
        )
    text = "\n".join(f"| {line} |" for line in lines)
    return f"{text}\n\n{escape_markdown(table.note)}" if table.note else text


def render_markdown(title: str, blocks: Sequence[Block], plots: str | None = "png") -> str:
    """Blocks as Markdown that refers to ``plots/<name>.<plots>``; without plots, figures are their numbers in words."""
    parts = [f"# {escape_markdown(title)}", *(_markdown(block, plots) for block in blocks)]
    return "\n\n".join(parts) + "\n"


def flat(sections: Sequence[Section]) -> list[Block]:
    """Sections as one list of blocks."""
    blocks: list[Block] = []
    for section in sections:
        blocks += [Heading(section.title), *([section.headline] if section.headline else []), *section.blocks]
    return blocks


def _markdown(block: Block, plots: str | None) -> str:
    match block:
        case Table():
            return markdown_table(block)
        case Heading():
            return f"{'#' * block.level} {escape_markdown(block.text)}"
        case Bullets():
            return "\n".join(f"- {escape_markdown(item)}" for item in block.items)
        case Figure():
            if plots is None:
                return escape_markdown(f"{block.caption} {block.chart.describe()}")
            return f"![{escape_markdown(block.caption)}](plots/{block.name}.{plots})"
        case Pair():
            texts = zip(("prompt", *block.names), (block.prompt, *block.texts))
            return "\n\n".join(_fenced(text, name) for name, text in texts)
        case Explorer():
            return "\n\n".join(_markdown(part, plots) for part in block.instead)
        case Code():
            return _fenced(block.text, block.title)
        case str():
            return escape_markdown(block)


def _fenced(text: str, title: str) -> str:
    """Verbatim text in a fence that it cannot close."""
    shown = clean(text)
    fence = "`" * max(3, 1 + max((len(m) for m in re.findall("`+", shown)), default=0))
    name = f"{escape_markdown(title)}\n\n" if title else ""
    return f"{name}{fence}text\n{shown}\n{fence}"
