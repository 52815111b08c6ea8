"""Stage 2: a corpus in numbers, for the report and the logger."""

from __future__ import annotations

import statistics as stat
from collections.abc import Callable, Sequence
from typing import Any

from spd_lightning.errors import UserError
from spd_lightning.generation.lengths import length_figures
from spd_lightning.generation.questions import Questions
from spd_lightning.generation.requests import Generation
from spd_lightning.scoring.answers import reading_stops
from spd_lightning.scoring.verdicts import holds_answer


def statistics(
    records: Sequence[dict[str, Any]], answered: Callable[[dict[str, Any]], bool] | None = None
) -> dict[str, float]:
    """Figures of a corpus, for the report and the logger.

    Args:
        records: Records of the corpus.
        answered: Whether a record's completion, up to evaluation's stop strings, parses or holds an answer; None leaves
            that figure out. All others are of the whole completions, as they are trained.

    Returns:
        ``n``; ``tokens_mean``, ``tokens_median``, ``tokens_max``, ``tokens_total``; shares (0 to 1) ``stopped``,
        ``empty`` and ``answered``; ``distinct_1`` and ``distinct_2``: different token n-grams over all of them.

    Raises:
        UserError: If there are no records.
    """
    if not records:
        raise UserError(
            "The corpus holds 0 completions; there is nothing to describe. Raise num_prompts (--data.num_prompts)."
        )
    figures = length_figures(records)
    for n in (1, 2):
        seen: set[tuple[int, ...]] = set()
        total = 0
        for r in records:
            ids = r["token_ids"]
            grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
            seen.update(grams)
            total += len(grams)
        figures[f"distinct_{n}"] = len(seen) / total if total else 0.0
    if answered is not None:
        figures["answered"] = stat.fmean(bool(answered(r)) for r in records)
    return figures


def corpus_figures(records: Sequence[dict[str, Any]], questions: Questions) -> dict[str, Any]:
    """`statistics` of a corpus with the share of completions that hold an answer of their task's type.

    Of several tasks, ``tasks`` has the same figures of each.
    """

    def answered(record: dict[str, Any]) -> bool:
        asked = questions.of(record["id"])
        kind = asked.task.answer_type
        return holds_answer(asked.judged_part(record["completion"]), kind, asked.letters, reading_stops(kind))

    figures: dict[str, Any] = dict(statistics(records, answered))
    if len(questions.asked) > 1:
        parts = questions.by_task(records, lambda record: str(record["id"]))
        figures["tasks"] = {name: statistics(own, answered) for name, own in parts.items()}
    return figures


def side_by_side(records: Sequence[dict[str, Any]], unprojected: Sequence[Generation]) -> list[dict[str, str]]:
    """Rows ``id``, ``prompt``, ``base`` and ``projected`` for prompts that were answered both ways."""
    projected = {(r["id"], r["sample"]): r["completion"] for r in records}
    return [
        {"id": g.id, "prompt": g.prompt, "base": g.completion, "projected": projected[g.id, g.sample]}
        for g in unprojected
    ]
