"""The verdict from made-up studies and cells: what it says of no block, one, and five, and its sources."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiments import verdict
from experiments.cells import SCHEMA, Environment, cell_key, environment_of, keep_cell
from experiments.judging import CHANCE, judge_family, sentence, whole_blocks
from experiments.study import FOLDER, LACK_OF_TIME, Study, read_study
from spd_lightning.errors import UserError
from spd_lightning.evaluation.blocks import fresh_rows, same_rows
from spd_lightning.tasks import load_task

SHARES = {"base": 0.30, "ssd": 0.40, "spd": 0.55}
CONTENT: dict[str, Any] = {
    "name": "tiny",
    "status": "registered",
    "hypothesis": "SPD is better.",
    "primary_contrast": {"a": "ssd", "b": "spd", "task": "arithmetic"},
    "families": [
        {
            "name": "second",
            "correction": "holm",
            "contrasts": [{"a": "base", "b": b, "task": "arithmetic"} for b in ("spd", "ssd")],
        },
        {
            "name": "other",
            "correction": "exploratory",
            "contrasts": [{"a": "ssd", "b": "spd", "task": t} for t in ("letters", "mmlu")],
        },
    ],
    "smallest_effect": 3,
    "n": {"arithmetic": 1000, "letters": 300, "mmlu": 285},
    "blocks": [1, 2, 3, 4, 5],
    "lack_of_time": LACK_OF_TIME,
    "device": "cpu",
    "threads": 1,
    "cost": {"seconds_per_cell": 3600, "how": "an hour each"},
    "settings": {"subspace": {"model_name_or_path": "tiny-model", "task": "arithmetic"}},
    "arms": {m: {"what": m, "options": {"data.method": m}} for m in SHARES},
}
CLAIM = {
    "claim": "SPD gains over SSD.",
    "published": "22 against 12",
    "scale": True,
    "contrasts": [{"study": "tiny", "a": "ssd", "b": "spd", "task": t} for t in ("arithmetic", "letters")],
    "decides": "tiny",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "study.yaml").write_text(yaml.safe_dump(CONTENT, sort_keys=False))
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([CLAIM]))
    return tmp_path


def cell_of(study: Study, arm: str, seed: int, commit: str = "c0ffee", shift: float = 0.0) -> dict[str, Any]:
    """A finished cell: fresh rows for each seed but for mmlu, the letters at chance."""
    environment = environment_of(study, "cpu", commit)
    shares = {"arithmetic": SHARES[arm] + shift, "letters": 0.27 if arm == "base" else 0.5, "mmlu": 0.45}
    generator = np.random.default_rng([seed, len(arm), ord(arm[1])])

    def row(of: dict[str, float]) -> dict[str, Any]:
        found = {}
        for task, share in of.items():
            n = study.content["n"][task]
            bits = "".join("01"[int(generator.random() < share)] for _ in range(n))
            ids = f"{task}" if task == "mmlu" else f"{task} {seed}"
            found[task] = {"n": n, "ids_sha256": ids, "correct": bits, "answered": "1" * n}
            if task == "mmlu":
                found[task]["groups"] = [[f"subject {i}", 5] for i in range(57)]
        return found

    trained = arm != "base"
    return {
        "schema": SCHEMA,
        "study": study.name,
        "study_sha256": study.sha256,
        "commit": commit,
        "device": "cpu",
        "threads": 1,
        "arm": arm,
        "seed": seed,
        "key": cell_key(study, environment, arm, seed),
        "task": "arithmetic",
        "method": arm,
        "scores": [],
        "verdicts": {"student": row(shares)} if trained else {"base": row(shares)},
        "facts": {"moved": {"held_out": {"kl": 0.02}, "corpus": {"loss_delta": -0.1}}},
        "student": {"weights_sha256": "x", "step": 128} if trained else None,
    }


def keep(folder: Path, seeds: list[int], arms: tuple[str, ...] = tuple(SHARES), **more: Any) -> Study:
    study = read_study("tiny", folder)
    for seed in seeds:
        for arm in arms:
            keep_cell(cell_of(study, arm, seed, **more), folder / "results")
    return study


def page(folder: Path) -> str:
    return verdict.write_verdict(folder, folder / "results").read_text()


def test_without_a_whole_block_it_says_so_first_and_claims_nothing(folder: Path) -> None:
    for seeds, done in (([], 0), ([1], 2)):
        keep(folder, seeds, ("base", "spd"))
        text = page(folder)
        assert f"No block of any study is complete yet ({done} cells" in text.split("##")[0]
        assert "not tested yet, no whole block of tiny has both" in text
        assert (
            f"{15 - done} more cells, about {15 - done}.0 hours (an hour each): python -m experiments.run tiny" in text
        )
        assert "neither reproduced nor refuted" in text and "higher" not in text
    assert (folder / "VERDICT.html").is_file()


def test_what_is_missing_is_counted_by_machine(folder: Path) -> None:
    study = read_study("tiny", folder)
    for seed, device in ((1, "a card"), (2, "a card"), (2, "cpu")):
        for arm in list(SHARES)[: 3 if seed == 1 else 1]:  # block 1 is whole
            made = cell_of(study, arm, seed)
            key = cell_key(study, Environment("c0ffee", device, 1), arm, seed)
            keep_cell({**made, "device": device, "key": key}, folder / "results")
    key = cell_key(study, Environment("c0ffee", "a card", 1), "ssd", 3)
    keep_cell({**cell_of(study, "ssd", 3), "device": "a card", "key": key}, folder / "results")
    text = page(folder)
    assert "of 15 cells 11 on cpu or 10 on a card missing (about 11.0 hours on cpu), 3 done in" in text
    rows = [row for row in text.split("Cells of blocks")[0].splitlines() if row.startswith(("| 2 |", "| 3 |"))]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| 2", "base", "a card"],
        ["| 2", "base", "cpu"],
        ["| 3", "ssd", "a card"],
    ], "which machine a cell is of"
    assert "code at c0ffee on a card, threads 1: blocks 1." in text
    keep(folder, [2, 3, 4, 5])
    assert "5 of 5 blocks whole, of 15 cells none missing, 2 more done elsewhere, in blocks that are" in page(folder)
    assert "11 more cells, about 11.0 hours (an hour each); or 10 on a card, which began some of its blocks: " in text


def test_what_is_missing_takes_as_long_as_what_is_done_took(folder: Path) -> None:
    """On the same device: the median of an arm's own cells, else of all."""
    study = read_study("tiny", folder)
    for arm, seed, device, hours in (
        ("base", 1, "cpu", 2),
        ("base", 2, "cpu", 4),
        ("ssd", 1, "cpu", 7),
        ("spd", 1, "x", 90),
    ):
        cell = {**cell_of(study, arm, seed), "device": device, "wall_seconds": 3600 * hours}
        keep_cell({**cell, "key": cell_key(study, Environment("c0ffee", device, 1), arm, seed)}, folder / "results")
    hours = 3 * 3 + 4 * 7 + 5 * 4  # base 3, ssd 7, spd as the median of 2, 4 and 7
    assert f"12 more cells, about {hours}.0 hours (as finished cells took); or 14 on x" in page(folder)


