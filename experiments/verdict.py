"""What the registered studies have found so far: ``experiments/VERDICT.md`` and the same as one HTML page.

    python -m experiments.verdict

Read from the study files and the committed cells under ``experiments/results/`` alone, so that anyone can make it again
from a clone. For each published claim (``claims.yaml``) a sentence with interval, blocks, n and model, its scope, what
would decide it and what that costs; for each sentence the table, the command and the hash of the study file. Cells that
were made under another study file are exploratory and stand apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.cells import RESULTS, likely_seconds, read_cells
from experiments.judging import Blocks, judge_family, sentence, whole_blocks
from experiments.study import FOLDER, Family, Study, read_study
from experiments.tables import bases_line, contrasts_table, not_counted_table, students_table
from spd_lightning.artifacts.files import write_atomic
from spd_lightning.artifacts.reading import reading
from spd_lightning.errors import UserError, counted
from spd_lightning.evaluation.across import ONE_STUDENT
from spd_lightning.report.html import render_html
from spd_lightning.report.render import Block, Bullets, Heading, render_markdown

TITLE = "Does it work? What the registered studies say"
CLAIM_KEYS = {"claim", "published", "scale", "contrasts", "decides"}
Judged = dict[tuple[str, str, str, str], dict[str, Any]]
"""Study, a, b and task of a contrast to its row."""


def verdict_blocks(folder: Path = FOLDER, results: Path = RESULTS) -> list[Block]:
    """The page: claims, then a table for each study.

    Raises:
        UserError: If a study, a cell or ``claims.yaml`` is damaged, or a claim names a contrast that none registered.
    """
    studies = {name: read_study(name, folder) for name in sorted(p.parent.name for p in folder.glob("*/study.yaml"))}
    cells = {name: read_cells(study, results) for name, study in studies.items()}
    blocks = {n: whole_blocks(s, [c for c in cells[n] if not c["exploratory"]]) for n, s in studies.items()}
    judged: Judged = {}
    families: dict[str, list[list[dict[str, Any]]]] = {}
    for name, study in studies.items():
        families[name] = [judge_family(study, blocks[name], family) for family in study.families]
        for row in (row for rows in families[name] for row in rows):
            c = row["contrast"]
            judged.setdefault((name, c.a, c.b, c.task), row)
    page: list[Block] = [*_state(studies, blocks), Heading("The published claims")]
    for claim in read_claims(folder / "claims.yaml", judged, studies):
        page += _claim(claim, judged, studies, blocks)
    page.append(Heading("Studies"))
    for name, study in studies.items():
        page += _study(study, blocks[name], families[name], cells[name])
    return page


def read_claims(path: Path, judged: Judged, studies: Mapping[str, Study]) -> list[dict[str, Any]]:
    """The published claims, checked against the studies.

    Raises:
        UserError: If the file is damaged, or names what no study has.
    """
    with reading(path, "the published claims", "Put back the committed one."):
        return _claims(path, judged, studies)


def _claims(path: Path, judged: Judged, studies: Mapping[str, Study]) -> list[dict[str, Any]]:
    claims = yaml.safe_load(path.read_text(encoding="utf-8"))
    for claim in claims if isinstance(claims, list) else [claims]:
        if not isinstance(claim, dict) or set(claim) != CLAIM_KEYS or not claim["contrasts"]:
            raise UserError(f"{path}: a claim has {', '.join(sorted(CLAIM_KEYS))}, found {claim!r}. Mend it.")
        for found in claim["contrasts"]:
            if tuple(found.get(k) for k in ("study", "a", "b", "task")) not in judged:
                raise UserError(f"{path}: {found} is no registered contrast of a study. Name one of its families.")
        if claim["decides"] not in studies:
            raise UserError(f"{path}: decides={claim['decides']!r} is no study. Name one of {', '.join(studies)}.")
    return list(claims)


def _state(studies: Mapping[str, Study], blocks: Mapping[str, Blocks]) -> list[Block]:
    whole = sum(len(found.whole) for found in blocks.values())
    if not whole:
        begun = sum(len(found.spare) for found in blocks.values())
        return [
            f"No block of any study is complete yet ({begun} cells of blocks that are not whole are done). Nothing is "
            "tested, and nothing below says that SPD helps or does not."
        ]
    done = [f"{n}: {len(blocks[n].whole)} of {len(s.blocks)}" for n, s in studies.items() if blocks[n].whole]
    return [f"Whole blocks so far: {'; '.join(done)}. What is not whole is left out."]


def _claim(
    claim: Mapping[str, Any], judged: Judged, studies: Mapping[str, Study], blocks: Mapping[str, Blocks]
) -> list[Block]:
    first, *others = claim["contrasts"]
    lead = judged[_key(first)]
    lines = [f"Published: {claim['published']}.", f"Here: {sentence(studies[first['study']], lead)}"]
    lines.append(f"Scope: {_scope(claim, lead)}")
    for found in others:
        lines.append(f"Beside it: {sentence(studies[found['study']], judged[_key(found)])}")
    for name in dict.fromkeys([claim["decides"], first["study"]]):
        lines.append(f"What would decide it: {_cost(studies[name], blocks[name])}")
    for name in dict.fromkeys(found["study"] for found in claim["contrasts"]):
        lines.append(f"Source: {_source(studies[name], blocks[name])}")
    return [Heading(claim["claim"], 3), Bullets(lines)]


def _key(found: Mapping[str, str]) -> tuple[str, str, str, str]:
    return found["study"], found["a"], found["b"], found["task"]


def _scope(claim: Mapping[str, Any], lead: Mapping[str, Any]) -> str:
    """What the word of a claim's first contrast allows to say, and of what."""
    here = "135M and 270M parameters, dequantised, mostly generated tasks"
    word = lead.get("word")
    if word == "higher":
        return (
            f"this difference is shown at this scale ({here}), which says nothing of the size that was published; "
            "whether it makes the claim true, the contrasts beside it say."
        )
    if not claim["scale"]:
        return f"{here}."
    if word in ("lower", "no difference"):
        return f"not reproduced at this scale ({here}); the published one is of other models and data."
    if word == ONE_STUDENT:
        return f"one student of each ({here}): neither reproduced nor refuted."
    return f"neither reproduced nor refuted so far ({here}); the published one is of other models and data."


