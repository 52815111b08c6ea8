"""Comparison of students of different runs: arms, their pairs on every benchmark, and the table with what was decided.

Runs that differ in the seed alone are the blocks of one arm. Every pair of arms that answered common examples is shown
but two bases, and a base that an arm was not trained from, or that was not asked as the arm was. All shown pairs
are one family for Holm's correction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from spd_lightning.errors import counted
from spd_lightning.evaluation.across import MARGIN, Answers, compare_arms, correct_family
from spd_lightning.evaluation.blocks import clustered_variance
from spd_lightning.evaluation.distributions import t_limit
from spd_lightning.evaluation.scores import example_values
from spd_lightning.report.render import Block, Section, Table
from spd_lightning.report.runs import Run
from spd_lightning.report.sweeps import group_by_configuration, label, told_apart, varying_options
from spd_lightning.report.wording import (
    benchmark_name,
    format_interval,
    format_p,
    format_value,
    format_word,
    metric_name,
)
from spd_lightning.scoring.verdicts import is_share
from spd_lightning.tasks import is_generated

MOST_ARMS = 12
"""With more arms than this each is compared with the base alone (or the first arm, where no base was scored): all pairs
would be 66 a benchmark and more, and the correction would leave none of them a chance. The report says so."""

TaskMetric = tuple[str, str, str]
"""Task, protocol, and the metric that stands for it."""


HOW_ASKED = (
    *("task_version", "prompt_format", "repetition_penalty", "dtype", "decoding", "num_samples", "max_new_tokens"),
)
"""What a run notes of a benchmark and its base's answers depend on, beside options of evaluation."""


def arms_of(runs: Sequence[Run]) -> dict[TaskMetric, dict[str, dict[Any, Answers]]]:
    """Benchmark to arm to seed to answers; the base first, then arms in the order of the runs.

    Bases are one arm where all runs scored theirs alike, see `bases_of`. Of several runs with one seed and
    configuration the first counts. An example is known by its id, its question and what is right: two files of one's
    own have equal ids.
    """
    return _arms(runs)[0]


def _arms(runs: Sequence[Run]) -> tuple[dict[TaskMetric, dict[str, dict[Any, Answers]]], dict[tuple[str, str], str]]:
    """See `arms_of`; and by task and arm the arm that is its base."""
    found: dict[TaskMetric, dict[str, dict[Any, Answers]]] = {}
    own: dict[tuple[str, str], str] = {}
    bases = {task: bases_of(runs, task) for run in runs for task, _ in run.sample_files}
    for trained_arm, group in trained_arms(runs).items():
        for run in group:
            for task, method in run.sample_files:
                score = next((s for s in run.scores if (s["task"], s["method"]) == (task, method)), None)
                if score is None:
                    continue
                arm = base = bases[task][run.path]
                if method != "base":
                    arm = trained_arm if method == run.results["method"] else f"{method} of {trained_arm}"
                own.setdefault((task, arm), base)
                key = (task, score["protocol"], score["metric"])
                if run.seed in found.get(key, {}).get(arm, {}) or not (records := run.sample_rows(task, method)):
                    continue
                asked = {r["id"]: example_of(r) for r in records}
                pairs = example_values(records, score["metric"])
                weights = None if is_share(score["metric"]) else [w for _, w in pairs.values()]
                answers = Answers([asked[name] for name in pairs], [v for v, _ in pairs.values()], weights)
                found.setdefault(key, {}).setdefault(arm, {})[run.seed] = answers
    return {key: dict(sorted(arms.items(), key=lambda item: item[0] != "base")) for key, arms in found.items()}, own


def example_of(record: Mapping[str, Any]) -> str:
    """What tells an example from every other one, of this data or of another."""
    asked = json.dumps([record.get("prompt"), record.get("expected")], default=str)
    return f"{record['id']} {hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()}"


def bases_of(runs: Sequence[Run], task: str) -> dict[Path, str]:
    """Folder of a run to the name of the arm that its untrained model is on a benchmark.

    It is ``base`` where all who scored the benchmark have the same model and asked it the same in the same way; else
    each has a name that says in what it differs.
    """
    scored = [run for run in runs if any(name == task for name, _ in run.sample_files)]
    alike: dict[str, list[Run]] = {}
    for run in scored:
        key = json.dumps(_base_conditions(run, task), sort_keys=True, default=str)
        alike.setdefault(key, []).append(run)
    if len(alike) == 1:
        return {run.path: "base" for run in scored}
    names = _names(runs)
    for shown in ([name for name in names if _is_of_base(name)], names):
        words = [label(group[0], shown) for group in alike.values()]
        if shown and len(set(words)) == len(words):
            break
    else:
        words = told_apart([group[0].name for group in alike.values()], list(alike.values()))
    return {run.path: f"base of {text}" for text, group in zip(words, alike.values()) for run in group}