def test_five_blocks_give_a_sentence_with_interval_blocks_n_model_and_its_source(folder: Path) -> None:
    study = keep(folder, [1, 2, 3, 4, 5])
    cells = [cell_of(study, arm, seed) for seed in (1, 2, 3, 4, 5) for arm in SHARES]
    blocks = whole_blocks(study, cells)
    (row,) = judge_family(study, blocks, study.families[0])
    right = {
        (c["arm"], c["seed"]): c["verdicts"]["student"]["arithmetic"]["correct"].count("1")
        for c in cells
        if c["arm"] != "base"
    }
    expected = fresh_rows([(right["spd", s] - right["ssd", s]) / 1000 for s in study.blocks])
    assert row["ci95"] == pytest.approx(expected.interval) and row["p_holm"] == pytest.approx(expected.p_value)
    assert row["word"] == "higher"
    text = page(folder)
    low, high = (f"{100 * v:+.1f}" for v in row["ci95"])
    said = sentence(study, row)
    assert (
        f"95% interval [{low}, {high}], 5 blocks of 1,000 rows drawn for each block" in said and "(tiny-model)" in said
    )
    assert "4 of 5 studies" in said and "to show equivalence within 3 points" in said
    assert "shown at this scale" in text and study.sha256[:16] in text and "code at c0ffee" in text
    assert "python -m experiments.run tiny" in text and "0.0200" in text and "128" in text
    assert page(folder) == text, "equal cells give equal bytes"


