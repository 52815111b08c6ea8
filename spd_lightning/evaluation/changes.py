"""Stage 4: what changed between the answers of a base and of its student, from their records alone.

A difference of two shares of right answers has two parts: how often something is answered that can be read (the parse
rate p), and how often that is right (the accuracy q of what can be read). Since the share is p q, the difference is
``(p' - p) (q + q') / 2 + (q' - q) (p + p') / 2``, exactly: a model that only learned the form shows all of it in the
first part.
"""

from __future__ import annotations

import statistics as stat
from collections.abc import Callable, Sequence
from typing import Any

from spd_lightning.evaluation.scores import BenchmarkResult
from spd_lightning.scoring.counting import Record
from spd_lightning.scoring.verdicts import KINDS, is_share, stands_for

Encode = Callable[[str], Sequence[int]]


def distinct(texts: Sequence[Sequence[int]], n: int) -> float | None:
    """Different n-grams over all texts as a share of all of them; None where there is none.

    >>> distinct([[1, 2, 1], [1, 2]], 2)  # (1, 2), (2, 1), (1, 2)
    0.6666666666666666
    """
    grams = [tuple(ids[i : i + n]) for ids in texts for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def answer_figures(records: Sequence[Record], holds: Callable[[str | None], bool], encode: Encode) -> dict[str, Any]:
    """Figures of one model's answers to a benchmark, JSON values.

    Args:
        records: At least one.
        holds: Whether an answer could be scored at all.
        encode: Text to token ids.

    Returns:
        ``correct``, ``parsed`` (shares), ``correct_if_parsed`` (None where nothing is); and, None where nothing was
        generated: ``tokens`` (mean length, the end of sequence included), ``stopped`` (share), ``distinct_1``,
        ``distinct_2``.
    """
    parsed = [r for r in records if holds(r["answer"])]
    written = [r for r in records if "num_tokens" in r]
    ids = [encode(r["completion"]) for r in written]
    return {
        "correct": stat.fmean(bool(r["correct"]) for r in records),
        "parsed": len(parsed) / len(records),
        "correct_if_parsed": stat.fmean(bool(r["correct"]) for r in parsed) if parsed else None,
        "tokens": stat.fmean(r["num_tokens"] for r in written) if written else None,
        "stopped": stat.fmean(r["finish_reason"] == "stop" for r in written) if written else None,
        "distinct_1": distinct(ids, 1),
        "distinct_2": distinct(ids, 2),
    }


def parts_of_difference(p: float, q: float | None, new_p: float, new_q: float | None) -> tuple[float, float]:
    """The two parts of ``new_p new_q - p q``: from the parse rate, and from the accuracy of what is parsed.

    Args:
        p: Parse rate before.
        q: Accuracy given parsable before; None where nothing was, which then is taken as that after.
        new_p: Parse rate after.
        new_q: Accuracy after.

    >>> parts_of_difference(0.5, 0.5, 1.0, 0.5)
    (0.25, 0.0)
    """
    before = q if q is not None else (new_q if new_q is not None else 0.0)
    after = new_q if new_q is not None else before
    return (new_p - p) * (before + after) / 2, (after - before) * (p + new_p) / 2


def answer_changes(base: BenchmarkResult, student: BenchmarkResult, encode: Encode) -> dict[str, Any] | None:
    """What a student changed in the answers to one benchmark, JSON values.

    Args:
        base: Result of the base.
        student: Of the student, on the same benchmark.
        encode: Text to token ids, for distinct n-grams.

    Returns:
        ``task``, ``protocol``, ``n`` (answers that both gave), ``right_to_wrong``, ``wrong_to_right``,
        ``other_text`` (completions that differ; None where none are written), ``delta`` and its parts ``from_parsing``
        and ``from_accuracy``; ``base`` and ``student``: `answer_figures`. Where answers were drawn and not greedy, the
        three counts are None: samples of one number are no pairs. Where none is right or wrong (likelihoods), so are
        ``delta`` and its parts. None if they share no answer.
    """
    ours = {(r["id"], r["sample"]): r for r in student.records}
    pairs = [(r, ours[key]) for r in base.records if (key := (r["id"], r["sample"])) in ours]
    if not pairs:
        return None
    kind = KINDS[base.answer_type]
    old, new = (answer_figures([pair[i] for pair in pairs], kind.holds, encode) for i in (0, 1))
    named = base.facts.get("decoding", "greedy") in ("greedy", "likelihood")
    greedy = named and max(r["sample"] for r, _ in pairs) == 0
    judged = is_share(stands_for(base.answer_type))
    written = "num_tokens" in pairs[0][0]
    parts = parts_of_difference(old["parsed"], old["correct_if_parsed"], new["parsed"], new["correct_if_parsed"])
    return {
        "task": base.task,
        "protocol": base.protocol,
        "n": len(pairs),
        "right_to_wrong": sum(a["correct"] and not b["correct"] for a, b in pairs) if greedy and judged else None,
        "wrong_to_right": sum(b["correct"] and not a["correct"] for a, b in pairs) if greedy and judged else None,
        "other_text": sum(a["completion"] != b["completion"] for a, b in pairs) if greedy and written else None,
        "delta": new["correct"] - old["correct"] if judged else None,
        "from_parsing": parts[0] if judged else None,
        "from_accuracy": parts[1] if judged else None,
        "base": old,
        "student": new,
    }
