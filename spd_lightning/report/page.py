"""The report itself: one list of sections, rendered as a self-contained HTML page and as Markdown beside its plots."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from spd_lightning.artifacts.files import write_atomic, write_json
from spd_lightning.errors import UserError
from spd_lightning.evaluation.power import examples_needed
from spd_lightning.evaluation.statistics import ALPHA
from spd_lightning.report import plots, tables
from spd_lightning.report.arithmetic import arithmetic_blocks
from spd_lightning.report.groups import group_blocks
from spd_lightning.report.programs import program_notes
from spd_lightning.report.render import Block, Bullets, Code, Heading, Image, render_html, render_markdown
from spd_lightning.report.runs import Run, combined_results, is_share, label, read_run, varying_options
from spd_lightning.report.tables import format_interval, format_p, format_value
from spd_lightning.scoring.verdicts import find_metric

SHOWN_CHARACTERS = 1200
"""Longer model outputs are cut after this many characters; the files hold all of them."""

MOST_SUBSPACES = 12
"""With more different subspaces than this, a report over several runs leaves their comparison to ``compare``."""


def write_report(run_dirs: Sequence[str | Path], out: str | Path) -> Path:
    """Write ``results.json``, ``report.md``, ``report.html`` and ``plots/`` for one run or several.

    Args:
        run_dirs: Run folders; runs that differ only in the seed are averaged.
        out: Folder to write; for a single run it may be the run folder, whose ``results.json`` is then left as it is.

    Returns:
        Path of ``report.html``.

    Raises:
        UserError: If a folder is no finished run, no folder is given, or ``out`` is one of several runs.

    Ranks:
        Call it on rank zero only.
    """
    out = Path(out)
    folders = list(dict.fromkeys(Path(d).resolve() for d in run_dirs))
    if not folders:
        raise UserError("No run folder given. Type: python -m spd_lightning report RUN_DIR [RUN_DIR ...] [--out DIR]")
    runs = [read_run(folder) for folder in folders]
    inside = out.resolve() in folders
    if inside and len(runs) > 1:
        raise UserError(
            f"--out {out} is one of the {len(runs)} runs; its results would be overwritten. Choose another."
        )
    if not inside:
        write_json(out / "results.json", runs[0].results if len(runs) == 1 else combined_results(runs))
    title, blocks = _one_run(runs[0], out) if len(runs) == 1 else _several_runs(runs, out)
    write_atomic(out / "report.md", render_markdown(title, blocks, out))
    return write_atomic(out / "report.html", render_html(title, blocks))


def _plot(figure: Any, out: Path, name: str, caption: str) -> list[Block]:
    return [] if figure is None else [Image(plots.write_plot(figure, out / "plots" / f"{name}.png"), caption)]


def _one_run(run: Run, out: Path) -> tuple[str, list[Block]]:
    """All sections for a single run."""
    model = run.option("subspace.model_name_or_path") or run.subspace.get("model") or "a model"
    method, trained_on = run.results["method"], run.results["trained_on"]
    title = f"{method or 'evaluation'}{f' on {trained_on}' if trained_on else ''}: {Path(str(model)).name}"
    blocks: list[Block] = [Heading("Scores")]
    if run.scores:
        blocks += [
            "Shares are per cent, with a 95% interval in brackets. Split: in = the task trained on, transfer = another "
            "task of its domain, out = another domain.",
            tables.score_table(run),
            *_plot(plots.plot_scores(run), out, "scores", "Scores with their 95% intervals."),
        ]
    else:
        blocks.append("No benchmark was scored.")
    blocks += arithmetic_blocks(run)
    blocks += [Heading("Comparisons"), Bullets(caveats(run))]
    if run.comparisons:
        blocks.append(tables.comparison_table(run))
    groups = group_blocks(run)
    blocks += [Heading("Scores by subject"), *groups] if groups else []
    blocks += _what_was_run(run)
    if run.spectra:
        blocks += [
            Heading("Capability subspace"),
            *_calibration(run),
            tables.subspace_table(run),
            *_plot(plots.plot_spectrum(run), out, "spectrum", "Singular values per site; the mark is the rank kept."),
        ]
    blocks += _corpus(run, out)
    losses = _plot(plots.plot_losses(run), out, "loss", "Loss as logged during fine-tuning.")
    blocks += [Heading("Fine-tuning"), *losses] if losses else []
    blocks += _overlap(run) + _examples(run) + _how(run) + _reproduce(run)
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


def _several_runs(runs: list[Run], out: Path) -> tuple[str, list[Block]]:
    """Sections for several runs: means over seeds, the sweep, and each run's comparisons."""
    names = varying_options(runs)
    blocks: list[Block] = [Heading("Scores"), tables.seeds_table(runs)]
    grid = tables.sweep_grid(runs)
    if grid is not None:
        blocks += [
            Heading("Sweep"),
            tables.grid_table(grid),
            *_plot(
                plots.plot_grid(grid), out, "sweep", "Score of the trained method; the mean over the runs of a cell."
            ),
            "Choosing the best cell and reporting its score on the same examples overstates it: confirm it on examples "
            "that the sweep did not see.",
        ]
    blocks += _subspaces(runs, names, out)
    blocks += [
        Heading("Comparisons within each run"),
        "Each is of one student; examples are never pooled over seeds. What a method does, the table over seeds shows.",
    ]
    for run in runs:
        blocks += [
            Heading(f"{run.name}: {label(run, names)}, seed {run.seed}", 3),
            Bullets(caveats(run, len(runs) > 1)),
        ]
    blocks.append(Heading("Runs"))
    blocks.append(
        tables.record_table(
            [
                {
                    "run": r.name,
                    "seed": r.seed,
                    "fingerprint": r.results["fingerprint"],
                    **{n: r.option(n) for n in names},
                }
                for r in runs
            ]
        )
    )
    for run in runs:
        blocks += [Heading(run.name, 3), tables.stage_table(run)]
    return f"{len(runs)} runs", blocks + _how(*runs) + _reproduce(*runs)


