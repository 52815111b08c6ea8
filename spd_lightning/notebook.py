"""How objects look in a notebook and a console: a line of facts, and the same as a small table."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any


class Shown:
    """Gives a class `__repr__` and `_repr_html_`, of `shown_facts` and `shown_rows`. Neither computes or raises."""

    def shown_facts(self) -> Mapping[str, Any]:
        """What there is to know at a glance, by name."""
        return {}

    def shown_rows(self) -> Sequence[Mapping[str, Any]]:
        """A table below the facts, a mapping a row; none for most."""
        return ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self.shown_facts().items())})"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        facts = [{"": name, " ": value} for name, value in self.shown_facts().items()]
        return f"<b>{type(self).__name__}</b>{html_rows(facts)}{html_rows(self.shown_rows())}"


def html_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table whose header is the keys of the first; empty for none."""
    if not rows:
        return ""
    header = "".join(f"<th>{_escaped(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{_escaped(row.get(name))}</td>" for name in rows[0]) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{header}</tr>{body}</table>"


def _escaped(value: Any) -> str:
    return html.escape(str(value)).replace("\n", "<br>")
