"""Stage 4: two arms compared over the students of several runs, on the examples that they share.

An arm is a method with everything that makes it one but the seed; each of its students answered a benchmark. How the
examples of the blocks stand to each other is read from their ids: generated rows are drawn afresh by each seed and hold
it, rows of a data set are the same under every seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_lightning.evaluation.blocks import LEAST_BLOCKS, BlockDifference, fresh_rows, same_rows
from spd_lightning.evaluation.paired import mean_difference, share_difference
from spd_lightning.evaluation.power import equivalence_p, equivalence_power, smallest_effect, word_of
from spd_lightning.evaluation.statistics import holm

MARGIN = 0.03
"""Smallest effect of interest: a share that differs by less than 3 points is no difference to anyone."""
ONE_STUDENT = "about these two students, not the method"

Seed = Any


@dataclass(frozen=True)
class Answers:
    """What one student answered.

    Attributes:
        ids: Of the examples.
        values: One number each, e.g. 1 for a right answer.
        weights: One each, where the score is a weighted mean (a loss per token); None weighs all alike.
    """

    ids: Sequence[str]
    values: Sequence[float]
    weights: Sequence[float] | None = None

    def chosen(self, ids: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Values and weights of some examples, in this order."""
        place = {name: i for i, name in enumerate(self.ids)}
        chosen = [place[name] for name in ids]
        values = np.asarray(self.values, dtype=np.float64)[chosen]
        return values, None if self.weights is None else np.asarray(self.weights, dtype=np.float64)[chosen]

    def on(self, ids: Sequence[str]) -> NDArray[np.float64]:
        """A number for each of some examples, in this order: their plain mean is the score, and so varies as it does.

        Of a weighted mean, that is what leaving the example out moves it by (`jackknife_error`), about the score.
        Values times weights have the same mean, but long texts would count as unlike short ones of the same loss.
        """
        values, weights = self.chosen(ids)
        if weights is None or len(values) == 1:
            return values
        score = (values * weights).sum() / weights.sum()
        moved = (len(values) - 1) * weights * (values - score) / (weights.sum() - weights)
        about: NDArray[np.float64] = score + moved - moved.mean()
        return about


def compare_arms(
    a: Mapping[Seed, Answers],
    b: Mapping[Seed, Answers],
    share: bool = True,
    strata: Mapping[str, str] | None = None,
    margin: float = MARGIN,
) -> dict[str, Any] | None:
    """The difference of two arms over their blocks: a row, JSON values, without Holm's correction.

    Where either arm has one student, the row is of that one and of one of the other's, whatever its others answered.

    Args:
        a: Seed to answers of the first arm.
        b: Of the second; ``delta`` is its score less that of a.
        share: Whether answers are right or wrong; else no margin of equivalence is known.
        strata: Example id to its group, where the examples of all blocks are the same and were drawn within groups.
        margin: Smallest effect of interest, for shares.

    Returns:
        ``delta``, ``blocks``, ``seeds``, ``rows`` (fresh, same), ``n`` (examples of a block), ``unshared`` (answers of
        either that the other arm has no counterpart for), ``ci95``, ``p_value``, ``stderr``, ``df``, ``margin``,
        ``smallest_effect``, ``equivalence_p``, ``equivalence_power``; ``students``: interval and p of the two students
        where there is one block, else None. None if they share no example.
    """
    blocks, rows = _blocks(a, b)
    if not blocks:
        return None
    seeds = sorted(blocks, key=str)
    answered = sum(len(answers.ids) for arm in (a, b) for answers in arm.values())
    if rows == "same" and 1 in (len(a), len(b)):
        one, other = (seeds[0] if seeds[0] in arm else next(iter(arm)) for arm in (a, b))
        a, b, seeds = {one: a[one]}, {other: b[other]}, sorted({one, other}, key=str)
    if rows == "same":
        ids = next(iter(blocks.values()))
        first = np.array([answers.on(ids) for answers in a.values()])
        second = np.array([answers.on(ids) for answers in b.values()])
        found = same_rows(first, second, None if strata is None else [strata.get(name, "") for name in ids])
        used = len(ids) * (len(a) + len(b))
    else:
        pairs = [(a[seed].on(blocks[seed]), b[seed].on(blocks[seed])) for seed in seeds]
        found = fresh_rows([float(y.mean() - x.mean()) for x, y in pairs])
        used = 2 * sum(map(len, blocks.values()))
    row = {
        "delta": found.delta,
        "blocks": found.blocks,
        "seeds": seeds,
        "rows": rows,
        "n": min(map(len, blocks.values())),
        "unshared": answered - used,
        "students": None,
        **_what_it_sees(found, margin if share else None),
    }
    if found.blocks == 1:
        row["students"] = _two_students(a, b, next(iter(blocks.values())), rows, seeds[0], share)
    return row