def _subspaces(runs: list[Run], names: list[str], out: Path) -> list[Block]:
    """Overlap of the runs' subspaces over the sites that two of them share; runs with the same one appear once."""
    from spd_lightning.subspace.compare import SiteComparison, compare_subspaces
    from spd_lightning.subspace.subspace import CapabilitySubspace

    found: dict[bytes, tuple[str, Path]] = {}
    for run in runs:
        if run.spectra:
            path = run.path / "subspace" / "subspace.safetensors"
            found.setdefault(path.read_bytes(), (label(run, names), path))
    if not 2 <= len(found) <= MOST_SUBSPACES:
        return []
    subspaces = [(name, CapabilitySubspace.load(path)) for name, path in found.values()]
    matrix = [[1.0 if i == j else math.nan for j in range(len(subspaces))] for i in range(len(subspaces))]
    rows: list[SiteComparison] = []
    for (i, (name_a, a)), (j, (name_b, b)) in combinations(enumerate(subspaces), 2):
        with contextlib.suppress(UserError):  # the two share no site, or belong to models of another width
            sites = compare_subspaces({f"{i + 1}: {name_a}": a, f"{j + 1}: {name_b}": b})
            matrix[i][j] = matrix[j][i] = sum(s.mean_squared_cosine for s in sites) / len(sites)
            rows += sites
    if not rows:
        return []
    names_shown = [f"{i + 1}: {name}" for i, (name, _) in enumerate(subspaces)]
    caption = "Mean squared cosine of the principal angles, over the sites that two subspaces share; blank: none."
    return [
        Heading("Overlap of the subspaces"),
        tables.record_table(
            [
                {
                    "a": row.a,
                    "b": row.b,
                    "site": f"layer {row.layer}, {row.side}",
                    "mean squared cosine": round(row.mean_squared_cosine, 4),
                    "by chance": round(row.random_expectation, 4),
                    "largest angle (degrees)": round(math.degrees(row.angles[-1]), 2),
                }
                for row in rows
            ]
        ),
        *_plot(plots.plot_overlap(matrix, names_shown), out, "subspaces", caption),
    ]


def caveats(run: Run, several: bool = False) -> list[str]:
    """What the comparisons allow to say, one sentence per comparison, and what limits them."""
    lines = []
    for c in run.comparisons:
        unit = " points" if is_share(c["metric"]) else " nats"
        interval = format_interval(c["ci95"], c["metric"], sign=True)
        text = f"{tables.benchmark_name(c)}, {c['metric']}, {c['b']} - {c['a']}: "
        text += f"{format_value(c['delta'], c['metric'], sign=True)}{unit}"
        text += f", 95% interval {interval}" if interval else ""
        if c.get("only_a") is not None:
            text += f", {c['only_b']} gained and {c['only_a']} lost of {c['n']}"
        else:
            text += f", n = {c['n']}"
        lines.append(f"{text}, {_verdict(c, tables.family(run))}")
    if run.results["schema"] == 1 and lines:
        lines.append(
            "An earlier version scored this run: its intervals and p-values come from different procedures and may "
            "contradict each other, and its correction counts several metrics of a benchmark. Score it again with test."
        )
    if not run.comparisons:
        lines.append("No two methods were compared on the same examples, so no difference is claimed.")
    elif not several:
        if run.results["method"] == "filtered":
            lines.append(
                "filtered kept only completions that the gold answer agrees with: it uses an external signal, an upper "
                "bound to compare with, not self-distillation."
            )
        lines.append("One run: the intervals contain the choice of examples, not the spread over training seeds.")
    return lines


