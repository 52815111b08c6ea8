"""Stage 4: whether a benchmark's answers could be read, differ, and were judged by a rule that fits them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from spd_lightning.errors import counted
from spd_lightning.evaluation.scores import BenchmarkResult
from spd_lightning.health import Health, commonest, fewer_than_asked
from spd_lightning.scoring.answers import normalise_text
from spd_lightning.scoring.counting import Record
from spd_lightning.scoring.verdicts import KINDS

MOST_UNREADABLE, MOST_ONE_LETTER, MOST_HOLD_GOLD = 0.2, 0.9, 0.5  # shares from which on a warning is given
FEW = 8  # fewer answers than this are never called all the same


def benchmark_health(result: BenchmarkResult) -> Health:
    """The line of one benchmark under one method."""
    records, kind = result.records, KINDS[result.answer_type]
    n = max(len(records), 1)
    unreadable = [r for r in records if not kind.holds(r["answer"])]
    figures: dict[str, int | float] = {"answers": len(records), "unreadable": len(unreadable) / n}
    found = []
    if figures["unreadable"] > MOST_UNREADABLE:
        empty = sum(not r["completion"].strip() for r in unreadable)
        found.append(
            f"{len(unreadable)} of {len(records)} answers cannot be read ({counted(empty, 'empty completion')}) and "
            "count as wrong. Look at samples/: an instruct model wants prompt_format=chat "
            "(--evaluation.prompt_format), a base model plain, and an answer that was cut short more tokens."
        )
    if result.answer_type == "letter":
        letter, figures["most_frequent"] = commonest(str(r["answer"]) for r in records)
        gold = commonest(str(r["expected"]) for r in records)[1]
        if len(records) >= FEW and figures["most_frequent"] > MOST_ONE_LETTER and gold < MOST_ONE_LETTER / 2:
            found.append(
                f"{figures['most_frequent']:.0%} of the answers are the letter {letter}: the score is that of a "
                "constant. The model does not read these questions; take a larger one, or another prompt."
            )
    wrong = [r for r in records if not r["correct"]]
    if result.answer_type in ("text", "number", "rule"):
        holding = [r for r in wrong if holds_gold(r)]
        figures["wrong_with_the_gold_text"] = len(holding) / max(len(wrong), 1)
        if figures["wrong_with_the_gold_text"] > MOST_HOLD_GOLD:
            found.append(
                f"{len(holding)} of {len(wrong)} answers that count as wrong contain the expected text, such as "
                f"{holding[0]['completion'].strip()[:60]!r} ({holding[0]['expected']!r}): the rule does not fit them."
                + (
                    ' Give the rows of the task file "score": "contains".'
                    if result.task.split(":")[0] == "custom"
                    else ""
                )
            )
    return Health(f"evaluate {result.task}.{result.method}", figures, tuple(found))


def holds_gold(record: Record) -> bool:
    """Whether the expected text stands in a completion as words of its own."""
    text = " ".join(record["completion"].casefold().split())
    golds = [normalise_text(gold) for gold in str(record["expected"]).split(" | ")]  # a user's rows may accept several
    return any(gold and re.search(rf"(?<!\w){re.escape(gold)}(?!\w)", text) for gold in golds)


def suite_health(
    results: Sequence[BenchmarkResult], limit: int | Mapping[str, int] | None, grid_rows: int | None = None
) -> list[Health]:
    """A line for every benchmark that was run.

    Args:
        results: What was scored.
        limit: ``evaluation.limit``.
        grid_rows: ``evaluation.best_decoding_rows``.
    """
    lines = []
    for result in (r for r in results if r.not_run is None and r.records):
        asked = limit.get(result.task) if isinstance(limit, Mapping) else limit
        count, dropped = len({r["id"] for r in result.records}), result.facts.get("num_dropped", 0)
        why = f"its data has no more, {dropped} rows left out" if dropped else "its data, or the protocol, has no more"
        fewer = fewer_than_asked("evaluation.limit", asked, count, "examples", why)
        for tried in result.facts.get("grid", ())[:1]:
            fewer += fewer_than_asked("evaluation.best_decoding_rows", grid_rows, tried["n"], "training rows")
        line = benchmark_health(result)
        lines.append(replace(line, warnings=(*fewer, *line.warnings)))
    return lines
