"""A few samples as they stand in the Markdown report: what became right, what became wrong, one of each verdict."""

from __future__ import annotations

from typing import Any

from spd_lightning.report.render import Block, Code, Heading
from spd_lightning.report.runs import Run

SHOWN_CHARACTERS = 1200
"""Longer model outputs are cut after this many characters; the files hold all of them."""


def examples(run: Run) -> list[Block]:
    """Per benchmark: what changed from base to the trained model, and a right and a wrong answer."""
    blocks: list[Block] = []
    for task in dict.fromkeys(task for task, _ in run.samples):
        by_method = {
            m: [r for r in rows if r.get("correct") is not None] for (t, m), rows in run.samples.items() if t == task
        }
        blocks.append(Heading(task, 3))
        base = {(r["id"], r.get("sample", 0)): r for r in by_method.get("base", [])}
        for method in (m for m in by_method if m != "base" and base):
            changed = [(base[k], r) for r in by_method[method] if (k := (r["id"], r.get("sample", 0))) in base]
            gained = [pair for pair in changed if not pair[0]["correct"] and pair[1]["correct"]]
            lost = [pair for pair in changed if pair[0]["correct"] and not pair[1]["correct"]]
            blocks.append(
                f"{method} against base, sample by sample: {len(gained)} wrong became right, {len(lost)} right became "
                f"wrong, {len(changed) - len(gained) - len(lost)} unchanged."
            )
            for name, pairs in (("became right", gained), ("became wrong", lost)):
                for before, after in pairs[:1]:
                    blocks.append(_sample(after, f"{method}, {name}", f"base: {before.get('completion')}"))
        for method, rows in by_method.items():
            for name, verdict in (("right", True), ("wrong", False)):
                row = next((r for r in rows if bool(r["correct"]) is verdict), None)
                if row is not None:
                    blocks.append(_sample(row, f"{method}, {name}"))
    return blocks


def _sample(row: dict[str, Any], title: str, before: str = "") -> Code:
    lines = [
        f"prompt: {row.get('prompt')}",
        *([before] if before else []),
        f"completion: {row.get('completion')}",
        f"answer: {row.get('answer')!r}   expected: {row.get('expected')!r}   reason: {row.get('reason')}",
    ]
    return Code("\n\n".join(_cut(line) for line in lines), f"{title} ({row['id']})", folded=True)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + f" ... ({len(text):,} characters)"
