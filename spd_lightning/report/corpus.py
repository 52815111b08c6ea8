"""The self-generated corpus: its figures, the same prompts without and with the projection, first completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spd_lightning.errors import counted
from spd_lightning.generation.lengths import length_figures
from spd_lightning.report import figures, tables
from spd_lightning.report.render import Block, Code, Figure, Heading, Pair, Section
from spd_lightning.report.runs import Run

CORPUS_SHARES = {
    "answered": "with an answer (or a program that parses)",
    "distinct_1": "distinct tokens",
    "distinct_2": "distinct pairs of tokens",
}
CORPUS_COLUMNS = {
    "n": "completions",
    "tokens_total": "tokens",
    "tokens_mean": "mean length",
    "stopped": "stopped by itself",
    "empty": "empty",
    "answered": "with an answer",
}
CORPUS_FIGURES = {"n", "tokens_mean", "tokens_median", "tokens_max", "tokens_total", "stopped", "empty"}


def corpus_sections(run: Run) -> list[Section]:
    """One section; none for a run without a corpus."""
    facts = corpus_facts(run)
    blocks: list[Block] = []
    if facts:
        blocks.append(tables.fact_table(facts, "The corpus in numbers"))
        recorded = run.results.get("corpus")
        blocks += tables.task_tables(recorded.get("tasks", {}) if isinstance(recorded, Mapping) else {}, CORPUS_COLUMNS)
    chart = figures.lengths(run)
    blocks += [] if chart is None else [Figure(chart, "lengths", "Lengths of the completions, in tokens.")]
    pairs = run.results.get("corpus_samples") or []
    if pairs:
        blocks.append(Heading("The same prompts without and with the projection", 3))
        for pair in pairs:
            texts = tuple("" if pair.get(k) is None else str(pair[k]) for k in ("base", "projected"))
            blocks.append(Pair(str(pair.get("prompt")), ("base", "projected"), (texts[0], texts[1])))
    elif run.completions:
        blocks.append(Heading("First completions", 3))
        for record in run.completions[:3]:
            reason = "stopped by itself" if record["finish_reason"] == "stop" else "cut off at the limit"
            blocks.append(Code(record["prompt"], f"{record['id']}: prompt"))
            blocks.append(
                Code(record["completion"], f"{record['id']}: completion ({record['num_tokens']} tokens, {reason})")
            )
    if not blocks:
        return []
    headline = ""
    if "completions" in facts:
        mean = f"{facts['mean length (tokens)']:.1f} tokens on average"
        headline = (
            f"{counted(facts['completions'], 'completion')}, {mean}, {facts['stopped by itself']} stopped by themselves"
        )
    return [Section("Self-generated corpus", headline, blocks)]


def corpus_facts(run: Run) -> dict[str, Any]:
    """The generated corpus in numbers, as the run recorded them; counted here only where a run recorded none."""
    records, recorded = run.completions, run.results.get("corpus")
    recorded = dict(recorded) if isinstance(recorded, Mapping) else {}
    figures = recorded if "n" in recorded else (length_figures(records) if records else {}) | recorded
    facts: dict[str, Any] = {}
    if "n" in figures:
        count = figures["n"]
        facts = {
            "completions": count,
            "tokens": figures["tokens_total"],
            "mean length (tokens)": figures["tokens_mean"],
            "median length (tokens)": figures["tokens_median"],
            "longest (tokens)": figures["tokens_max"],
            "stopped by itself": f"{100 * figures['stopped']:.1f}%",
            "empty": round(figures["empty"] * count),
        }
    if records:
        facts["distinct completions"] = f"{100 * len({r['completion'] for r in records}) / len(records):.1f}%"
    for name, value in recorded.items():
        if name == "torn_lines":
            facts["torn lines dropped on resume"] = value
        elif name == "split":
            facts["split of the prompts"] = value
        elif name in ("kept", "filtered"):  # the second in runs of earlier versions
            rule = value.get("rule", "correct")
            why = " because the gold answer agrees (an external signal)" if rule == "correct" else f" by {rule}"
            facts[f"kept{why}"] = f"{value['kept']} of {value['of']}"
        elif name == "budget":
            facts["tokens generated"] = value["generated_tokens"]
            facts["texts trained on in an epoch, repeats among them"] = f"{value['texts']}, {value['repeats']}"
            facts["completion tokens trained on in an epoch"] = value["completion_tokens"]
        elif name == "texts":
            facts["texts to train on"] = value["texts"]
        elif name in CORPUS_SHARES:
            facts[CORPUS_SHARES[name]] = f"{100 * value:.1f}%"
        elif name != "tasks" and not ("n" in figures and name in CORPUS_FIGURES):
            facts[name] = value
    return facts
