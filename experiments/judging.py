"""What the finished cells of a study say of its contrasts: whole blocks alone, one row a contrast.

A block is whole where every arm that runs in it has a cell of one environment (commit, device, threads). What is not
whole is counted and left out, so that no arm looks better for having come first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.study import Contrast, Family, Study
from spd_lightning.evaluation.across import ONE_STUDENT, Answers, compare_arms, correct_family, words
from spd_lightning.evaluation.blocks import LEAST_BLOCKS, pooled_error
from spd_lightning.evaluation.distributions import t_limit
from spd_lightning.report.wording import equals_p, format_interval, format_word

CHANCE = {"letters": 0.25, "mmlu": 0.25, "bbh": 0.37}
"""Score of a guess, by task; 0 for all others. The six tasks of BBH have two to six options."""
ABOVE_CHANCE = 0.10
"""A row is judged where the base is this far above chance; below, no method could show anything."""

NOTHING: Mapping[str, Any] = {"blocks": 0, "p_value": None, "p_holm": None, "students": None, "ci95": None}

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Blocks:
    """The cells of a study by what they may be used for.

    Attributes:
        whole: Seed to arm to cell, whole blocks alone.
        spare: Cells of blocks that are not whole.
    """

    whole: Mapping[int, Mapping[str, Cell]]
    spare: Sequence[Cell]


def whole_blocks(study: Study, cells: Sequence[Cell]) -> Blocks:
    """Sort finished cells into whole blocks and others; of two whole ones of a seed the first environment's counts.

    Args:
        study: The study.
        cells: Made under one study file.
    """
    found: dict[int, dict[tuple[Any, ...], dict[str, Cell]]] = {}
    for cell in cells:
        where = (cell["commit"], cell["device"], cell["threads"])
        found.setdefault(cell["seed"], {}).setdefault(where, {})[cell["arm"]] = cell
    whole: dict[int, Mapping[str, Cell]] = {}
    for seed in study.blocks:
        wanted = {arm.name for arm in study.arms if seed in arm.blocks}
        for where in sorted(found.get(seed, {}), key=str):
            if wanted <= set(found[seed][where]):
                whole[seed] = found[seed][where]
                break
    used = {id(cell) for block in whole.values() for cell in block.values()}
    return Blocks(whole, [cell for cell in cells if id(cell) not in used])


def answers_of(cell: Cell, side: str, task: str) -> Answers | None:
    """What a side of a contrast answered: ``arm``, or ``arm/row``; None where the cell did not score it.

    A cell keeps no ids but their hash: the examples of two cells are the same where hash and number are.
    """
    row = side.partition("/")[2] or ("base" if cell["method"] in (None, "base") else "student")
    found = cell["verdicts"].get(row, {}).get(task)
    if found is None:
        return None
    ids = [f"{found['ids_sha256']}/{i}" for i in range(found["n"])]
    return Answers(ids, [float(bit) for bit in found["correct"]])


def sides(blocks: Blocks, side: str, task: str) -> dict[int, Answers]:
    """Seed to answers of a side of a contrast, over whole blocks."""
    arm = side.partition("/")[0]
    made = {seed: answers_of(cells[arm], side, task) for seed, cells in blocks.whole.items() if arm in cells}
    return {seed: answers for seed, answers in made.items() if answers is not None}


def strata_of(blocks: Blocks, task: str) -> dict[str, str] | None:
    """Example to its subject, where a task's rows were drawn within subjects; None where cells name none."""
    strata: dict[str, str] = {}
    for cells in blocks.whole.values():
        for cell in cells.values():
            for found in filter(None, (rows.get(task) for rows in cell["verdicts"].values())):
                names = [name for name, count in found.get("groups", ()) for _ in range(count)]
                strata |= {f"{found['ids_sha256']}/{i}": name for i, name in enumerate(names)}
    return strata or None


def base_share(blocks: Blocks, task: str) -> float | None:
    """Mean score of the base over whole blocks; None where no cell scored it."""
    values = []
    for cells in blocks.whole.values():
        rows = [cell["verdicts"].get("base", {}).get(task) for cell in cells.values()]
        if (row := next(filter(None, rows), None)) is not None:
            values.append(row["correct"].count("1") / row["n"])
    return sum(values) / len(values) if values else None


def is_judged(blocks: Blocks, task: str) -> bool:
    """Whether the base stands far enough above chance for a difference to mean anything."""
    base = base_share(blocks, task)
    return base is not None and base >= CHANCE.get(task.split(":")[0], 0.0) + ABOVE_CHANCE


