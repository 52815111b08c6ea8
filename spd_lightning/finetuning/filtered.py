"""Stage 3, method ``filtered``: train on those completions alone that the gold answer agrees with.

It uses an external signal, the gold answers, so it is an upper bound for comparison and no self-distillation.
"""

from __future__ import annotations

from typing import Any

from spd_lightning.errors import UserError
from spd_lightning.generation.questions import Questions
from spd_lightning.processes import agree, is_rank_zero
from spd_lightning.scoring.judging import correct_completions


def keep_correct(records: list[dict[str, Any]], questions: Questions, allow: bool | None) -> list[dict[str, Any]]:
    """The completions that the gold answer agrees with.

    Args:
        records: Of a finished corpus.
        questions: What was asked; its task has the answers.
        allow: Consent to run programs.

    Raises:
        UserError: If none is left, or programs would have to be run without consent.

    Ranks:
        Collective; rank 0 judges, since a program near its time limit may pass once and fail once.
    """
    judged = [{**record, "completion": questions.judged_part(record["completion"])} for record in records]
    answer_type = questions.task.answer_type
    right = correct_completions(questions.prompts, answer_type, judged, allow) if is_rank_zero() else []
    right = agree(right)
    kept = [record for record, correct in zip(records, right, strict=True) if correct]
    if not kept:
        raise UserError(
            f"data.method=filtered: 0 of {len(records)} completions agree with the gold answer, so nothing is "
            "left to train on. Raise --data.num_prompts or --data.num_generations, or set --data.method=ssd."
        )
    return kept