def _missing(study: Study, blocks: Blocks) -> dict[str, list[str]]:
    """Arms of the cells of blocks that are not whole and not done, by device, the study's own first: a block is one
    machine's."""
    found = {}
    for device in (study.device, *sorted({cell["device"] for cell in blocks.spare} - {study.device})):
        done = {(cell["arm"], cell["seed"]) for cell in blocks.spare if cell["device"] == device}
        left = [(arm.name, seed) for arm, seed in study.cells() if seed not in blocks.whole]
        found[device] = [arm for arm, seed in left if (arm, seed) not in done]
    return found


def _hours(study: Study, blocks: Blocks, missing: Sequence[str]) -> tuple[float, str]:
    """How long cells of these arms take on the study's device, and how that is known."""
    cells = [*blocks.spare, *(cell for block in blocks.whole.values() for cell in block.values())]
    took = {arm: likely_seconds(study, study.device, cells, arm) for arm in set(missing)}
    cost = study.content["cost"]
    seconds = sum(took[arm] or float(cost["seconds_per_cell"]) for arm in missing)
    return seconds / 3600, cost["how"] if None in took.values() else "as finished cells took"


def _cost(study: Study, blocks: Blocks) -> str:
    (_, missing), *begun = _missing(study, blocks).items()
    if not missing:
        return f"{study.name} is complete as registered; more blocks or larger models would need a study of their own."
    hours, how = _hours(study, blocks, missing)
    elsewhere = "".join(f"; or {len(cells)} on {device}, which began some of its blocks" for device, cells in begun)
    command = f"python -m experiments.run {study.name}"
    return f"{study.name}, {counted(len(missing), 'more cell')}, about {hours:.1f} hours ({how}){elsewhere}: {command}"


def _source(study: Study, blocks: Blocks) -> str:
    made: dict[str, list[int]] = {}  # code and machine to the blocks that they made
    for seed, block in blocks.whole.items():
        cell = next(iter(block.values()))
        where = f"code at {cell['commit'][:12]} on {cell['device']}, threads {cell['threads']}"
        made.setdefault(where, []).append(seed)
    code = "; ".join(f"{where}: blocks {', '.join(map(str, seeds))}" for where, seeds in made.items())
    return (
        f"table {study.name} below; command: python -m experiments.run {study.name}; study file "
        f"experiments/{study.name}/study.yaml, SHA-256 {study.sha256[:16]}; {code or 'no cell counted yet'}."
    )


def _study(
    study: Study, blocks: Blocks, families: Sequence[Sequence[Mapping[str, Any]]], cells: Sequence[Mapping[str, Any]]
) -> list[Block]:
    left, spare = _missing(study, blocks), len(blocks.spare)
    if alone := left[study.device]:
        missing = " or ".join(f"{len(arms)} on {device}" for device, arms in left.items())
        hours = f"{_hours(study, blocks, alone)[0]:.1f} hours on {study.device}"
        state = f"{missing} missing (about {hours}), {spare} done in blocks that are not whole"
    else:
        state = "none missing" + (f", {spare} more done elsewhere, in blocks that are not whole there" if spare else "")
    page: list[Block] = [
        Heading(study.name, 3),
        f"{study.content['hypothesis']} Status: {study.content['status']}; {len(blocks.whole)} of "
        f"{len(study.blocks)} blocks whole, of {len(study.cells())} cells {state}. {_source(study, blocks)}",
    ]
    if blocks.whole:
        page += [contrasts_table(rows) for rows in families]
        page += [*bases_line(study, blocks), *students_table(study, blocks)]
    page += not_counted_table(study, blocks)
    foreign = [cell for cell in cells if cell["exploratory"]]
    hashes = dict.fromkeys(cell["study_sha256"] for cell in foreign)
    for digest in hashes:
        own = whole_blocks(study, [cell for cell in foreign if cell["study_sha256"] == digest])
        page.append(Heading(f"Exploratory: {study.name} under another study file, SHA-256 {digest[:16]}", 3))
        rows = [row for family in study.families for row in judge_family(study, own, family)]
        for row in rows:
            row["p_holm"], row["word"] = None, "exploratory" if row["blocks"] else "not tested"
            row["family"] = Family("all contrasts", "exploratory", 0.05, ())
        page.append(contrasts_table(rows) if own.whole else f"{counted(len(own.spare), 'cell')}, no whole block.")
    return page


def write_verdict(folder: Path = FOLDER, results: Path = RESULTS) -> Path:
    """Write ``VERDICT.md`` and ``VERDICT.html``; equal cells give equal bytes.

    Returns:
        The Markdown file.
    """
    page = verdict_blocks(folder, results)
    write_atomic(folder / "VERDICT.html", render_html(TITLE, page))
    return write_atomic(folder / "VERDICT.md", render_markdown(TITLE, page))


def main(args: Sequence[str] | None = None) -> int:
    """Write the verdict; exit status 2 for a damaged file."""
    parser = argparse.ArgumentParser(prog="python -m experiments.verdict", description=(__doc__ or "").split("\n")[0])
    parser.parse_args(args)
    try:
        print(write_verdict())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
