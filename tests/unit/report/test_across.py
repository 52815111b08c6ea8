"""Students of different runs are compared on what both answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from spd_lightning.artifacts.files import write_jsonl
from spd_lightning.evaluation.across import ONE_STUDENT
from spd_lightning.report import read_run, write_report, write_results
from spd_lightning.report.across import (
    MOST_ARMS,
    across_rows,
    across_sections,
    arms_of,
    chosen_pairs,
    is_base,
    trained_arms,
)
from spd_lightning.report.answer import answer_of_runs
from spd_lightning.report.chart import Intervals
from spd_lightning.report.exports import one_line
from spd_lightning.report.render import Table
from spd_lightning.report.sweeps import combine_seeds, told_apart
from spd_lightning.report.verdict import sentence_of_runs

SCORE = {"split": "in", "protocol": "standard", "stderr": 0.1, "ci95": None, "isolation": None, "seconds": 1.0}


def run_of(
    path: Path,
    method: str,
    seed: int,
    share: float,
    fresh: bool = True,
    n: int = 200,
    model: str = "tiny",
    base: float = 0.3,
    prompt: str = "?",
    facts: dict[str, Any] | None = None,
    task: str = "arithmetic",
) -> Path:
    """A run folder with the samples of a base and of one student; ``facts`` are noted of how both were asked."""
    path.mkdir(parents=True)
    config = {
        "seed_everything": seed,
        "subspace": {"model_name_or_path": model, "task": task},
        "data": {"method": method},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    scores = []
    for row, right in (("base", base), (method, share)):
        draw = np.random.default_rng([seed if fresh or row != "base" else 0, round(1000 * right)])
        records = [
            {
                "id": f"seed {seed}/{i}" if fresh else f"test/{i}",
                "sample": 0,
                "prompt": prompt,
                "completion": "1",
                "answer": "1",
                "expected": "1",
                "correct": bool(draw.random() < right),
                "reason": "",
                "scores": {},
                **({} if fresh else {"group": f"subject {i % 10}"}),
            }
            for i in range(n)
        ]
        write_jsonl(path / "samples" / f"{task}.{row}.jsonl", records)
        value = sum(r["correct"] for r in records) / n
        metric = {"task": task, "metric": "exact_match_flexible"}
        scores.append({**SCORE, **metric, "method": row, "value": value, "n": n, "seed": seed})
    asked = {} if facts is None else {f"{task}.{row}": facts for row in ("base", method)}
    write_results(path, f"{seed}{method}", task, method, scores, [], [], benchmarks=asked)
    return path


def table_of(rows: list[dict[str, Any]]) -> Table:
    (section,) = across_sections(rows)
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    return table


def test_ssd_and_spd_of_different_runs_are_paired_block_by_block(tmp_path: Path) -> None:
    folders = [run_of(tmp_path / f"{m}-{s}", m, s, p) for m, p in (("ssd", 0.4), ("spd", 0.7)) for s in (1, 2, 3)]
    runs = [read_run(folder) for folder in folders]
    rows = {(r["a"], r["b"]): r for r in across_rows(runs)}
    pairs = [("base", "ssd"), ("base", "spd"), ("ssd", "spd")]
    assert list(rows) == pairs, "the bases are one arm; every pair once"
    row = rows[pairs[2]]
    values = {(r.results["method"], r.seed): r.scores[1]["value"] for r in runs}
    assert row["delta"] == pytest.approx(np.mean([values["spd", s] - values["ssd", s] for s in (1, 2, 3)]))
    assert (row["blocks"], row["rows"], row["n"], row["unshared"]) == (3, "fresh", 200, 0)
    assert row["p_holm"] >= row["p_value"] and row["word"] == ("higher" if row["p_holm"] < 0.05 else "undecided")
    page = write_report(folders, tmp_path / "all")
    assert "Comparisons across runs" in page.read_text()
    assert len(json.loads((tmp_path / "all" / "results.json").read_text())["across"]) == 3


def test_one_run_each_is_about_two_students_and_never_starred(tmp_path: Path) -> None:
    runs = [read_run(run_of(tmp_path / m, m, 1, p)) for m, p in (("ssd", 0.2), ("spd", 0.9))]
    rows = across_rows(runs)
    assert {r["word"] for r in rows} == {ONE_STUDENT} and max(r["students"]["p_value"] for r in rows[2:]) < 1e-6
    table = table_of(rows)
    assert not table.marked and [row[-1] for row in table.rows] == [ONE_STUDENT] * 3
    assert all(row[4].startswith("[") and row[6] == "-" for row in table.rows)


def test_the_same_rows_have_strata_and_a_second_figure_for_new_subjects(tmp_path: Path) -> None:
    runs = [
        read_run(run_of(tmp_path / f"{m}-{s}", m, s, p, fresh=False))
        for m, p in (("ssd", 0.4), ("spd", 0.6))
        for s in (1, 2, 3)
    ]
    rows = across_rows(runs)
    assert {r["rows"] for r in rows} == {"same"} and all(r["to_new_subjects"] for r in rows)
    assert "To new subjects" in table_of(rows).note
    fewer = [r for r in read_lines(runs[0].path) if int(r["id"].split("/")[1]) < 120]
    write_jsonl(runs[0].path / "samples" / "arithmetic.ssd.jsonl", fewer)
    again = [read_run(r.path) for r in runs]
    row = next(r for r in across_rows(again) if r["a"].startswith("ssd"))
    assert (row["n"], row["unshared"]) == (120, 5 * 80)
    assert "400 answers unshared" in table_of([row]).rows[0][8]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "samples" / "arithmetic.ssd.jsonl").read_text().splitlines()]


def test_a_base_that_was_scored_once_stands_in_every_block(tmp_path: Path) -> None:
    """No seed draws the rows of a data set, and none trained the base: two of three runs left it out."""
    folders = [run_of(tmp_path / f"{s}", "spd", s, 0.3 + s / 10, False, task="gsm8k") for s in (1, 2, 3)]
    whole = across_rows([read_run(folder) for folder in folders])
    for folder in folders[1:]:
        (folder / "samples" / "gsm8k.base.jsonl").unlink()
        results = json.loads((folder / "results.json").read_text())
        results["scores"] = results["scores"][1:]
        (folder / "results.json").write_text(json.dumps(results))
    runs = [read_run(folder) for folder in folders]
    assert across_rows(runs) == whole and whole[0]["blocks"] == 3
    low, high = whole[0]["ci95"]
    assert low < whole[0]["delta"] < high
    fresh = [read_run(run_of(tmp_path / f"fresh{s}", "spd", s, 0.5)) for s in (1, 2)]
    (fresh[1].path / "samples" / "arithmetic.base.jsonl").unlink()
    (row,) = across_rows([read_run(run.path) for run in fresh])
    assert row["blocks"] == 1, "rows that the seed draws are others under another seed"


def test_configurations_with_long_labels_and_folders_of_one_name_stay_apart(tmp_path: Path) -> None:
    """Their runs would be taken for one arm, of which the second study never counted."""
    runs = []
    for study, share in (("first", 0.3), ("second", 0.9)):
        for seed in (1, 2, 3):
            path = run_of(tmp_path / study / f"{seed}", "spd", seed, share)
            config = yaml.safe_load((path / "config.yaml").read_text())
            config["data"] |= {f"an_option_of_a_long_name_{i}": f"{study} value" for i in range(3)}
            (path / "config.yaml").write_text(yaml.safe_dump(config))
            runs.append(read_run(path))
    arms = trained_arms(runs)
    assert list(arms) == ["spd (1 in first)", "spd (1 in second)"] and [len(group) for group in arms.values()] == [3, 3]
    rows = {(row["a"], row["b"]): row for row in across_rows(runs)}
    assert rows["base", "spd (1 in second)"]["delta"] > 0.5 > rows["base", "spd (1 in first)"]["delta"] + 0.3
    assert {row["configuration"] for row in combine_seeds(runs)} == {"1 in first", "1 in second"}
    assert told_apart(["a", "b", "a"], [runs[:1], runs[1:2], runs[2:3]]) == ["a in first, 1", "b", "a in first, 3"]


def test_the_note_on_many_arms_is_of_one_benchmark() -> None:
    row: dict[str, Any] = {"a": "base", "protocol": "standard", "metric": "acc", "students": None, "word": "undecided"}
    row |= {"delta": 0.1, "ci95": None, "p_value": None, "p_holm": None, "rows": "same", "blocks": 2, "unshared": 0}
    row |= {"n": 10, "smallest_effect": None, "equivalence_power": None}
    rows = [{**row, "task": f"t{i % 2}", "b": f"spd {i}"} for i in range(2 * MOST_ARMS - 4)]
    assert "each is compared with one alone" not in table_of(rows).note
    assert "13 arms: each is" in table_of([{**r, "task": "t"} for r in rows[:MOST_ARMS]]).note


def test_bases_of_other_models_are_arms_of_their_own(tmp_path: Path) -> None:
    runs = [read_run(run_of(tmp_path / m, "spd", 1, 0.5, fresh=False, model=m)) for m in ("one", "two")]
    (arms,) = arms_of(runs).values()
    assert [arm.split(" ")[0] for arm in arms] == ["base", "spd", "base", "spd"] and len(arms) == 4
    assert not any(r["a"].startswith("base of") and r["b"].startswith("base of") for r in across_rows(runs))


def test_a_student_is_compared_with_the_base_that_it_was_trained_from(tmp_path: Path) -> None:
    """A student of a good model is far above the base of a bad one, which says nothing of the training."""
    sizes = {"small": 0.1, "large": 0.8}
    folders = [run_of(tmp_path / m, "spd", 1, p + 0.05, False, model=m, base=p) for m, p in sizes.items()]
    runs = [read_run(folder) for folder in folders]
    rows = across_rows(runs)
    against = [row for row in rows if is_base(row["a"])]
    assert [(row["a"], row["b"]) for row in against] == [
        (f"base of model_name_or_path={m}", f"spd (model_name_or_path={m})") for m in sizes
    ]
    assert all(abs(row["delta"] - 0.05) < 0.1 for row in against)
    assert [(row["a"], row["b"]) for row in rows if not is_base(row["a"])] == [(against[0]["b"], against[1]["b"])]
    said = sentence_of_runs(runs, rows)
    assert "None of 2 are shown to be better" in said and "+7" not in said
    chart = answer_of_runs(runs, rows, {}).figures[0].chart
    assert isinstance(chart, Intervals) and len(chart.rows) == 2
    lines = one_line(runs, rows).splitlines()[2:]
    assert all(f"| {100 * row['delta']:+.1f} " in line for row, line in zip(against, lines, strict=True))
    assert chosen_pairs(["base of a", "x", "base of b", "y"], {"x": "base of a", "y": "base of b"} | OWN) == [
        ("base of a", "x"),
        ("x", "y"),
        ("base of b", "y"),
    ]


OWN = {"base of a": "base of a", "base of b": "base of b"}


def test_of_many_arms_each_is_compared_with_its_own_base_or_the_first_student() -> None:
    students = {f"{base[-1]}{i}": base for base in OWN for i in range(MOST_ARMS)}
    pairs = chosen_pairs([*OWN, *students, "z"], {**OWN, **students, "z": "base of c"})
    assert pairs == [*((base, arm) for arm, base in students.items()), ("a0", "z")]


def test_files_of_ones_own_with_equal_ids_are_not_taken_for_the_same_questions(tmp_path: Path) -> None:
    runs = [
        read_run(run_of(tmp_path / q, m, 1, 0.5, False, prompt=q, base=p, facts={"examples": q}, task="custom"))
        for m, q, p in (("spd", "one", 0.2), ("ssd", "two", 0.4))
    ]
    rows = {(row["a"], row["b"]): row["delta"] for row in across_rows(runs)}
    assert list(rows) == [("base of one", "spd"), ("base of two", "ssd")], "and no student with the other"
    values = [[s["value"] for s in run.scores] for run in runs]
    assert list(rows.values()) == pytest.approx([student - base for base, student in values])


def test_bases_that_were_asked_in_other_ways_are_arms_of_their_own(tmp_path: Path) -> None:
    runs = [
        read_run(run_of(tmp_path / m, m, 1, 0.5, False, base=p, facts={"prompt_format": f, "repetition_penalty": 1.0}))
        for m, f, p in (("ssd", "plain", 0.1), ("spd", "chat", 0.5))
    ]
    rows = {(row["a"], row["b"]): row["delta"] for row in across_rows(runs)}
    assert list(rows) == [("base of ssd", "ssd"), ("ssd", "spd"), ("base of spd", "spd")]
    values = [{s["method"]: s["value"] for s in run.scores} for run in runs]
    assert rows["base of spd", "spd"] == pytest.approx(values[1]["spd"] - values[1]["base"])


def test_a_base_is_one_whatever_adapter_was_scored_beside_it(tmp_path: Path) -> None:
    """`test --evaluation.adapter` of two students: the base was asked alike, and stands once."""
    runs = []
    for name, share in (("one", 0.4), ("two", 0.6)):
        path = run_of(tmp_path / name, "spd", 1, share, False)
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["evaluation"] = {"adapter": name, "subspace": name, "best_decoding": [{"temperature": share}]}
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        runs.append(read_run(path))
    pairs = [(row["a"].split(" (")[0], row["b"].split(" (")[0]) for row in across_rows(runs)]
    assert pairs == [("base", "spd"), ("base", "spd"), ("spd", "spd")]
    config["evaluation"]["temperature"] = 0.5  # this one changes what it answers
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    assert {row["a"].split(" (")[0][:7] for row in across_rows([runs[0], read_run(path)])} == {"base of", "spd"}


def test_a_run_of_the_base_alone_has_the_base_of_the_others(tmp_path: Path) -> None:
    """It makes no corpus, whose key says the model's content: ``environment.json`` does."""
    runs = [run_of(tmp_path / m, m, 1, 0.5) for m in ("spd", "base")]
    (runs[0] / "keys.json").write_text(json.dumps({"corpus": {"model": "f" * 64}}))
    (runs[1] / "environment.json").write_text(json.dumps({"content": {"model": "f" * 64}}))
    assert [(row["a"], row["b"]) for row in across_rows([read_run(run) for run in runs])] == [("base", "spd")]


def test_more_than_twelve_arms_are_each_compared_with_the_base(tmp_path: Path) -> None:
    folders = [run_of(tmp_path / f"m{i}", "spd", 1, 0.3 + i / 50, fresh=False, n=40) for i in range(MOST_ARMS)]
    for i, folder in enumerate(folders):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["subspace"]["rank"] = i + 1
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    runs = [read_run(folder) for folder in folders]
    rows = across_rows(runs)
    assert len(rows) == MOST_ARMS and {row["a"] for row in rows} == {"base"}
    assert len({row["b"] for row in rows}) == MOST_ARMS
    assert f"{MOST_ARMS + 1} arms: each is compared with one alone." in table_of(rows).note
    assert len(across_rows(runs[:3])) == 6, "few arms: all pairs"
