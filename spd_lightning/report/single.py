"""The report of one run: its sections, from scores to how it is made again."""

from __future__ import annotations

import math
from typing import Any

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.settings import listed
from spd_lightning.errors import counted
from spd_lightning.report import figures, tables
from spd_lightning.report.corpus import corpus_sections
from spd_lightning.report.explorer import sample_sections
from spd_lightning.report.moved import moved_sections
from spd_lightning.report.passes import pass_blocks
from spd_lightning.report.render import Block, Bullets, Figure, Heading, Section
from spd_lightning.report.runs import Run
from spd_lightning.report.sections import arithmetic_blocks, caveats, group_blocks, how_section, reproduce_blocks
from spd_lightning.report.wording import benchmark_name, format_value, method_order
from spd_lightning.scoring.verdicts import is_share

OVERLAP = "Texts that stand in a benchmark"
CALIBRATION_COLUMNS = {
    "weight": "weight",
    "num_examples": "examples",
    "num_tokens": "tokens",
    "num_correctness_tokens": "correctness-defining",
    "num_skipped": "skipped",
    "num_cut": "cut by max_length",
}


def one_run(run: Run) -> list[Section]:
    """All sections for a single run."""
    made = [*corpus_sections(run), *_subspace(run)]
    chart = figures.losses(run)
    if chart is not None:
        ends = {name: points[-1][1] for name, points in run.losses.items() if points}
        last = ", ".join(f"{name} ends at {v:{'.3f' if abs(v) < 1e6 else '.3g'}}" for name, v in ends.items())
        left_out = sum(not math.isfinite(loss) for points in run.losses.values() for _, loss in points)
        caption = "As logged during fine-tuning." + (f" Left out: {left_out} that are no numbers." if left_out else "")
        made.append(Section("Fine-tuning", last, [Figure(chart, "loss", caption)]))
    sections = [_scores(run), _comparisons(run), *moved_sections(run), *_of_first_round(run, made), *_overlap(run)]
    sections += sample_sections([(method, run, method) for method in method_order({m for _, m in run.sample_files})])
    return [*sections, how_section(run), _what_was_run(run)]


def _of_first_round(run: Run, sections: list[Section]) -> list[Section]:
    """Sections on what the first round made, which say so where there are later ones: the scores are of the last."""
    later = len(RunFolder(run.path).rounds())
    note = f"Of the first of {later + 1} rounds; the student is that of the last. "
    return [Section(s.title, (note + s.headline).strip(), s.blocks) for s in sections] if later else sections


def _scores(run: Run) -> Section:
    if not run.scores:
        return Section("Scores", "No benchmark was scored.", [])
    blocks: list[Block] = [
        "Shares are per cent, with a 95% interval in brackets. Split: in = the task trained on, transfer = another "
        "task of its domain, out = another domain.",
        tables.score_table(run),
    ]
    chart = figures.scores(run)
    blocks += [] if chart is None else [Figure(chart, "scores", "Scores with their 95% intervals.")]
    blocks += arithmetic_blocks(run) + pass_blocks(run)
    groups = group_blocks(run)
    blocks += [Heading("By subject", 3), *groups] if groups else []
    return Section("Scores", _first_scores(run), blocks)


def _first_scores(run: Run) -> str:
    """All methods on the benchmark that the run is about."""
    first = next((s for s in run.scores if s["split"] == "in"), run.scores[0])
    same = [s for s in run.scores if tables.task_metric(s) == tables.task_metric(first)]
    unit = "%" if is_share(first["metric"]) else " nats"
    shown = ", ".join(f"{s['method']} {format_value(s['value'], s['metric'])}{unit}" for s in same)
    others = len({s["task"] for s in run.scores}) - 1
    return f"{benchmark_name(first)}: {shown}" + (
        f"; and {others} other benchmark{'s' * (others > 1)}" if others else ""
    )