def _verdict(c: dict[str, Any], family: int) -> str:
    """The p-value of a comparison and what it says."""
    if c["p_holm"] is None:
        alone = "" if c["p_value"] is None else f"p {_equals(c['p_value'])} uncorrected: "
        return f"{alone}nothing is claimed, another metric stands for this benchmark."
    text = f"p {_equals(c['p_holm'])} after correction: "
    if tables.is_shown(c):
        return f"{text}the two differ."
    if c["p_value"] is not None and c["p_value"] < ALPHA:
        text += f"alone the two would differ (p {_equals(c['p_value'])}), among {family} comparisons they do not."
    else:
        text += "the difference is inside the noise."
    needed = examples_needed(c, family)
    if needed is not None and needed > c["n"]:
        text += f" To show a difference of this size in 4 of 5 trials, about {needed:,} examples are needed"
        text += f" (with {family} comparisons in the table)." if family > 1 else "."
    return text


def _equals(p: float) -> str:
    text = format_p(p)
    return text if text.startswith("<") else f"= {text}"


def _counts(name: str, stages: set[str]) -> bool:
    """Whether an option had a part in what these stages computed: a default of a stage that did not run is no fact."""
    if name == "subspace.task":
        return bool(stages & {"extract", "generate"})
    if name == "subspace.model_name_or_path":
        return True
    stage = {"subspace": "extract", "data": "generate", "model": "fine_tune", "trainer": "fine_tune"}
    return stage.get(name.split(".")[0]) in {*stages, None}


def _what_was_run(run: Run) -> list[Block]:
    names = (
        "subspace.model_name_or_path",
        "subspace.task",
        "subspace.num_examples",
        "subspace.rank",
        "subspace.layers",
        "subspace.sides",
        "subspace.loss",
        "subspace.basis",
        "subspace.strength",
        "data.method",
        "data.num_prompts",
        "data.num_generations",
        "data.max_new_tokens",
        "data.temperature",
        "data.top_p",
        "data.top_k",
        "model.lora_r",
        "model.lora_alpha",
        "model.learning_rate",
        "model.rounds",
        "trainer.max_epochs",
        "trainer.max_steps",
        "trainer.precision",
        "evaluation.protocol",
        "evaluation.limit",
        "evaluation.num_samples",
        "evaluation.adapter",
        "evaluation.subspace",
        "seed_everything",
    )
    missing = object()
    stages = {str(row["stage"]).split(" ")[0] for row in run.results["stages"]}
    chosen = {
        name: run.option(name)
        for name in names
        if run.option(name, missing) is not missing and (not stages or _counts(name, stages))
    }
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
    facts = tables.corpus_statistics(run)
    blocks: list[Block] = []
    if facts:
        blocks += [Heading("Self-generated corpus"), tables.fact_table(facts)]
        blocks += _plot(plots.plot_lengths(run), out, "lengths", "Lengths of the completions, in tokens.")
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


def _how(*runs: Run) -> list[Block]:
    metrics = dict.fromkeys(s["metric"] for run in runs for s in run.scores)
    named = dict.fromkeys(c["metric"] for run in runs for c in run.comparisons if c["p_holm"] is not None)
    standing = f" ({', '.join(named)})" if named else ""
    items = [f"{m}: {found[0].about}" for m in metrics if (found := find_metric(m)) is not None]
    items += [
        *program_notes(runs),
        "n: examples (problems) scored, each counted once however many processes ran.",
        "95% interval of a score: Wilson's for a share of single answers, Student's t over examples for means. Two "
        "methods are not compared by whether these overlap: the comparison uses that both answered the same examples.",
        "95% interval and p of a difference are one procedure: p is below 0.05 exactly where 0 is outside. Right or "
        "wrong answers: exact McNemar test, and Clopper and Pearson's limits for the direction of the changes seen, at "
        "the number of changes seen. Means: Student's t on the differences.",
        f"p (Holm): corrected for the number of comparisons in the table, one metric per benchmark{standing}.",
    ]
    return [Heading("How each number is computed"), Bullets(items)]


def _subcommand(run: Run) -> str:
    """The command that wrote a run; fit where it is not known."""
    words = str(run.environment.get("command", "")).split()
    return next((word for word in words if word in ("fit", "test")), "fit")


def _reproduce(*runs: Run) -> list[Block]:
    blocks: list[Block] = [Heading("How to reproduce")]
    commands = [
        f"python -m spd_lightning {_subcommand(r)} --config {shlex.quote(f'{r.name}/config.yaml')}" for r in runs
    ]
    blocks.append(Code("\n".join(commands)))
    blocks.append(
        "Stages whose artifacts are still there are skipped; change run_dir and artifact_dir to compute all anew."
    )
    for run in runs:
        if run.config:
            text = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
            blocks.append(
                Code(text, f"config.yaml of {run.name}, fingerprint {run.results['fingerprint']}", folded=True)
            )
    return blocks
