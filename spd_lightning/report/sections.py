"""Sections that a report of one run and one of several share: what comparisons allow to say, how numbers are computed.

Also how the models of a run were computed, scores by subject, and how to reproduce a run.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from spd_lightning.errors import counted
from spd_lightning.evaluation.power import examples_needed
from spd_lightning.evaluation.statistics import ALPHA
from spd_lightning.report import tables
from spd_lightning.report.render import Block, Bullets, Code, Heading, Section, Table
from spd_lightning.report.runs import Run
from spd_lightning.report.wording import benchmark_name, equals_p, format_interval, format_value
from spd_lightning.scoring.verdicts import find_metric, is_share

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
KINDS = {"by_category": "category", "by_subject": "subject"}
SHOWN_PROGRAMS = 5  # of those that were judged otherwise in one process


def health_lines(run: Run) -> list[str]:
    """What the stages warned of; nothing where nothing is out of order."""
    lines = [f"By hand, since the run ended: {text}." for text in run.changed]
    return lines + [f"{row['stage']}: {text}" for row in run.results.get("health") or () for text in row["warnings"]]


def caveats(run: Run, several: bool = False) -> list[str]:
    """What the comparisons allow to say, one sentence per comparison, and what limits them."""
    lines = []
    for c in run.comparisons:
        unit = " points" if is_share(c["metric"]) else " nats"
        interval = format_interval(c["ci95"], c["metric"], sign=True)
        text = f"{benchmark_name(c)}, {c['metric']}, {c['b']} - {c['a']}: "
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
    else:
        method, kept = run.results["method"], (run.results.get("corpus") or {}).get("kept") or {}
        if method == "filtered" or kept.get("rule") == "correct":
            lines.append(
                f"{method} kept only completions that the gold answer agrees with: it uses an external signal, an "
                "upper bound to compare with, not self-distillation."
            )
        if not several:
            lines.append("One run: the intervals contain the choice of examples, not the spread over training seeds.")
    return lines


def _verdict(c: dict[str, Any], family: int) -> str:
    """The p-value of a comparison and what it says."""
    if c["p_holm"] is None:
        alone = "" if c["p_value"] is None else f"p {equals_p(c['p_value'])} uncorrected: "
        return f"{alone}nothing is claimed, another metric stands for this benchmark."
    text = f"p {equals_p(c['p_holm'])} after correction: "
    if tables.is_shown(c):
        return f"{text}the two differ."
    if c["p_value"] is not None and c["p_value"] < ALPHA:
        text += f"alone the two would differ (p {equals_p(c['p_value'])}), among {family} comparisons they do not."
    else:
        text += "the difference is inside the noise."
    needed = examples_needed(c, family)
    if needed is not None and needed > c["n"]:
        text += f" To show a difference of this size in 4 of 5 trials, about {needed:,} examples are needed"
        text += f" (with {family} comparisons in the table)." if family > 1 else "."
    return text


def arithmetic_blocks(run: Run) -> list[Block]:
    """Sentences on the arithmetic of a run's scores; none for a run that does not tell."""
    dtypes: dict[str, set[str]] = {}
    noise: dict[str, list[str]] = {}
    kept: dict[str, float] = {}
    for name, facts in (run.results.get("benchmarks") or {}).items():
        task, _, method = name.rpartition(".")
        if "dtype" in facts:
            dtypes.setdefault(facts["dtype"], set()).add(method)
        if (found := facts.get("rounding")) is not None:
            text = f"{task} {found['nats_per_token']:.1e} nats a token ({counted(found['examples'], 'example')})"
            noise.setdefault(f"{facts['dtype']}, batches of 1 and {found['batch_sizes'][1]}", []).append(text)
        if "update_kept" in facts:
            kept[method] = facts["update_kept"]
    lines = [f"Computed in {dtype}: {', '.join(sorted(methods))}." for dtype, methods in sorted(dtypes.items())]
    for how, texts in noise.items():
        lines.append(
            f"Rounding noise of the base, measured between two batch sizes ({how}): {'; '.join(texts)}. On a single "
            "text a difference of that size is rounding"
            + ("; dtype=float32 (--evaluation.dtype) makes it small." if how.startswith("bf") else ".")
        )
    for method, share in kept.items():
        lines.append(
            f"All weights of {method} were trained, and its dtype keeps {100 * share:.1f}% of what they learned. Score "
            "it with dtype=float32 (--evaluation.dtype) for all of it."
        )
    return [Bullets(lines)] if lines else []


def group_blocks(run: Run) -> list[Heading | Table]:
    """For every benchmark whose examples have a subject: its scores by category and by subject, each with n."""
    by_task: dict[str, dict[str, dict[str, Any]]] = {}
    for name, facts in (run.results.get("benchmarks") or {}).items():
        task, method = name.rsplit(".", 1)
        by_task.setdefault(task, {})[method] = facts
    blocks: list[Heading | Table] = []
    for task, facts in by_task.items():
        for key, kind in KINDS.items():
            found = {method: groups for method, f in facts.items() if (groups := f.get(key))}
            if found:
                blocks += [Heading(f"{task} by {kind}", 3), tables.group_table(found, kind)]
    return blocks


def program_notes(runs: Sequence[Run]) -> list[str]:
    """A line for each benchmark and method where ``pass@k`` and ``pass@k_one_process`` counted different programs, or
    where some could only be run in one process."""
    lines = []
    for run in runs:
        for name, facts in (run.results.get("benchmarks") or {}).items():
            found = facts.get("one_process") or {}
            differ, shared = found.get("disagreements", []), found.get("shared", 0)
            said = [f"{row['id']} ({row['reason']})" for row in differ[:SHOWN_PROGRAMS]]
            more = [f"{len(differ) - SHOWN_PROGRAMS} more in results.json"] if len(differ) > SHOWN_PROGRAMS else []
            if differ:
                lines.append(f"{name}: judged otherwise in one process: {', '.join([*said, *more])}.")
            if shared:
                lines.append(f"{name}: {shared} could only be run in one process: their tests name a class of theirs.")
    return lines


def how_section(*runs: Run) -> Section:
    """How each number of a report is computed."""
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
    return Section("How each number is computed", "", [Bullets(items)])


def reproduce_blocks(*runs: Run) -> list[Block]:
    """What to type to make these runs again, and their configurations."""
    blocks: list[Block] = []
    commands = [
        f"python -m spd_lightning {_subcommand(r)} --config {shlex.quote(f'{r.name}/config.yaml')}" for r in runs
    ]
    blocks.append(Code("\n".join(commands)))
    blocks.append(
        "Stages whose artifacts are still there are skipped; change run_dir and artifact_dir to compute all anew."
    )
    for run in runs:
        if run.config:
            text = yaml.dump(run.config, Dumper=DUMPER, sort_keys=False, allow_unicode=True)
            blocks.append(
                Code(text, f"config.yaml of {run.name}, fingerprint {run.results['fingerprint']}", folded=True)
            )
    return blocks


def _subcommand(run: Run) -> str:
    """The command that wrote a run; fit where it is not known."""
    words = str(run.environment.get("command", "")).split()
    return next((word for word in words if word in ("fit", "test")), "fit")
