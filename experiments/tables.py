"""The tables of a study in the verdict: its contrasts, its students, and what is not counted."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.judging import NOTHING, Blocks, answers_of, base_share
from experiments.study import Study
from spd_lightning.report.render import Block, Table
from spd_lightning.report.wording import format_interval, format_kl, format_p, format_word

NOTE = (
    "Equivalence (no difference) is tested row by row, without correction. Residual of all arms: second figure, wrong "
    "where variances differ."
)


def contrasts_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of a family."""

    def points(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    def interval(values: Sequence[float] | None) -> str:
        return format_interval(values, "acc", sign=True) or "-"

    table, marked = [], set()
    for i, row in enumerate(rows):
        contrast, full = row["contrast"], {**NOTHING, **row}
        shown = full["students"] or full
        if full["word"] in ("higher", "lower"):
            marked.add((i, 4))
        p_holm, power = full["p_holm"], full.get("equivalence_power")
        table.append(
            (
                f"{contrast.b} - {contrast.a}",
                contrast.task,
                *(points(score) for score in row["scores"]),
                "-" if not full["blocks"] else f"{100 * full['delta']:+.1f}",
                interval(shown["ci95"]),
                format_p(p_holm),
                str(full["blocks"]),
                str(full.get("n", "-")),
                points(full.get("smallest_effect")),
                "-" if power is None else f"{100 * power:.0f}%",
                interval(full["pooled"]),
                format_word(full),
            )
        )
    greyed = frozenset(i for i, row in enumerate(rows) if row["blocks"] and not row["judged"])
    family = rows[0]["family"]
    how = {"none": "one contrast", "holm": "corrected by Holm", "exploratory": "intervals without stars"}
    header = ("difference of", "task", "a", "b", "points", "95% interval", "p", "blocks", "n", "smallest effect seen")
    return Table(
        (*header, "power of equivalence", "residual of all arms", "verdict"),
        table,
        frozenset(marked),
        frozenset({0, 1, 5, 11, 12}),
        f"{family.name}: {how[family.correction]}. {NOTE}",
        greyed=greyed,
    )


def bases_line(study: Study, blocks: Blocks) -> list[Block]:
    found = [(task, base_share(blocks, task)) for task in study.content["n"]]
    shown = ", ".join(f"{task} {100 * share:.1f}%" for task, share in found if share is not None)
    return [f"The base: {shown}."] if shown else []


def students_table(study: Study, blocks: Blocks) -> list[Block]:
    """What the students were trained on and whether they moved: means over whole blocks, by arm."""

    def mean(values: Sequence[float], form: Callable[[float], str]) -> str:
        return form(statistics.fmean(values)) if values else "-"

    rows = []
    for arm in study.arms:
        cells = [cell for block in blocks.whole.values() if (cell := block.get(arm.name)) and cell["student"]]
        if not cells:
            continue
        moved = [m for cell in cells if (m := cell["facts"].get("moved"))]
        made = [c for cell in cells if (c := cell["facts"].get("corpus"))]
        budgets, kept = ([c[name] for c in made if name in c] for name in ("budget", "kept"))
        rows.append(
            (
                arm.name,
                str(len(cells)),
                ", ".join(map(str, sorted({cell["student"]["step"] for cell in cells}))),
                mean([b["completion_tokens"] for b in budgets], "{:,.0f}".format),
                mean([b["generated_tokens"] for b in budgets], "{:,.0f}".format),
                mean([100 * k["kept"] / k["of"] for k in kept], "{:.0f}%".format),
                mean([m["held_out"]["kl"] for m in moved if m.get("held_out")], format_kl),
                mean([m["corpus"]["loss_delta"] for m in moved if m.get("corpus")], "{:+.3f}".format),
            )
        )
    note = (
        "Means over blocks. Tokens of completions: trained on in an epoch, and generated for that; kept: completions "
        "that a rule kept. KL of the student from the base on its own held-out answers, and the loss of its corpus "
        "under the student less that under the base, nats a token."
    )
    header = ("arm", "students", "optimiser steps", "tokens trained on", "generated", "kept")
    return [Table((*header, "KL(student || base)", "loss of the corpus"), rows, note=note)] if rows else []


def not_counted_table(study: Study, blocks: Blocks) -> list[Block]:
    """What the cells of blocks that are not whole scored, to be seen and not to be counted."""
    tasks = list(study.content["n"])
    rows = []
    for cell in blocks.spare:
        found = [answers_of(cell, cell["arm"], task) for task in tasks]
        shown = ["-" if a is None else f"{100 * statistics.fmean(a.values):.1f}" for a in found]
        rows.append((str(cell["seed"]), cell["arm"], cell["device"], *shown))
    note = "Cells of blocks that lack an arm, percent: no verdict and no interval above counts them."
    header = ("block", "arm", "on", *tasks)
    return [Table(header, rows, text_columns=frozenset({0, 1, 2}), note=note)] if rows else []
