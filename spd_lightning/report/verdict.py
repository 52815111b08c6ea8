"""The answer of a report in words: its question, and one sentence with what was shown, how sure, on what.

Every number is one of ``results.json``; what counts as shown is decided where the comparisons are made.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spd_lightning.errors import counted
from spd_lightning.evaluation.across import ONE_STUDENT
from spd_lightning.evaluation.statistics import ALPHA, holm
from spd_lightning.report.across import is_base, trained_arms
from spd_lightning.report.runs import Run
from spd_lightning.report.sweeps import varying_options
from spd_lightning.report.tables import is_shown, task_metric
from spd_lightning.report.wording import benchmark_name, format_interval, format_value
from spd_lightning.scoring.verdicts import is_share

MOST_BESIDE = 3
"""So many other benchmarks stand in the sentence; the rest is in the figure beside it."""
SHORT = {"spd": "SPD", "ssd": "SSD", "psr": "PSR", "filtered": "filtered self-distillation"}
SPLITS = ("in", "transfer", "out", None)


def model_of(run: Run) -> str:
    """Name of a run's model, without the folders before it."""
    return Path(str(run.option("subspace.model_name_or_path") or run.subspace.get("model") or "the model")).name


def question(runs: Sequence[Run]) -> str:
    """What runs were made to find out."""
    models = list(dict.fromkeys(model_of(run) for run in runs))
    methods = list(dict.fromkeys(SHORT.get(m, m) for run in runs if (m := run.results["method"]) not in (None, "base")))
    tasks = " and ".join(dict.fromkeys(str(t) for run in runs if (t := run.results["trained_on"])))
    on = f" on {tasks}" if tasks else ""
    name = models[0] if len(models) == 1 else f"{len(models)} models"
    if not methods:
        scored = list(dict.fromkeys(s["task"] for run in runs for s in run.scores))
        return f"How well does {name} answer {listing(scored[:4]) or 'nothing yet'}?"
    if len(methods) > 1:
        return f"Which of {listing(methods)}{on} helps {name}?"
    if len(models) > 1:
        return f"Which of {name} does {methods[0]}{on} help?"
    trained = [run for run in runs if run.results["method"] not in (None, "base")]
    settings = [n for n in varying_options(trained) if not n.startswith(("content.", "versions."))]
    if settings:
        what = listing([n.rpartition(".")[2] for n in settings]) if len(settings) <= 3 else "settings"
        return f"Which {what} of {methods[0]}{on} help{'s' if len(settings) == 1 else ''} {name}?"
    return f"Does {methods[0]}{on} help {name}?"