def trained_arms(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Name of an arm to the runs that trained it: those that differ in nothing but the seed."""
    names, groups = _names(runs), group_by_configuration(runs)
    found = [(str(group[0].results["method"]), label(group[0], names)) for group in groups]
    arms = told_apart([method if words == method else f"{method} ({words}" for method, words in found], groups)
    return {arm if words == method else f"{arm})": group for arm, (method, words), group in zip(arms, found, groups)}


def _names(runs: Sequence[Run]) -> list[str]:
    """Options in which runs differ, without the method, which tells their arms apart anyway."""
    return [name for name in varying_options(runs) if name != "data.method"]


def is_base(arm: str) -> bool:
    """Whether an arm is the untrained model of some runs."""
    return arm == "base" or arm.startswith("base of ")


INHERITED = ("data.prompt_format", "data.repetition_penalty")
OF_OTHERS = ("evaluation.adapter", "evaluation.subspace", "evaluation.best_decoding", "evaluation.best_decoding_rows")
"""Options of evaluation that a base's own answers do not depend on."""


def _is_of_base(name: str) -> bool:
    """Whether what a base answers, and the verdicts on it, can depend on an option or a content."""
    exact = ("subspace.model_name_or_path", "content.model", "data.dtype", *INHERITED)
    return name not in OF_OTHERS and (name in exact or name.startswith(("evaluation.", "subspace.task_file.")))


def _base_conditions(run: Run, task: str) -> dict[str, Any]:
    """What the answers of a run's base to a benchmark, and the verdicts on them, depend on."""
    noted = run.results.get("benchmarks") or {}
    methods = ["base", *(method for name, method in run.sample_files if name == task)]
    facts: Mapping[str, Any] = next((noted[k] for method in methods if (k := f"{task}.{method}") in noted), {})
    left_out = ["subspace.task_file.path"]  # of a file its content counts
    left_out += INHERITED if facts else ()  # noted as they were used
    files = task.split(":")[0] == "custom"
    options = {
        name: value
        for name, value in run.conditions.items()
        if _is_of_base(name) and name not in left_out and (files or not name.startswith("subspace.task_file."))
    }
    examples = None if is_generated(task) else facts.get("examples")  # other seeds draw others, as they should
    return {**options, "examples": examples, **{name: facts.get(name) for name in HOW_ASKED}}


def groups_of(runs: Sequence[Run], task: str) -> dict[str, str]:
    """Example, as `arms_of` names it, to subject, for a benchmark whose rows have one."""
    found: dict[str, str] = {}
    for run in runs:
        for which in (which for which in run.sample_files if which[0] == task):
            rows = run.sample_rows(*which)
            if not rows or "group" not in rows[0]:
                return found
            found |= {example_of(r): r["group"] for r in rows}
    return found


def across_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Rows ``across`` of ``results.json``: every pair of arms on every benchmark, corrected over all of them.

    Each is what `compare_arms` gives, with ``a``, ``b``, ``task``, ``protocol`` and ``metric``; where rows have a
    subject, the examples' variance is that within subjects, and ``to_new_subjects`` is an interval of another question:
    what other subjects would show.
    """
    benchmarks, own = _arms(runs)
    rows = []
    for (task, protocol, metric), arms in benchmarks.items():
        strata = groups_of(runs, task) or None
        for a, b in chosen_pairs(list(arms), {arm: own[task, arm] for arm in arms}):
            second = arms[b]
            once = is_base(a) and not is_generated(task)
            first = _under_every_seed(arms[a], second) if once else arms[a]
            row = compare_arms(first, second, is_share(metric), strata)
            if row is not None:
                all_count = row["blocks"] > 1 or len(first) == len(second) == 1
                clustered = _to_new_subjects(first, second, strata) if strata and all_count else None
                names = {"a": a, "b": b, "task": task, "protocol": protocol, "metric": metric}
                rows.append({**names, **row, "to_new_subjects": clustered})
    correct_family(rows)
    return rows


def _under_every_seed(base: Mapping[Any, Answers], students: Mapping[Any, Answers]) -> Mapping[Any, Answers]:
    """A base stands in every block of its students where it was scored once, or alike: no seed draws its rows, and none
    trained it."""
    one, *others = base.values()
    alike = all((x.ids, x.values) == (one.ids, one.values) for x in others)
    return dict.fromkeys(students, one) if alike else base


def chosen_pairs(arms: Sequence[str], own: Mapping[str, str]) -> list[tuple[str, str]]:
    """The pairs of a benchmark's arms that are compared: all but those with a base that is not an arm's own, or of many
    arms, see `MOST_ARMS`, each with one. A base stands first.

    Args:
        arms: Their names.
        own: Arm to its base, which need not have been scored.
    """
    if len(arms) > MOST_ARMS:
        first = next((arm for arm in arms if not is_base(arm)), arms[0])
        bases = [(own[arm] if own[arm] in arms else first, arm) for arm in arms]
        return [(base, arm) for base, arm in bases if arm not in (base, own[arm])]
    pairs = [(b, a) if is_base(b) else (a, b) for a, b in combinations(arms, 2)]
    return [(a, b) for a, b in pairs if not is_base(a) or (a == own[b] and not is_base(b))]


def _to_new_subjects(
    a: Mapping[Any, Answers], b: Mapping[Any, Answers], strata: Mapping[str, str]
) -> list[float] | None:
    """Interval of the difference if the subjects had been drawn; of the students as they are."""
    common = set.intersection(*(set(answers.ids) for arm in (a, b) for answers in arm.values()))
    ids = [name for name in next(iter(a.values())).ids if name in common and name in strata]
    if len({strata[name] for name in ids}) < 3:
        return None
    first, second = (np.mean([answers.on(ids) for answers in arm.values()], axis=0) for arm in (a, b))
    differences = second - first
    variance, df = clustered_variance(differences, [strata[name] for name in ids])
    half = t_limit(df) * variance**0.5
    return [float(differences.mean() - half), float(differences.mean() + half)]


def across_sections(rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    """The section of a report; nothing without a pair."""
    if not rows:
        return []
    header = ("benchmark", "metric", "difference of", "points", "95% interval", "p", "p (Holm)", "blocks", "n")
    table, marked = [], set()
    for i, row in enumerate(rows):
        metric, alone = row["metric"], row["students"]
        shown = row if alone is None else alone
        if row["word"] in ("higher", "lower"):
            marked.add((i, 3))
        p_value = "-" if shown["p_value"] is None else format_p(shown["p_value"])
        holm = "-" if row["p_holm"] is None else format_p(row["p_holm"])
        n = f"{row['n']} {'a block' if row['rows'] == 'fresh' and row['blocks'] > 1 else 'shared'}"
        n += f", {counted(row['unshared'], 'answer')} unshared" if row["unshared"] else ""
        sees = "-" if row["smallest_effect"] is None else format_value(row["smallest_effect"], metric)
        power = "-" if row["equivalence_power"] is None else f"{100 * row['equivalence_power']:.0f}%"
        table.append(
            (
                benchmark_name(row),
                metric_name(metric),
                f"{row['b']} - {row['a']}",
                format_value(row["delta"], metric, sign=True),
                format_interval(shown["ci95"], metric, sign=True) or "-",
                p_value,
                holm,
                str(row["blocks"]),
                n,
                sees,
                power,
                format_word(row),
            )
        )
    columns = (*header, "smallest effect seen", "power of equivalence", "verdict")
    notes = [
        "Students of different runs on the examples that both answered. Blocks are seeds; a base that answered the "
        "same rows once, or alike under every seed, stands in all. With fresh rows for each seed: a paired t interval "
        "over blocks. With the same rows: variance of the seeds of either arm and of the examples less their "
        "interaction (within subjects where rows have one). Two blocks have no interval; with one block interval and "
        "p are of the paired test of these two students and claim nothing of the methods.",
        "* p (Holm) below 0.05, corrected over all pairs shown here.",
        f"Smallest effect seen: the true difference that this design shows in 4 of 5 studies. Equivalence within "
        f"{100 * MARGIN:.0f} points by two one-sided tests, with its power at the spread seen: under 80% the word is "
        "undecided.",
        *map(_on_new_subjects, [r for r in rows if r.get("to_new_subjects")]),
    ]
    arms = {name for row in rows for name in (row["a"], row["b"])}
    of_benchmark: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        of_benchmark.setdefault((row["task"], row["protocol"], row["metric"]), set()).update((row["a"], row["b"]))
    if (most := max(map(len, of_benchmark.values()))) > MOST_ARMS:
        notes.append(
            f"{most} arms: each is compared with one alone. Compare {MOST_ARMS} or fewer with each other by a "
            "report over their runs."
        )
    text = frozenset({0, 1, 2, 8, 11})
    caption = "Every pair of arms on every benchmark"
    shown = f"{len(marked)} of {len(rows)} differences of {len(arms)} arms are shown after correction"
    blocks: list[Block] = [Table(columns, table, frozenset(marked), text, "\n".join(notes), caption=caption)]
    return [Section("Comparisons across runs", shown, blocks)]


def _on_new_subjects(row: Mapping[str, Any]) -> str:
    interval = format_interval(row["to_new_subjects"], row["metric"], sign=True)
    return f"To new subjects, if these had been drawn: {benchmark_name(row)}, {row['b']} - {row['a']}: {interval}."
