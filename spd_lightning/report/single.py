"""The report of one run: scores, comparisons, what was run, subspace, corpus, training, examples."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.settings import listed
from spd_lightning.report import plots, tables
from spd_lightning.report.moved import moved_blocks
from spd_lightning.report.passes import pass_blocks
from spd_lightning.report.render import Block, Bullets, Code, Heading
from spd_lightning.report.runs import Run
from spd_lightning.report.sections import (
    arithmetic_blocks,
    caveats,
    group_blocks,
    health_blocks,
    how_blocks,
    plot_block,
    reproduce_blocks,
)

SHOWN_CHARACTERS = 1200
"""Longer model outputs are cut after this many characters; the files hold all of them."""

CORPUS_SHARES = {
    "answered": "with an answer (or a program that parses)",
    "distinct_1": "distinct tokens",
    "distinct_2": "distinct pairs of tokens",
}
CORPUS_FIGURES = {"n", "tokens_mean", "tokens_median", "tokens_max", "tokens_total", "stopped", "empty"}


def one_run(run: Run, out: Path) -> tuple[str, list[Block]]:
    """All sections for a single run."""
    model = run.option("subspace.model_name_or_path") or run.subspace.get("model") or "a model"
    method, trained_on = run.results["method"], run.results["trained_on"]
    title = f"{method or 'evaluation'}{f' on {trained_on}' if trained_on else ''}: {Path(str(model)).name}"
    blocks: list[Block] = [*health_blocks(run), Heading("Scores")]
    if run.scores:
        blocks += [
            "Shares are per cent, with a 95% interval in brackets. Split: in = the task trained on, transfer = another "
            "task of its domain, out = another domain.",
            tables.score_table(run),
            *plot_block(plots.plot_scores(run), out, "scores", "Scores with their 95% intervals."),
        ]
    else:
        blocks.append("No benchmark was scored.")
    blocks += arithmetic_blocks(run)
    blocks += [Heading("Comparisons"), Bullets(caveats(run))]
    if run.comparisons:
        blocks.append(tables.comparison_table(run))
    blocks += pass_blocks(run) + moved_blocks(run, out)
    groups = group_blocks(run)
    blocks += [Heading("Scores by subject"), *groups] if groups else []
    blocks += _what_was_run(run)
    if run.spectra:
        blocks += [
            Heading("Capability subspace"),
            *_calibration(run),
            tables.subspace_table(run),
            *plot_block(
                plots.plot_spectrum(run), out, "spectrum", "Singular values per site; the mark is the rank kept."
            ),
        ]
    blocks += _corpus(run, out)
    losses = plot_block(plots.plot_losses(run), out, "loss", "Loss as logged during fine-tuning.")
    blocks += [Heading("Fine-tuning"), *losses] if losses else []
    blocks += _overlap(run) + _examples(run) + how_blocks(run) + reproduce_blocks(run)
    return title, blocks


def _calibration(run: Run) -> list[Block]:
    """What became of the calibration examples."""
    facts = run.subspace
    if "num_correctness_tokens" not in facts:
        return []
    skipped = "".join(f"; {reason}: {count}" for reason, count in facts.get("skipped", {}).items())
    return [
        f"{facts['basis']} basis from {facts['num_examples']} examples of {facts['task']} in {facts['dtype']}: "
        f"{facts['num_tokens']:,} tokens, {facts['num_correctness_tokens']:,} of them correctness-defining. "
        f"{facts['num_skipped']} examples skipped{skipped}; {facts['num_cut']} with a span cut by max_length."
    ]


def _what_was_run(run: Run) -> list[Block]:
    missing = object()
    stages = {str(row["stage"]).split(" ")[0] for row in run.results["stages"]}
    found = {name: run.option(name, missing) for name in listed(stages)}
    chosen = {name: value for name, value in found.items() if value is not missing}
    blocks: list[Block] = [Heading("What was run")]
    if chosen:
        blocks.append(tables.fact_table(chosen))
    if run.results["stages"]:
        blocks += [Heading("Stages", 3), tables.stage_table(run)]
    isolation = sorted({str(s["isolation"]) for s in run.scores if s["isolation"] is not None})
    if isolation:
        blocks.append(f"Programs that a model wrote ran in isolation: {', '.join(isolation)}.")
    if run.environment:
        blocks += [Heading("Environment", 3), tables.fact_table(run.environment)]
    return blocks


def _corpus(run: Run, out: Path) -> list[Block]:
    facts = corpus_facts(run)
    blocks: list[Block] = []
    if facts:
        blocks += [Heading("Self-generated corpus"), tables.fact_table(facts)]
        blocks += plot_block(plots.plot_lengths(run), out, "lengths", "Lengths of the completions, in tokens.")
    pairs = run.results.get("corpus_samples") or []
    if pairs:
        blocks.append(Heading("The same prompts without and with the projection", 3))
        for pair in pairs[:3]:
            blocks += [Code(pair[k], k) for k in ("prompt", "base", "projected") if pair.get(k) is not None]
    elif run.completions:
        blocks.append(Heading("First completions", 3))
        for record in run.completions[:3]:
            reason = "stopped by itself" if record["finish_reason"] == "stop" else "cut off at the limit"
            blocks.append(Code(record["prompt"], f"{record['id']}: prompt"))
            blocks.append(
                Code(record["completion"], f"{record['id']}: completion ({record['num_tokens']} tokens, {reason})")
            )
    return blocks


def corpus_facts(run: Run) -> dict[str, Any]:
    """The generated corpus in numbers, as the run recorded them; counted here only where a run recorded none."""
    records, recorded = run.completions, run.results.get("corpus")
    recorded = dict(recorded) if isinstance(recorded, Mapping) else {}
    figures = recorded if "n" in recorded else _counted(records) | recorded
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
        elif not ("n" in figures and name in CORPUS_FIGURES):
            facts[name] = value
    return facts


def _counted(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`CORPUS_FIGURES` of a corpus, for a run that recorded none."""
    if not records:
        return {}
    lengths = [r["num_tokens"] for r in records]
    return {
        "n": len(records),
        "tokens_mean": statistics.fmean(lengths),
        "tokens_median": statistics.median(lengths),
        "tokens_max": max(lengths),
        "tokens_total": sum(lengths),
        "stopped": statistics.fmean(r["finish_reason"] == "stop" for r in records),
        "empty": statistics.fmean(not r["completion"].strip() for r in records),
    }


def _overlap(run: Run) -> list[Block]:
    overlap = run.results.get("overlap")
    if overlap is None:
        return []
    blocks: list[Block] = [Heading("Overlap of training text and benchmarks")]
    blocks.append("Calibration examples and training prompts that also stand in a benchmark, by normalised text.")
    if isinstance(overlap, dict) and overlap:
        blocks.append(tables.fact_table(overlap))
    elif overlap:
        blocks.append(tables.record_table(overlap))
    else:
        blocks.append("None was found.")
    return blocks


def _examples(run: Run) -> list[Block]:
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
    return [Heading("Examples"), *blocks] if blocks else []


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
