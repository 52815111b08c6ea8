"""The answer of a report in words: its question, and one sentence with what was shown, how sure, on what.

Every number is one of ``results.json``; what counts as shown is decided where the comparisons are made.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spd_lightning.evaluation.across import ONE_STUDENT
from spd_lightning.evaluation.statistics import ALPHA
from spd_lightning.report.across import is_base, trained_arms
from spd_lightning.report.runs import Run
from spd_lightning.report.sweeps import varying_options
from spd_lightning.report.tables import benchmark_key, is_shown
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
    settings = [n for n in varying_options(runs) if not n.startswith(("content.", "versions."))]
    if settings:
        what = listing([n.rpartition(".")[2] for n in settings]) if len(settings) <= 3 else "settings"
        return f"Which {what} of {methods[0]}{on} help{'s' if len(settings) == 1 else ''} {name}?"
    return f"Does {methods[0]}{on} help {name}?"


def listing(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def splits_of(runs: Iterable[Run]) -> dict[tuple[str, str, str], str | None]:
    """Benchmark to its split."""
    return {benchmark_key(s): s["split"] for run in runs for s in run.scores}


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
    return sorted(rows, key=lambda c: SPLITS.index(splits.get(benchmark_key(c))))


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
    text += f"1 student x {main['n']:,} examples{_changed([run], main['task'])}"
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
    return f"; it changed {100 * statistics.fmean(shares):.0f}% of the answers" if shares else ""


def _not_compared(runs: Sequence[Run]) -> str:
    """A sentence for runs without a comparison: what was scored."""
    scores = [s for run in runs for s in run.scores]
    if not scores:
        return "No answer yet: no benchmark was scored."
    first = next((s for split in SPLITS for s in scores if s["split"] == split), scores[0])
    value = f"{format_value(first['value'], first['metric'])} {format_interval(first['ci95'], first['metric'])}".strip()
    unit = "%" if is_share(first["metric"]) else " nats"
    who = f"{first['method']} has {value}{unit} on {benchmark_name(first)} (n = {first['n']:,})"
    return f"Nothing was compared, so nothing is claimed: {who}."


# -- several runs ------------------------------------------------------------------------------------------------------


def arms_against_base(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of the comparisons across runs those of a trained arm with a base, in domain first."""
    splits, trained = splits_of(runs), set(trained_arms(runs))
    found = [row for row in rows if is_base(row["a"]) and row["b"] in trained]
    return sorted(found, key=lambda row: SPLITS.index(splits.get(benchmark_key(row))))


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
    found = arms_against_base(runs, rows)
    if not found:
        return _not_compared(runs)
    key = benchmark_key(found[0])
    main = [row for row in found if benchmark_key(row) == key]
    arms = trained_arms(runs)
    if len(main) == 1:
        return _one_arm(main[0], [row for row in found if row["b"] == main[0]["b"]][1:], arms[main[0]["b"]])
    return _several_arms(main, rows, arms)


def _one_arm(main: Mapping[str, Any], others: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> str:
    text = f"{_word(main)}: {points(main['delta'], interval_of(main), main['metric'])} on {benchmark_name(main)}, "
    text += f"{_size(main)}{_changed(runs, main['task'])}"
    for row in others[:MOST_BESIDE]:
        text += f"; on {benchmark_name(row)} {points(row['delta'], interval_of(row), row['metric'])}"
        text += " (shown)" if row["word"] in ("higher", "lower") else ""
    return text + "."


def _word(row: Mapping[str, Any]) -> str:
    if row["word"] in ("higher", "lower"):
        return "Shown" if better(row) else "It hurts"
    if row["word"] == "no difference":
        return f"No difference of {100 * row['margin']:.0f} points or more"
    if row["word"] == ONE_STUDENT and (row["students"] or {}).get("p_value", 1.0) < ALPHA:
        return "Not shown of the method, though the one student differs"
    return "Not shown"


def _size(row: Mapping[str, Any]) -> str:
    return f"{row['blocks']} seed{'s' * (row['blocks'] != 1)} x {row['n']:,} examples"


def _several_arms(
    main: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], arms: Mapping[str, Sequence[Run]]
) -> str:
    task = benchmark_name(main[0])
    shown = [row for row in main if row["word"] in ("higher", "lower")]
    good = sum(map(better, shown))
    counts = (
        f"{good or 'None'} of {len(main)} {'is' if good == 1 else 'are'} shown to be better than the base on {task}"
    )
    counts += f", {len(shown) - good} worse" if len(shown) > good else ""
    sign = 1 if is_share(main[0]["metric"]) else -1
    best = max(main, key=lambda row: sign * row["delta"])
    text = f"{counts}. Best: {best['b']}, {points(best['delta'], interval_of(best), best['metric'])}, {_size(best)}"
    text += _changed(arms[best["b"]], best["task"])
    between = [r for r in rows if benchmark_key(r) == benchmark_key(best) and r["a"] in arms and r["b"] in arms]
    apart = [r for r in between if r["word"] in ("higher", "lower")]
    if apart:
        widest = max(apart, key=lambda r: abs(r["delta"]))
        a, b, delta, interval = widest["a"], widest["b"], widest["delta"], interval_of(widest)
        if delta < 0:
            a, b, delta, interval = b, a, -delta, None if interval is None else [-interval[1], -interval[0]]
        text += f". {len(apart)} of {len(between)} pairs of them differ, most {b} from {a} by "
        text += points(delta, interval, widest["metric"])
    elif between:
        text += ". No two of them are shown to differ"
    if all(row["blocks"] == 1 for row in main):
        text += ". One student each: nothing is shown of the settings"
    return f"{text}."
