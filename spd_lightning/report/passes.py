"""Stage 5: pass@k by k, and where base and student change places, from ``passes`` of the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spd_lightning.report.render import Block, Heading, Table
from spd_lightning.report.runs import Run


def pass_blocks(run: Run) -> list[Block]:
    """A table; nothing for a run with one answer an example."""
    rows = run.results.get("passes") or []
    if not rows:
        return []
    bases = {row["task"]: row for row in rows if row["method"] == "base"}
    ks = sorted({int(k) for row in rows for k in row["pass"]})
    lines = [
        (
            row["task"],
            row["method"],
            row["decoding"] or "-",
            f"{row['n']} x {row['samples']}",
            *(f"{100 * row['pass'][str(k)]:.1f}" if str(k) in row["pass"] else "-" for k in ks),
            _crossing(row, bases.get(row["task"])),
        )
        for row in rows
    ]
    note = (
        "Unbiased, over all samples of an example (per cent). A method that leads at 1 and falls behind the base later "
        "says first what the base says among others; it solves no more examples."
    )
    header = ("benchmark", "method", "decoding", "n x samples", *(f"pass@{k}" for k in ks), "against the base")
    text = frozenset({0, 1, 2, len(header) - 1})
    return [Heading("pass@k", 3), Table(header, lines, text_columns=text, note=note, caption="pass@k by k")]


def _crossing(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    """In words, who leads and from which k on no longer; where the one ahead at 1 leads at the end again, where not."""
    if base is None or row["method"] == "base":
        return "-"
    if row["ahead_at_1"] is None:
        return "level at 1"
    leads = "ahead" if row["ahead_at_1"] else "behind"
    if row["crossover"] is not None:
        return f"{leads}, but not from k = {row['crossover']}"
    last = max(int(k) for k in row["pass"])
    others = [k for k, v in row["pass"].items() if k in base["pass"] and not _leads(v, base["pass"][k], leads)]
    return f"{leads} up to {last}" + (f", but not at {', '.join(others)}" if others else "")


def _leads(value: float, base: float, leads: str) -> bool:
    return value > base if leads == "ahead" else value < base
