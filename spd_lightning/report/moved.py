"""Stage 5: whether the student moved, one table and one figure, from ``moved`` of the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import counted
from spd_lightning.report import figures
from spd_lightning.report.render import Block, Figure, Section, Table
from spd_lightning.report.runs import Run
from spd_lightning.report.wording import format_kl

Row = tuple[str, str, str, str, str, str]

FIGURES = {
    "parsed": "answers that can be read (%)",
    "correct_if_parsed": "right, of those that can be read (%)",
    "tokens": "mean length (tokens)",
    "stopped": "stopped by itself (%)",
    "distinct_1": "distinct tokens (%)",
    "distinct_2": "distinct pairs of tokens (%)",
}


def moved_sections(run: Run) -> list[Section]:
    """Table and figure; nothing for a run that did not measure it."""
    moved = run.results.get("moved")
    rows = moved_rows(moved) if moved else []
    if not moved or not rows:
        return []
    note = (
        "KL and losses in nats a token, student against base, with 95% intervals over texts. The difference of two "
        "scores is that of the answers that can be read plus that of how many of these are right. The overlap is the "
        "mean squared cosine between the subspaces that two halves of the calibration examples give, beside that of "
        "two random ones."
    )
    if RunFolder(run.path).rounds():
        note += " Of several rounds: the completions that it was trained on, and the overlap, are those of the first."
    header = ("figure", "of", "n", "base", "student", "difference")
    table = Table(header, rows, text_columns=frozenset({0, 1, 5}), note=note, caption="Student against base")
    chart = figures.moved(moved.get("answers") or [])
    caption = "Greedy answers that changed, and the two parts of the difference of the scores."
    held_out = moved.get("held_out")
    headline = f"KL(student || base) {format_kl(held_out['kl'])} nats a token on {held_out['of']}" if held_out else ""
    blocks: list[Block] = [table, *([] if chart is None else [Figure(chart, "moved", caption)])]
    return [Section("Did the student move?", headline, blocks)]


def moved_rows(moved: Mapping[str, Any]) -> list[Row]:
    """The rows of the table: figure, of what, n, base, student, difference."""
    rows: list[Row] = []
    for name in ("held_out", "corpus"):
        if (found := moved.get(name)) is not None:
            n = f"{counted(found['texts'], 'text')}, {counted(found['tokens'], 'token')}"
            kl = _with(found["kl"], found["kl_ci95"], format_kl)
            rows.append(("KL(student || base)", found["of"], n, "-", "-", kl))
            losses = (f"{found['base_loss']:.3f}", f"{found['student_loss']:.3f}")
            rows.append(
                ("loss", found["of"], n, *losses, _with(found["loss_delta"], found["loss_ci95"], "{:+.3f}".format))
            )
            same = f"{100 * found['same_token']:.1f}% alike"
            rows.append(("most likely token", found["of"], n, "-", "-", same))
    for row in moved.get("answers") or []:
        rows += _answers(row)
    for site in moved.get("subspace") or []:
        what = f"layer {site['layer']}, {site['side']}: rank {site['rank']} of {site['kv_dim']}"
        overlap = f"{site['overlap']:.3f}, by chance {site['chance']:.3f}"
        rows.append(("overlap of two halves", what, "-", "-", "-", overlap))
    return rows


def _answers(row: Mapping[str, Any]) -> list[Row]:
    task, n, base, student = row["task"], str(row["n"]), row["base"], row["student"]
    rows: list[Row] = []
    if row["right_to_wrong"] is not None:
        changed = f"{row['wrong_to_right']} wrong to right, {row['right_to_wrong']} right to wrong"
        if row["other_text"] is not None:
            changed += f", {row['other_text']} other texts"
        rows.append(("greedy answers changed", task, n, "-", "-", changed))
    if row["delta"] is not None:
        parts = f"{100 * row['delta']:+.1f} = {100 * row['from_parsing']:+.1f} by what can be read "
        parts += f"{100 * row['from_accuracy']:+.1f} by what is right of it"
        rows.append(("right (%)", task, n, _figure(base, "correct"), _figure(student, "correct"), parts))
    for name, words in FIGURES.items():
        a, b = base[name], student[name]
        if a is None and b is None:
            continue
        scale = 1 if name == "tokens" else 100
        difference = "-" if a is None or b is None else f"{scale * (b - a):+.1f}"
        rows.append((words, task, n, _figure(base, name), _figure(student, name), difference))
    return rows


def _figure(figures: Mapping[str, Any], name: str) -> str:
    value = figures[name]
    return "-" if value is None else f"{value if name == 'tokens' else 100 * value:.1f}"


def _with(value: float, interval: Sequence[float] | None, form: Callable[[float], str]) -> str:
    """A value with its interval."""
    return form(value) if interval is None else f"{form(value)} [{', '.join(map(form, interval))}]"