def _blocks(a: Mapping[Seed, Answers], b: Mapping[Seed, Answers]) -> tuple[dict[Seed, list[str]], str]:
    """The shared examples by seed, and whether they are the same in every block.

    Where all students answered one set of examples, or no seed is in both arms, all students count. Where blocks share
    some examples and not others, the shared ones count as the same.
    """
    sets = [set(answers.ids) for arm in (a, b) for answers in arm.values()]
    if not a or not b:
        return {}, "fresh"
    common = set.intersection(*sets)
    shared = sorted(set(a) & set(b), key=str)
    if common and (len(a) > 1 or len(b) > 1 or not shared):
        order = [name for name in next(iter(a.values())).ids if name in common]
        return dict.fromkeys(shared or [f"{seed}" for seed in sorted(set(a) | set(b), key=str)], order), "same"
    blocks = {}
    for seed in shared:
        theirs = set(b[seed].ids)
        if both := [name for name in a[seed].ids if name in theirs]:
            blocks[seed] = both
    return blocks, "fresh"


def _two_students(
    a: Mapping[Seed, Answers], b: Mapping[Seed, Answers], ids: Sequence[str], rows: str, seed: Seed, share: bool
) -> dict[str, Any]:
    """The paired test of two students on their examples."""
    one, other = (arm[seed] if seed in arm else next(iter(arm.values())) for arm in (a, b))
    (first, weights), (second, others) = one.chosen(ids), other.chosen(ids)
    if share and np.isin([first, second], (0.0, 1.0)).all():
        found = share_difference(int((first > second).sum()), int((second > first).sum()), len(ids))
    elif weights is not None and others is not None and not np.array_equal(weights, others):  # of two tokenizers
        found = mean_difference(one.on(ids), other.on(ids))
    else:
        found = mean_difference(first, second, weights, bound=1.0 if share else None)
    interval = None if found.interval is None else list(found.interval)
    return {"delta": found.delta, "ci95": interval, "p_value": found.p_value, "test": found.test}


def _what_it_sees(found: BlockDifference, margin: float | None) -> dict[str, Any]:
    """Interval and test, and what a design of this spread could have shown."""
    error, df = found.stderr, found.df
    seen: dict[str, Any] = {
        "ci95": None if found.interval is None else list(found.interval),
        "p_value": found.p_value,
        "p_holm": None,
        "margin": margin,
        "stderr": error,
        "df": df,
        **dict.fromkeys(("smallest_effect", "equivalence_p", "equivalence_power")),
    }
    if error is not None and df is not None:
        seen["smallest_effect"] = smallest_effect(error, df)
        if margin is not None:
            seen["equivalence_p"] = equivalence_p(found.delta, error, df, margin)
            seen["equivalence_power"] = equivalence_power(error, df, margin)
    return seen


def correct_family(rows: Iterable[dict[str, Any]]) -> None:
    """Correct the rows of one family by Holm, in place (``p_holm``), and say each in a word (``word``).

    Rows without a p-value (fewer than three blocks) are members too: their tests count once their blocks are there.

    Args:
        rows: Of `compare_arms`.
    """
    family = list(rows)
    corrected = holm([1.0 if row["p_value"] is None else row["p_value"] for row in family])
    for row, p in zip(family, corrected):
        row["p_holm"] = None if row["p_value"] is None else p
        row["word"] = words(row)


def words(row: Mapping[str, Any]) -> str:
    """What a row says: ``higher``, ``lower``, ``no difference``, ``undecided``; of one block, whom it is about.

    Higher and lower follow ``p_holm`` alone: a row that belongs to no family claims nothing.
    """
    if row["blocks"] == 1:
        return ONE_STUDENT
    if row["blocks"] < LEAST_BLOCKS:
        return "undecided"
    return word_of(row["delta"], row["p_holm"], row["stderr"], row["df"], row["margin"])
