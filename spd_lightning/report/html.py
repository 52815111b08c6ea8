"""The page: a template with the blocks of `render`, charts as inline SVG, style and script inside; nothing outside.

Every value is escaped by the template engine; what is no text of ours comes in as data, never as markup.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from spd_lightning.report.render import Block, Heading, Section, clean
from spd_lightning.report.svg import draw

LONGEST_DIFF = 20_000  # characters of both texts; longer ones are not compared


def _shown(value: Any) -> Any:
    """A value as it stands on the page, before it is escaped."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("spd_lightning.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"draw": draw, "inline": _inline, "anchor": anchor, "marked": marked, "briefly": briefly}
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.globals["source"] = lambda name: Markup(environment.loader.get_source(environment, name)[0])  # type: ignore[union-attr]
    return environment


def render_page(answer: Any, sections: Sequence[Section]) -> str:
    """A report as one HTML file without any reference to another.

    Args:
        answer: The first screen, an `answer.Answer`.
        sections: The evidence, folded.
    """
    template = _environment().get_template("page.html")
    return template.render(title=answer.question, answer=answer, sections=sections)


def render_html(title: str, blocks: Sequence[Block]) -> str:
    """Blocks as a page of its own, nothing folded; headings of level 2 are its contents."""
    before: list[Block] = []
    parts: list[tuple[str, list[Block]]] = []
    for block in blocks:
        if isinstance(block, Heading) and block.level == 2:
            parts.append((block.text, []))
        else:
            (parts[-1][1] if parts else before).append(block)
    sections = [Section(name, "", found, opened=True) for name, found in parts]
    template = _environment().get_template("page.html")
    return template.render(title=title, answer=None, intro=before, sections=sections)


def anchor(title: str) -> str:
    """The name of a section in addresses."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def briefly(notice: str) -> str:
    """The first part of a notice: what it says, without why and what to do.

    >>> briefly("bbh was not run: The data set is not there. Set data_dir.")
    'bbh was not run'
    """
    return re.split(r": (?=[A-Z])|\.(?: |$)", notice, maxsplit=1)[0]


def _inline(text: str) -> Markup:
    """Escaped text, with `code` in back quotes."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(clean(text)))))


def marked(texts: Sequence[str]) -> tuple[Markup, Markup]:
    """Two texts, escaped, with the words that only one of them has marked."""
    a, b = ([*re.findall(r"\s+|\w+|[^\w\s]", clean(text))] for text in texts)
    if sum(map(len, texts)) > LONGEST_DIFF:
        return escape("".join(a)), escape("".join(b))
    codes = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    old, new = Markup(), Markup()
    for kind, a0, a1, b0, b1 in codes:
        before, after = escape("".join(a[a0:a1])), escape("".join(b[b0:b1]))
        old += Markup("<del>{}</del>").format(before) if kind != "equal" and before else before
        new += Markup("<ins>{}</ins>").format(after) if kind != "equal" and after else after
    return old, new
