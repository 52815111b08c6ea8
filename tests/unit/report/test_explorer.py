"""Samples as data of the page: what is shared stands once, verdicts are those of the records, the size is bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from spd_lightning.artifacts.files import write_jsonl
from spd_lightning.report import write_results
from spd_lightning.report.answer import answer_of_run
from spd_lightning.report.examples import examples
from spd_lightning.report.explorer import columns_of_runs, explore, sample_sections
from spd_lightning.report.html import render_page
from spd_lightning.report.render import Explorer, Section
from spd_lightning.report.runs import Run, read_run
from spd_lightning.report.several import several_runs
from spd_lightning.report.single import one_run
from tests.unit.report.test_across import SCORE, run_of

SHOTS = "Question: 1 + 1\nAnswer: 1 + 1 = 2\n#### 2\n\n" * 5
HOSTILE = "</script><script>alert(1)</script> <!-- \x1b[0m"


def sums(path: Path, n: int, written: str = " 3 + 4 = 7\n#### 7") -> Run:
    """A run of a base and a student on n sums: the student is right in every second one, and unreadable in one."""
    metric = {"task": "arithmetic", "metric": "exact_match_flexible", "n": n, "seed": 1, "value": 0.5}
    scores = [{**SCORE, **metric, "method": method} for method in ("base", "spd")]
    write_results(path, "f", "arithmetic", "spd", scores, [], [])
    for method in ("base", "spd"):
        rows = [
            {
                "id": f"test/{i}",
                "sample": 0,
                "prompt": f"{SHOTS}Question: {i} apples and 4 more\nAnswer:",
                "completion": written if i else HOSTILE,
                "answer": "7" if i else None,
                "expected": "7",
                "correct": bool(i and (method == "base" or i % 2)),
                "reason": "marker",
                "scores": {},
            }
            for i in range(n)
        ]
        write_jsonl(path / "samples" / f"arithmetic.{method}.jsonl", rows)
    return read_run(path)


def columns(run: Run) -> list[tuple[str, Run, str]]:
    return [("base", run, "base"), ("spd", run, "spd")]


def test_what_prompts_share_stands_once_and_verdicts_are_the_records(tmp_path: Path) -> None:
    data = explore(columns(sums(tmp_path / "r", 4)))
    (task,) = data["tasks"]
    assert task["shared"] == SHOTS and task["files"] == [
        "r/samples/arithmetic.base.jsonl",
        "r/samples/arithmetic.spd.jsonl",
    ]
    assert [row[0] for row in task["rows"]] == [f"test/{i}" for i in range(4)]
    assert task["rows"][2][1:3] == ["Question: 2 apples and 4 more\nAnswer:", "7"]
    assert [[answer[2] for answer in row[3]] for row in task["rows"]] == [[-1, -1], [1, 1], [1, 0], [1, 1]]
    assert "\\x1b[0m" in task["rows"][0][3][0][0] and json.dumps(data, ensure_ascii=False).encode()


def test_a_thousand_sums_are_under_two_megabytes(tmp_path: Path) -> None:
    run = sums(tmp_path / "r", 1000)
    page = render_page(answer_of_run(run), one_run(run))
    assert len(page.encode()) < 2e6 and explore(columns(run))["tasks"][0]["of"] == 1000
    assert page.count('<article class="sample">') == 20, "without a script the first twenty are there"
    assert page.count("<script>") == 1 and "alert(1)" in page


def test_long_texts_are_shortened_then_samples_left_out_and_both_said(tmp_path: Path) -> None:
    run = sums(tmp_path / "r", 300, "long " * 2000)
    data = explore(columns(run), most=1_000_000)
    text = data["tasks"][0]["rows"][5][3][0][0]
    assert data["cut"] < 4000 and text.endswith("… (10,000 characters)")
    assert len(json.dumps(data)) < 1_000_000 and len(data["tasks"][0]["rows"]) == 300
    small = explore(columns(run), most=60_000)
    rows = small["tasks"][0]["rows"]
    assert 20 <= len(rows) < 150 and small["tasks"][0]["of"] == 300 and len(json.dumps(small)) < 60_000
    flipped = [row for row in rows if [a[2] for a in row[3]] == [1, 0]]
    assert len(flipped) == len(rows), "those that changed come first"
    page = render_page(answer_of_run(run), one_run(run))
    assert "whole in r/samples/arithmetic.base.jsonl" in page


def test_the_bound_is_of_the_bytes_on_the_page(tmp_path: Path) -> None:
    """The template writes four characters as six, and code has many of them."""
    run = sums(tmp_path / "r", 400, "<a href='x'> & </a>" * 60)
    data = explore(columns(run), most=400_000)
    empty = {**data, "tasks": [{**data["tasks"][0], "rows": []}]}
    blocks = [Section("Samples", "", [Explorer(found, [])]) for found in (data, empty)]
    whole, without = (len(render_page(answer_of_run(run), [block]).encode()) for block in blocks)
    assert whole - without < 400_000 and len(data["tasks"][0]["rows"]) >= 20
    (section,) = sample_sections(columns(run))
    assert section.headline.endswith("right or wrong changed in 199"), "however many are on the page"
    assert data["tasks"][0]["flipped"] == 199


def test_each_student_is_held_against_its_own_base(tmp_path: Path) -> None:
    runs = [read_run(run_of(tmp_path / m, "spd", 1, 0.5, False, n=30, model=m)) for m in ("one", "two")]
    found = columns_of_runs(runs)
    assert [name.partition(" (")[0].partition(" of")[0] for name, *_ in found] == ["base", "base", "spd", "spd"]
    assert explore(found)["bases"] == [0, 1, 0, 1]
    assert explore(columns(runs[0]))["bases"] == [0, 0] and explore(found[2:])["bases"] == [0, 0]
    again = [("base", runs[0], "base"), ("projected", runs[0], "projected"), ("spd", runs[0], "spd")]
    assert explore(again)["bases"] == [0, 0, 0]


def test_arms_without_a_column_are_counted(tmp_path: Path) -> None:
    runs = []
    for rank in range(8):
        path = run_of(tmp_path / f"{rank}", "spd", 1, 0.5, False, n=5)
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["subspace"]["rank"] = rank
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        runs.append(read_run(path))
    (section,) = (s for s in several_runs(runs, []) if s.title == "Samples")
    assert section.headline.endswith("; 2 more arms in their files alone")


def test_letters_have_their_likelihoods(tmp_path: Path) -> None:
    path = tmp_path / "r"
    metric = {"task": "letters", "metric": "acc", "n": 1, "seed": 1, "value": 1.0, "method": "base"}
    write_results(path, "f", None, "base", [{**SCORE, **metric}], [], [])
    row: dict[str, Any] = {"id": "t/0", "sample": 0, "prompt": "?", "completion": "", "answer": "B", "expected": "B"}
    row |= {"correct": True, "reason": "likelihood", "scores": {"A": -2.3354, "B": -0.9139}}
    write_jsonl(path / "samples" / "letters.base.jsonl", [row, {**row, "id": "t/1", "scores": {"one_process": 0.0}}])
    (task,) = explore([("base", read_run(path), "base")])["tasks"]
    assert task["rows"][0][3] == [["", "B", 1, "likelihood", {"A": -2.335, "B": -0.914}]]
    assert task["rows"][1][3][0][4] is None and task["shared"] == ""


def test_arms_stand_side_by_side_on_one_seed(tmp_path: Path) -> None:
    runs = [read_run(run_of(tmp_path / f"{m}{s}", m, s, 0.5, n=30)) for m in ("ssd", "spd") for s in (2, 1)]
    found = columns_of_runs(runs)
    assert [(name, run.name) for name, run, _ in found] == [("base", "ssd2"), ("ssd", "ssd2"), ("spd", "spd2")]
    (section,) = sample_sections(found)
    assert section.headline.startswith("30 answers side by side of base, ssd, spd; right or wrong changed in ")
    assert all(None not in row[3] for row in section.blocks[0].samples["tasks"][0]["rows"])  # type: ignore[union-attr]
    (tmp_path / "bare").mkdir()
    write_results(tmp_path / "bare", "f", None, None, [], [], [])
    assert sample_sections(columns_of_runs([read_run(tmp_path / "bare")])) == []


def test_other_questions_under_equal_ids_and_other_bases_do_not_stand_beside_each_other(tmp_path: Path) -> None:
    runs = [
        read_run(run_of(tmp_path / q, m, 1, 0.5, False, n=30, prompt=q, base=0.2, facts={"examples": q}, task="custom"))
        for m, q in (("spd", "one"), ("ssd", "two"))
    ]
    found = columns_of_runs(runs)
    assert [(name, run.name) for name, run, _ in found] == [
        ("base of one", "one"),
        ("base of two", "two"),
        ("spd", "one"),
        ("ssd", "two"),
    ]
    rows = explore(found)["tasks"][0]["rows"]
    assert len(rows) == 60
    assert all([answer is None for answer in row[3]] in ([False, True] * 2, [True, False] * 2) for row in rows)


def test_markdown_has_one_of_each_verdict(tmp_path: Path) -> None:
    blocks = examples(sums(tmp_path / "r", 6))
    titles = [block if isinstance(block, str) else getattr(block, "title", "") for block in blocks]
    assert "spd against base, sample by sample: 0 wrong became right, 2 right became wrong, 4 unchanged." in titles
    assert "spd, became wrong (test/2)" in titles and "base, right (test/1)" in titles