def test_a_second_family_is_corrected_and_an_exploratory_one_has_no_stars(folder: Path) -> None:
    study = keep(folder, [1, 2, 3, 4, 5])
    blocks = whole_blocks(study, [cell_of(study, arm, seed) for seed in study.blocks for arm in SHARES])
    second = judge_family(study, blocks, study.families[1])
    assert all(row["p_holm"] >= row["p_value"] for row in second) and {row["word"] for row in second} == {"higher"}
    letters, mmlu = judge_family(study, blocks, study.families[2])
    assert not letters["judged"] and letters["word"] == "not judged: the base is at chance", "27% of four letters"
    assert mmlu["rows"] == "same" and mmlu["p_holm"] is None and mmlu["word"] in ("exploratory", "no difference")
    assert second[0]["pooled"] is not None and mmlu["pooled"] is None
    verdict.write_verdict(folder, folder / "results")
    html = (folder / "VERDICT.html").read_text()
    (row_of,) = [row for row in html.split("<tr") if "not judged: the base is at chance</td>" in row]
    assert row_of.startswith(' class="greyed">') and html.count('class="greyed"') == 1


def test_the_same_rows_in_every_block_are_compared_within_their_subjects(folder: Path) -> None:
    study = keep(folder, [1, 2, 3, 4, 5])
    cells = {(arm, seed): cell_of(study, arm, seed) for seed in (1, 2, 3, 4, 5) for arm in SHARES}
    rows = judge_family(study, whole_blocks(study, list(cells.values())), study.families[2])
    (row,) = (row for row in rows if row["contrast"].task == "mmlu")
    a, b = (
        [[float(bit) for bit in cells[arm, seed]["verdicts"]["student"]["mmlu"]["correct"]] for seed in (1, 2, 3, 4, 5)]
        for arm in ("ssd", "spd")
    )
    within = same_rows(a, b, strata=[i // 5 for i in range(285)])
    assert row["rows"] == "same" and row["stderr"] == pytest.approx(within.stderr, rel=1e-12)
    assert within.stderr != pytest.approx(same_rows(a, b).stderr, rel=1e-3)


def test_of_the_same_rows_the_shown_scores_are_of_all_students_that_the_difference_is_of(folder: Path) -> None:
    """An arm that stands in fewer blocks: on rows that are the same in all of them every student counts."""
    arms = {**CONTENT["arms"], "spd": {**CONTENT["arms"]["spd"], "blocks": [3, 4, 5]}}
    (folder / "tiny" / "study.yaml").write_text(yaml.safe_dump({**CONTENT, "arms": arms}, sort_keys=False))
    study = read_study("tiny", folder)
    cells = [cell_of(study, arm.name, seed) for arm, seed in study.cells()]
    (row,) = (r for r in judge_family(study, whole_blocks(study, cells), study.families[2]) if r["n"] == 285)
    a, b = row["scores"]
    assert row["delta"] == pytest.approx(b - a, abs=1e-12)
    right = [c["verdicts"]["student"]["mmlu"]["correct"].count("1") for c in cells if c["arm"] == "ssd"]
    assert len(right) == 5 and a == pytest.approx(sum(right) / 5 / 285)


def test_tokens_trained_on_stand_beside_those_generated(folder: Path) -> None:
    study = read_study("tiny", folder)
    for seed, kept in zip(study.blocks, (100, 150, 200, 100, 50)):
        for arm in SHARES:
            cell = cell_of(study, arm, seed)
            budget = {"generated_tokens": 8000 + seed, "texts": 512, "repeats": 0, "completion_tokens": 1000 * seed}
            rule = {"kept": {"rule": "majority", "kept": kept, "of": 500}} if arm == "spd" else {}
            cell["facts"]["corpus"] = {"budget": budget, **rule} if arm != "base" else None
            cell["facts"]["moved"]["held_out"]["kl"] = 2e-5 if arm == "ssd" else 0.02  # no 0
            keep_cell(cell, folder / "results")
    rows = [line for line in page(folder).splitlines() if line.startswith(("| ssd |", "| spd |"))]
    assert rows == [
        "| ssd | 5 | 128 | 3,000 | 8,003 | - | 2.0e-05 | -0.100 |",
        "| spd | 5 | 128 | 3,000 | 8,003 | 24% | 0.0200 | -0.100 |",
    ]


def test_the_chance_of_bbh_is_that_of_its_options(data_dir: str) -> None:
    """Mean over rows of one in so many options; yes or no, true or false are two."""
    rows = load_task("bbh:paper", data_dir).benchmark("standard").examples
    options = [len(re.findall(r"^\([A-Z]\)", e.meta["question"], re.MULTILINE)) or 2 for e in rows]
    assert CHANCE["bbh"] == pytest.approx(sum(1 / n for n in options) / len(options), abs=0.005)


def test_one_block_is_about_two_students_and_two_have_no_interval(folder: Path) -> None:
    study = keep(folder, [1])
    assert "one block (seed 1), 1,000 rows: about these two students, not the method" in page(folder)
    keep(folder, [2])
    assert "mean of 2 blocks of 1,000 rows drawn for each block; no interval" in page(folder)
    assert study.name == "tiny"


def test_blocks_that_are_not_whole_or_of_two_commits_do_not_count(folder: Path) -> None:
    study = keep(folder, [1])
    keep(folder, [2], ("base", "ssd"))
    keep(folder, [2], ("spd",), commit="other1")
    text = page(folder)
    assert "tiny: 1 of 5" in text and "3 done in blocks that are not whole" in text
    assert text.count("Cells of blocks that lack an arm, percent") == 1
    assert len(list((folder / "results" / study.name).glob("*.json"))) == 6


def test_cells_of_another_study_file_are_exploratory(folder: Path) -> None:
    old = keep(folder, [1, 2, 3])
    changed = {**CONTENT, "hypothesis": "Another one."}
    (folder / "tiny" / "study.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    text = page(folder)
    assert "No block of any study is complete yet" in text
    assert f"Exploratory: tiny under another study file, SHA-256 {old.sha256[:16]}" in text
    exploratory = text.split("Exploratory: tiny")[1]
    assert "| exploratory |" in exploratory and "higher" not in exploratory
    assert "all contrasts: intervals without stars" in exploratory and "Holm" not in exploratory


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contrasts": [{"study": "tiny", "a": "psr", "b": "spd", "task": "arithmetic"}]}, "no registered contrast"),
        ({"decides": "huge"}, "decides='huge' is no study"),
        ({"extra": 1}, "a claim has"),
    ],
)
def test_a_claim_that_no_study_can_answer_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    (folder / "claims.yaml").write_text(yaml.safe_dump([{**CLAIM, **change}]))
    with pytest.raises(UserError, match=message):
        page(folder)


@pytest.mark.parametrize("text", ["", "[", "7", "- {claim: x}", b"\xff", "- " * 300])
def test_damaged_claims_are_told(folder: Path, text: str | bytes) -> None:
    (folder / "claims.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"claims\.yaml"):
        page(folder)


def test_the_committed_claims_are_registered_contrasts(tmp_path: Path) -> None:
    """Of our own studies; the page can be made from what is committed."""
    blocks = verdict.verdict_blocks(FOLDER, tmp_path)
    assert any("No block of any study" in block for block in blocks if isinstance(block, str))