def _comparisons(run: Run) -> Section:
    blocks: list[Block] = [Bullets(caveats(run))]
    if run.comparisons:
        blocks.append(tables.comparison_table(run))
    family = tables.family(run)
    shown = sum(map(tables.is_shown, run.comparisons))
    headline = f"{shown} of {family} show a difference after correction" if run.comparisons else ""
    return Section("Comparisons", headline, blocks)


def _subspace(run: Run) -> list[Section]:
    chart = figures.spectrum(run)
    if chart is None:
        return []
    spectrum = Figure(chart, "spectrum", "Singular values per site; the mark is the rank kept.")
    low, high = min(s.energy for s in run.spectra), max(s.energy for s in run.spectra)
    ranks = ", ".join(dict.fromkeys(f"{s.rank} of {len(s.values)}" for s in run.spectra))
    headline = f"{counted(len(run.spectra), 'site')}, rank {ranks}: {100 * low:.1f} to {100 * high:.1f}% of the energy"
    return [Section("Capability subspace", headline, [*_calibration(run), tables.subspace_table(run), spectrum])]


def _calibration(run: Run) -> list[Block]:
    """What became of the calibration examples."""
    facts = run.subspace
    if "num_correctness_tokens" not in facts:
        return []
    skipped = "".join(f"; {reason}: {count}" for reason, count in facts.get("skipped", {}).items())
    return [
        f"{facts['basis']} basis from {counted(facts['num_examples'], 'example')} of {facts['task']} in "
        f"{facts['dtype']}: {facts['num_tokens']:,} tokens, {facts['num_correctness_tokens']:,} of them "
        "correctness-defining. "
        f"{counted(facts['num_skipped'], 'example')} skipped{skipped}; {facts['num_cut']} with a span cut by "
        "max_length.",
        *tables.task_tables(facts.get("tasks", {}), CALIBRATION_COLUMNS),
    ]


def _what_was_run(run: Run) -> Section:
    """Stages, options, environment, and the command to repeat it."""
    missing = object()
    stages = {str(row["stage"]).split(" ")[0] for row in run.results["stages"]}
    found = {name: run.option(name, missing) for name in listed(stages)}
    chosen = {name: value for name, value in found.items() if value is not missing}
    blocks: list[Block] = reproduce_blocks(run)
    if run.results["stages"]:
        blocks += [Heading("Stages", 3), tables.stage_table(run)]
    isolation = sorted({str(s["isolation"]) for s in run.scores if s["isolation"] is not None})
    if isolation:
        blocks.append(f"Programs that a model wrote ran in isolation: {', '.join(isolation)}.")
    if chosen:
        blocks += [Heading("What was run", 3), tables.fact_table(chosen, "Options")]
    if run.environment:
        blocks += [Heading("Environment", 3), tables.fact_table(run.environment, "Versions and hardware")]
    seconds = sum(row["seconds"] or 0 for row in run.results["stages"])
    headline = f"{seconds / 60:,.1f} minutes in {counted(len(run.results['stages']), 'stage')}" if seconds else ""
    return Section("How to reproduce", headline, blocks)


def _overlap(run: Run) -> list[Section]:
    overlap = run.results.get("overlap")
    if overlap is None:
        return []
    blocks: list[Block] = [
        "Calibration examples and training prompts that also stand in a benchmark, by normalised text."
    ]
    if isinstance(overlap, dict) and overlap:
        blocks.append(tables.fact_table(overlap, OVERLAP))
    elif overlap:
        blocks.append(tables.record_table(overlap, OVERLAP))
    else:
        blocks.append("None was found.")
    return [Section("Overlap of training text and benchmarks", _shared(overlap), blocks)]


def _shared(overlap: Any) -> str:
    """How many texts stand on both sides, where the rows say so; one in two sets or benchmarks counts in each."""
    if not isinstance(overlap, list) or not all("shared" in row for row in overlap):
        return ""
    shared = sum(row["shared"] for row in overlap)
    return f"{shared or 'no'} match{'es' * (shared != 1)} of texts of training or calibration with a benchmark"
