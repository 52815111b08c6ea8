"""What a report is made of (tables, headings, lists, verbatim text, plots) and how that becomes text, Markdown or HTML.

The HTML page needs nothing but itself: images are inlined, there is no script and no address outside. Whatever a model
wrote is escaped wherever it stands.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; } .note, figcaption { font-size: .85rem; opacity: .8; }
figure { margin: 1rem 0; } img { max-width: 100%; background: #fff; border-radius: 4px; }
pre { background: var(--soft); padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap; font-size: .85rem; }
summary { cursor: pointer; }
"""


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
    """

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    marked: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    text_columns: frozenset[int] = frozenset({0})
    note: str = ""
    mark: str = "*"


@dataclass(frozen=True)
class Heading:
    """A heading of level 2 or 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Code:
    """Verbatim text: a command, a configuration, or what a model wrote. ``folded`` hides it behind its title."""

    text: str
    title: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: list[str]


@dataclass(frozen=True)
class Image:
    """A plot, already written; ``path`` is below the folder of the report."""

    path: Path
    caption: str


Block = Heading | Code | Bullets | Image | Table | str


def clean(text: Any) -> str:
    """Text that every file and terminal can hold: control characters and lone surrogates become visible escapes."""
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
    """The table in GitHub's Markdown; stressed cells are bold.

    Args:
        table: What to render.
        plain: Write cells as they are, for names that are also read as they stand: on a terminal, in a model card.
    """
    cell = clean if plain else escape_markdown
    rule = ["---" if j in table.text_columns else "---:" for j in range(len(table.header))]
    lines = [" | ".join(cell(c) for c in table.header), " | ".join(rule)]
    for i, row in enumerate(table.rows):
        cells = [cell(c) for c in row]
        lines.append(" | ".join(f"**{c}**" if (i, j) in table.marked else c for j, c in enumerate(cells)))
    text = "\n".join(f"| {line} |" for line in lines)
    return f"{text}\n\n{escape_markdown(table.note)}" if table.note else text


def html_table(table: Table) -> str:
    """The table as HTML, escaped; stressed cells are ``<strong>``."""

    def cell(tag: str, text: str, j: int, strong: bool = False) -> str:
        shown = html.escape(clean(text))
        side = "" if j in table.text_columns else ' class="number"'
        return f"<{tag}{side}>{f'<strong>{shown}</strong>' if strong else shown}</{tag}>"

    head = "".join(cell("th", c, j) for j, c in enumerate(table.header))
    body = "\n".join(
        "<tr>" + "".join(cell("td", c, j, (i, j) in table.marked) for j, c in enumerate(row)) + "</tr>"
        for i, row in enumerate(table.rows)
    )
    note = f'<p class="note">{html.escape(clean(table.note))}</p>' if table.note else ""
    table_html = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">{table_html}</div>\n{note}'


def render_html(title: str, blocks: Sequence[Block]) -> str:
    """The page as one HTML file without any reference to another."""
    parts = [_html(block) for block in blocks]
    name = html.escape(clean(title))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Table():
            return html_table(block)
        case Heading():
            return f"<h{block.level}>{html.escape(clean(block.text))}</h{block.level}>"
        case Bullets():
            return "<ul>\n" + "\n".join(f"<li>{_inline(item)}</li>" for item in block.items) + "\n</ul>"
        case Image():
            data = base64.b64encode(block.path.read_bytes()).decode("ascii")
            caption = html.escape(block.caption)
            image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
            return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
        case Code():
            body, name = f"<pre>{html.escape(clean(block.text))}</pre>", html.escape(clean(block.title))
            if block.folded:
                return f"<details><summary>{name}</summary>{body}</details>"
            return f'<p class="note">{name}</p>{body}' if name else body
        case str():
            return f"<p>{_inline(block)}</p>"


def _inline(text: str) -> str:
    """Escaped text, with `code` in back quotes."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(clean(text)))


def render_markdown(title: str, blocks: Sequence[Block], out: Path) -> str:
    """The page as Markdown that refers to ``plots/*.png``."""
    return "\n\n".join([f"# {escape_markdown(title)}", *(_markdown(block, out) for block in blocks)]) + "\n"


def _markdown(block: Block, out: Path) -> str:
    match block:
        case Table():
            return markdown_table(block)
        case Heading():
            return f"{'#' * block.level} {escape_markdown(block.text)}"
        case Bullets():
            return "\n".join(f"- {escape_markdown(item)}" for item in block.items)
        case Image():
            return f"![{escape_markdown(block.caption)}]({block.path.relative_to(out).as_posix()})"
        case Code():
            text = clean(block.text)
            fence = "`" * max(3, 1 + max((len(m) for m in re.findall("`+", text)), default=0))
            name = f"{escape_markdown(block.title)}\n\n" if block.title else ""
            return f"{name}{fence}text\n{text}\n{fence}"
        case str():
            return escape_markdown(block)
