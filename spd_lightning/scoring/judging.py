"""Many completions judged at once by the table of ``verdicts.py``: programs are run, all else is read.

Stage 4 judges its samples so, and the method ``filtered`` a corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spd_lightning.errors import UserError
from spd_lightning.scoring.answers import extract_code, reading_stops
from spd_lightning.scoring.execution import TestedProgram, judge_programs, programs_at_once
from spd_lightning.scoring.isolation import may_execute
from spd_lightning.scoring.parts import split
from spd_lightning.scoring.rules import apply_rule
from spd_lightning.scoring.verdicts import Verdict, allowed_letters, judge
from spd_lightning.tasks.coding import solution
from spd_lightning.tasks.task import AnswerType, Example


def judge_all(
    answer_type: AnswerType,
    examples: Sequence[Example],
    completions: Sequence[str],
    *,
    letters: str = "ABCD",
    timeout_s: float = 5.0,
    workers: int | None = None,
    one_process: bool = True,
) -> list[Verdict]:
    """Verdicts on completions, in order; programs are run, without asking for consent (see `may_execute`).

    Args:
        answer_type: Of the task.
        examples: The question of each completion.
        completions: Cut at the stop strings of their protocol, if it has any; see `reading_stops`.
        letters: The allowed letters, see `letters_up_to`.
        timeout_s: Limit of one program, seconds.
        workers: Programs run at once; None for as many as there are cores.
        one_process: Whether a program is also run in one process with its tests, for comparison.

    Ranks:
        Issues no collective; each process judges what it is given.
    """
    pairs, stops = list(zip(examples, completions, strict=True)), reading_stops(answer_type)
    if answer_type == "rule":
        return [Verdict(*apply_rule(e.meta["rule"], completion, stops)) for e, completion in pairs]
    if answer_type != "program":
        return [judge(e.expected, completion, answer_type, letters, stops) for e, completion in pairs]
    codes = [extract_code(completion) for completion in completions]
    programs = []
    for e, code in zip(examples, codes, strict=True):
        parts = split(e.meta["program_prefix"], e.meta["program_suffix"], e.meta["continues"])
        programs.append(TestedProgram(solution(e, code), parts))
    verdicts = []
    found = judge_programs(programs, timeout_s=timeout_s, workers=workers, one_process=one_process)
    for code, v in zip(codes, found, strict=True):
        scores = {} if v.one_process is None else {"one_process": float(v.one_process.passed)}
        scores |= {"shared": 1.0} if v.shared else {}
        verdicts.append(Verdict(code, v.result.passed, v.result.reason, scores))
    return verdicts


def correct_completions(
    examples: Sequence[Example],
    answer_type: AnswerType,
    records: Sequence[Mapping[str, Any]],
    allow: bool | None = None,
    timeout_s: float = 5.0,
) -> list[bool]:
    """For each record of a corpus whether its completion agrees with the gold answer, for a filter.

    Args:
        examples: The training prompts.
        answer_type: Of their task.
        records: Rows of ``generations.jsonl``, their completions cut at the stop strings of evaluation.
        allow: Consent to run programs; see `may_execute`.
        timeout_s: Limit of one program, seconds.

    Raises:
        UserError: If programs would have to be run and there is no consent for it.
    """
    check_consent(answer_type, allow)
    by_id = {e.id: e for e in examples}
    verdicts = judge_all(
        answer_type,
        [by_id[r["id"]] for r in records],
        [r["completion"] for r in records],
        letters=allowed_letters(answer_type, examples),
        timeout_s=timeout_s,
        workers=programs_at_once(),
        one_process=False,
    )
    return [verdict.correct for verdict in verdicts]


def check_consent(answer_type: AnswerType, allow: bool | None) -> None:
    """Refuse a gold filter on a task of code where its programs may not be run.

    Raises:
        UserError: Naming the option.
    """
    if answer_type == "program" and not may_execute(allow):
        raise UserError(
            "A gold filter (keep=correct or wrong, method=filtered) runs programs of the model, which "
            f"allow_code_execution={allow!r} does not allow here (without a sandbox it must be true, or "
            "HF_ALLOW_CODE_EVAL=1). Set --evaluation.allow_code_execution true, or choose --data.method=ssd and "
            "--data.keep=all."
        )