def listing(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def splits_of(runs: Iterable[Run]) -> dict[tuple[str, str, str], str | None]:
    """Benchmark to its split for what these runs, of one arm, were trained on."""
    return {task_metric(s): s["split"] for run in runs for s in run.scores if s["split"] is not None}


def points(delta: float, interval: Sequence[float] | None, metric: str) -> str:
    """A difference with its interval: ``+3.0 points [-1.0, +7.0]``."""
    unit = "points" if is_share(metric) else "nats"
    return f"{format_value(delta, metric, sign=True)} {unit} {format_interval(interval, metric, sign=True)}".strip()


def better(row: Mapping[str, Any]) -> bool:
    """Whether a difference is in the student's favour: more of a share, less of a loss."""
    return bool(row["delta"] > 0) is is_share(row["metric"])


# -- one run -----------------------------------------------------------------------------------------------------------


def against_base(run: Run) -> list[dict[str, Any]]:
    """A run's comparisons of its student with the base, a row a benchmark: in domain, transfer, out."""
    splits = splits_of([run])
    rows = [c for c in run.comparisons if (c["a"], c["b"]) == ("base", run.results["method"])]
    rows = [c for c in rows if c["p_holm"] is not None]
    return sorted(rows, key=lambda c: SPLITS.index(splits.get(task_metric(c))))


def sentence_of_run(run: Run) -> str:
    """What one run found."""
    rows = against_base(run)
    if not rows:
        return _not_compared([run])
    main, *others = rows
    word = "Not shown"
    if is_shown(main):
        word = "Shown for this student" if better(main) else "It hurts, shown for this student"
    text = f"{word}: {points(main['delta'], main['ci95'], main['metric'])} on {benchmark_name(main)}, "
    text += f"1 student x {counted(main['n'], 'example')}{_changed([run], main['task'])}"
    for c in others[:MOST_BESIDE]:
        text += f"; on {benchmark_name(c)} {points(c['delta'], c['ci95'], c['metric'])}"
        text += " (shown)" if is_shown(c) else ""
    return text + "."


def changed_share(run: Run, task: str) -> float | None:
    """Share of a benchmark's greedy answers that the student gave otherwise; None where that was not counted."""
    for row in (run.results.get("moved") or {}).get("answers") or ():
        if row["task"] == task and row["n"]:
            if row["other_text"] is not None:
                return float(row["other_text"] / row["n"])
            ours = {(r["id"], r["sample"]): r["answer"] for r in run.sample_rows(task, str(run.results["method"]))}
            pairs = [
                (r["answer"], ours[k]) for r in run.sample_rows(task, "base") if (k := (r["id"], r["sample"])) in ours
            ]
            return sum(a != b for a, b in pairs) / len(pairs) if pairs and row["right_to_wrong"] is not None else None
    return None


def _changed(runs: Sequence[Run], task: str) -> str:
    shares = [share for run in runs if (share := changed_share(run, task)) is not None]
    if not shares:
        return ""
    share = statistics.fmean(shares)
    near = "under 1" if 0 < share < 0.01 else "over 99" if 0.99 < share < 1 else f"{100 * share:.0f}"
    return f"; it changed {near}% of the answers"


def _not_compared(runs: Sequence[Run]) -> str:
    """A sentence for runs none of whose students is compared with its base: what was scored."""
    scores = [s for run in runs for s in run.scores]
    if not scores:
        return "No answer yet: no benchmark was scored."
    first = next((s for split in SPLITS for s in scores if s["split"] == split), scores[0])
    value = f"{format_value(first['value'], first['metric'])} {format_interval(first['ci95'], first['metric'])}".strip()
    unit = "%" if is_share(first["metric"]) else " nats"
    who = f"{first['method']} has {value}{unit} on {benchmark_name(first)} (n = {first['n']:,})"
    what = "No student was compared with its base" if any(run.comparisons for run in runs) else "Nothing was compared"
    return f"{what}, so nothing is claimed: {who}."


# -- several runs ------------------------------------------------------------------------------------------------------


def arms_against_base(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of the comparisons across runs those of a trained arm with a base, each with its ``split``: in domain first."""
    splits = {name: splits_of(members) for name, members in trained_arms(runs).items()}
    found = [
        {**row, "split": splits[row["b"]].get(task_metric(row))}
        for row in rows
        if is_base(row["a"]) and row["b"] in splits
    ]
    return sorted(found, key=lambda row: SPLITS.index(row["split"]))


def interval_of(row: Mapping[str, Any]) -> Sequence[float] | None:
    """Interval of a comparison across runs: over blocks, of one block that of its two students."""
    found: Sequence[float] | None = (row["students"] or row)["ci95"]
    return found


def sentence_of_runs(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> str:
    """What several runs found.

    Args:
        runs: The runs.
        rows: `across.across_rows` of them.
    """
    found, arms = arms_against_base(runs, rows), trained_arms(runs)
    between = [row for row in rows if row["a"] in arms and row["b"] in arms]
    if not found and between:
        main = [row for row in between if task_metric(row) == task_metric(between[0])]
        return f"No student was compared with its base. On {benchmark_name(main[0])}: {_pairs(main)}{_alone(main)}."
    if not found:
        return _not_compared(runs)
    main = [row for row in found if task_metric(row) == task_metric(found[0])]
    if len({row["b"] for row in found}) == 1:
        return _one_arm(main[0], found[1:], rows, arms[main[0]["b"]])
    others: dict[str, list[Mapping[str, Any]]] = {}
    for row in found:
        if task_metric(row) != task_metric(main[0]):
            others.setdefault(benchmark_name(row), []).append(row)
    return _several_arms(main, others, between, arms)


def _one_arm(
    main: Mapping[str, Any], others: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], runs: Sequence[Run]
) -> str:
    text = (
        f"{_word(main, rows)}: {points(main['delta'], interval_of(main), main['metric'])} on {benchmark_name(main)}, "
    )
    text += f"{_size(main)}{_changed(runs, main['task'])}"
    for row in others[:MOST_BESIDE]:
        text += f"; on {benchmark_name(row)} {points(row['delta'], interval_of(row), row['metric'])}"
        text += "" if row["blocks"] == main["blocks"] else f", {_size(row)}"
        text += " (shown)" if row["word"] in ("higher", "lower") else ""
    return text + "."


def _word(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    if row["word"] in ("higher", "lower"):
        return "Shown" if better(row) else "It hurts"
    if row["word"] == "no difference":
        return f"No difference of {100 * row['margin']:.0f} points or more"
    if row["word"] == ONE_STUDENT and _student_differs(row, rows):
        return "Not shown of the method, though the one student differs"
    return "Not shown"


def _student_differs(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the paired test of two students shows a difference, corrected over all that have one block."""
    alone = [r for r in rows if r["students"] is not None]
    shown = zip(alone, holm([r["students"]["p_value"] for r in alone]))
    return any(p < ALPHA and all(r[k] == row[k] for k in ("a", "b", "task", "protocol", "metric")) for r, p in shown)


def _size(row: Mapping[str, Any]) -> str:
    return f"{counted(row['blocks'], 'seed')} x {counted(row['n'], 'example')}"


def _several_arms(
    main: Sequence[Mapping[str, Any]],
    others: Mapping[str, Sequence[Mapping[str, Any]]],
    between: Sequence[Mapping[str, Any]],
    arms: Mapping[str, Sequence[Run]],
) -> str:
    good, worse = _counts(main)
    text = (
        f"{good or 'None'} of {len(main)} {'is' if 1 in (good, len(main)) else 'are'} shown to be better than the base "
    )
    text += f"on {benchmark_name(main[0])}{worse}"
    sign = 1 if is_share(main[0]["metric"]) else -1
    best = max(main, key=lambda row: sign * row["delta"])
    text += f". Best: {best['b']}, {points(best['delta'], interval_of(best), best['metric'])}, {_size(best)}"
    text += _changed(arms[best["b"]], best["task"])
    pairs = [row for row in between if task_metric(row) == task_metric(best)]
    text += f". {_pairs(pairs)}" if pairs else ""
    said = []
    for name, rows in list(others.items())[:MOST_BESIDE]:
        good, worse = _counts(rows)
        said.append(f"on {name} {good or 'none'} of {len(rows)} shown to be better{worse}")
    text += f". {'; '.join(said).capitalize()}" if said else ""
    return f"{text}{_alone(main)}."


def _counts(rows: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """How many arms are shown to be better than the base; and how many worse, in words."""
    shown = [row for row in rows if row["word"] in ("higher", "lower")]
    good = sum(map(better, shown))
    return good, f", {len(shown) - good} worse" if len(shown) > good else ""


def _pairs(rows: Sequence[Mapping[str, Any]]) -> str:
    """What pairs of arms say on one benchmark."""
    apart = [row for row in rows if row["word"] in ("higher", "lower")]
    if not apart:
        return "No two of them are shown to differ"
    widest = max(apart, key=lambda row: abs(row["delta"]))
    a, b, delta, interval = widest["a"], widest["b"], widest["delta"], interval_of(widest)
    if delta < 0:
        a, b, delta, interval = b, a, -delta, None if interval is None else [-interval[1], -interval[0]]
    text = f"{len(apart)} of {len(rows)} pairs of them differ, most {b} from {a} by "
    return text + points(delta, interval, widest["metric"])


def _alone(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where no arm has a second student."""
    return ". One student each: nothing is shown of the settings" if all(row["blocks"] == 1 for row in rows) else ""