def judge_family(study: Study, blocks: Blocks, family: Family) -> list[dict[str, Any]]:
    """A row for each contrast of a family: `compare_arms`, corrected as the study says, in a word.

    Rows of tasks at which the base is at chance are no members of the family. An exploratory family has no corrected
    p-value, so no row of it claims a difference.

    Returns:
        Rows with ``contrast``, ``family``, ``judged``, ``scores`` (of a and b), ``pooled`` (the interval from the
        residual of all arms, a second figure) and, where both sides have answers, those of `compare_arms`.
    """
    rows: list[dict[str, Any]] = []
    for contrast in family.contrasts:
        a, b = (sides(blocks, side, contrast.task) for side in (contrast.a, contrast.b))
        made = compare_arms(
            a, b, margin=study.content["smallest_effect"] / 100, strata=strata_of(blocks, contrast.task)
        )
        row = {"contrast": contrast, "family": family, "judged": is_judged(blocks, contrast.task), **(made or NOTHING)}
        row["scores"] = [_mean(side, made) for side in (a, b)]
        row["pooled"] = _pooled(study, blocks, contrast, made)
        rows.append(row)
    members = [row for row in rows if row["judged"] or not row["blocks"]]  # what is not there yet counts, too
    if family.correction == "holm":
        correct_family(members)
    for row in members if family.correction != "holm" else ():
        row["p_holm"] = row["p_value"] if family.correction == "none" else None
        row["word"] = words(row)
    for row in rows:
        if not row["blocks"]:
            row["word"] = "not tested"
        elif not row["judged"]:
            row["word"] = "not judged: the base is at chance"
        elif family.correction == "exploratory" and row["blocks"] >= LEAST_BLOCKS and row["word"] == "undecided":
            row["word"] = "exploratory"
    return rows


def _mean(side: Mapping[int, Answers], made: Mapping[str, Any] | None) -> float | None:
    seeds = [seed for seed in side if made is not None and (made["rows"] == "same" or seed in made["seeds"])]
    return sum(sum(side[s].values) / len(side[s].values) for s in seeds) / len(seeds) if seeds else None


def _pooled(study: Study, blocks: Blocks, contrast: Contrast, made: Mapping[str, Any] | None) -> list[float] | None:
    """Interval of a contrast with the residual of all arms that stand in the same blocks."""
    if made is None or made["blocks"] < LEAST_BLOCKS or made["rows"] != "fresh":
        return None
    seeds = made["seeds"]
    columns = []
    for arm in study.arms:
        found = sides(blocks, arm.name, contrast.task)
        if all(seed in found for seed in seeds):
            columns.append([sum(found[s].values) / len(found[s].values) for s in seeds])
    if len(columns) < 3:
        return None
    error, df = pooled_error(list(zip(*columns)))
    half = t_limit(df) * error
    return [made["delta"] - half, made["delta"] + half]


def sentence(study: Study, row: Mapping[str, Any]) -> str:
    """What a row says, in a sentence with interval, blocks, n and model."""
    contrast: Contrast = row["contrast"]
    model = study.content["settings"]["subspace"]["model_name_or_path"]
    what = f"{contrast.b} less {contrast.a} on {contrast.task} ({model})"
    if not row["blocks"]:
        return f"{what}: not tested yet, no whole block of {study.name} has both."
    if not row["judged"]:
        return f"{what}: not judged, for the base is less than {100 * ABOVE_CHANCE:.0f} points above chance or floor."
    n = f"{row['n']:,} rows" + (" drawn for each block" if row["rows"] == "fresh" else ", the same in every block")
    text = f"{what}: {100 * row['delta']:+.1f} points"
    if row["blocks"] == 1:
        alone = row["students"]
        shown = format_interval(alone["ci95"], "acc", sign=True)
        interval = f", 95% interval {shown}, p {equals_p(alone['p_value'])}" if shown else ""
        return f"{text}{interval}; one block (seed {row['seeds'][0]}), {row['n']:,} rows: {ONE_STUDENT}."
    if row["ci95"] is None:
        return f"{text}, mean of {row['blocks']} blocks of {n}; no interval from so few: {row['word']}."
    text += f", 95% interval {format_interval(row['ci95'], 'acc', sign=True)}, {row['blocks']} blocks of {n}"
    if row["p_holm"] is not None:
        text += f", p {equals_p(row['p_holm'])}" + (" (Holm)" if row["family"].correction == "holm" else "")
    power, margin = row["equivalence_power"], 100 * row["margin"]
    text += f": {format_word(row)}. The design shows {100 * row['smallest_effect']:.1f} points in 4 of 5 studies, "
    return f"{text}and has a power of {100 * power:.0f}% to show equivalence within {margin:.0f} points."
