"""The first screen: a question, one sentence whose numbers are those of the results, and what is out of order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from spd_lightning.report.across import across_rows
from spd_lightning.report.answer import MOST_ROWS, Answer, _summed, answer_of_run, answer_of_runs
from spd_lightning.report.notices import MOST_LINES, notices
from spd_lightning.report.runs import Run, read_run
from spd_lightning.report.verdict import question, sentence_of_runs
from tests.unit.report.test_across import run_of
from tests.unit.report.test_report import comparison, make_run


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Run:
    results = json.loads((path / "results.json").read_text())
    change(results)
    (path / "results.json").write_text(json.dumps(results))
    return read_run(path)


def several(runs: list[Run], unfinished: dict[str, str] | None = None) -> Answer:
    return answer_of_runs(runs, across_rows(runs), unfinished or {})


def test_one_run_is_answered_in_a_sentence(tmp_path: Path) -> None:
    answer = answer_of_run(read_run(make_run(tmp_path / "r")))
    assert answer.question == "Does SPD on arithmetic help tiny?"
    assert answer.verdict == (
        "Shown for this student: +30.0 points [+20.0, +40.0] on arithmetic, 1 student x 100 examples; "
        "on letters +3.0 points [-7.0, +13.0]."
    )
    assert answer.notices == ["humaneval was not run: no consent to run code"]
    assert [figure.name for figure in answer.figures] == ["differences", "time"], "no flips were counted"
    rows = answer.figures[0].chart.rows  # type: ignore[union-attr]
    assert [row.label for row in rows] == ["arithmetic, n=100", "letters, n=100"]
    assert [row.group[:2] for row in rows] == ["In", "Ou"]
    assert [row.points[0].strong for row in rows] == [True, False]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("delta", "p_holm", "word"),
    [
        (0.1, 0.01, "Shown for this student: +10.0"),
        (-0.1, 0.01, "It hurts, shown for this student: -10.0"),
        (-0.1, 0.2, "Not shown: -10.0"),
    ],
)
def test_the_word_follows_the_corrected_test(tmp_path: Path, delta: float, p_holm: float, word: str) -> None:
    rows = [comparison("arithmetic", "exact_match_flexible", delta, p_holm)]
    run = changed(make_run(tmp_path / "r"), lambda r: r.update(comparisons=rows))
    assert answer_of_run(run).verdict.startswith(word)


def test_a_loss_that_falls_is_an_improvement(tmp_path: Path) -> None:
    row = {**comparison("codealpaca", "nll_per_token", -0.004, 0.01), "ci95": [-0.006, -0.002]}
    run = changed(make_run(tmp_path / "r"), lambda r: r.update(comparisons=[row]))
    assert answer_of_run(run).verdict.startswith("Shown for this student: -0.004 nats [-0.006, -0.002] on codealpaca")


def test_the_share_of_changed_answers_is_that_of_the_results(tmp_path: Path) -> None:
    row = {"task": "arithmetic", "n": 40, "other_text": 11, "right_to_wrong": 2, "wrong_to_right": 3}
    row |= {"from_parsing": 0.0, "from_accuracy": 0.025}
    run = changed(make_run(tmp_path / "r"), lambda r: r.update(moved={"answers": [row]}))
    answer = answer_of_run(run)
    assert "it changed 28% of the answers" in answer.verdict
    assert [bar.text for bar in answer.figures[1].chart.rows] == ["3 gained, 2 lost"]  # type: ignore[union-attr]
    # letters write no text: what was answered is compared, sample by sample (3 of 3: "3" of both)
    run = changed(tmp_path / "r", lambda r: r["moved"]["answers"][0].update(other_text=None))
    assert "it changed 0% of the answers" in answer_of_run(run).verdict


def test_what_was_not_compared_claims_nothing(tmp_path: Path) -> None:
    run = changed(make_run(tmp_path / "r"), lambda r: r.update(comparisons=[]))
    assert answer_of_run(run).verdict == (
        "Nothing was compared, so nothing is claimed: base has 20.0 [12.0, 28.0]% on arithmetic (n = 100)."
    )
    run = changed(tmp_path / "r", lambda r: r.update(scores=[], method=None, trained_on=None))
    assert answer_of_run(run).verdict == "No answer yet: no benchmark was scored."
    assert question([run]) == "How well does tiny answer nothing yet?"


def test_seeds_of_one_arm_are_one_answer(tmp_path: Path) -> None:
    runs = [read_run(run_of(tmp_path / f"{s}", "spd", s, 0.9)) for s in (1, 2, 3)]
    rows = across_rows(runs)
    answer = several(runs)
    assert answer.question == "Does SPD on arithmetic help tiny?"
    assert rows[0]["word"] == "higher" and answer.beside == ["3 runs: 1 arm, 3 seeds"]
    low, high = (f"{100 * v:+.1f}" for v in rows[0]["ci95"])
    expected = f"Shown: {100 * rows[0]['delta']:+.1f} points [{low}, {high}] on arithmetic, 3 seeds x 200 examples."
    assert answer.verdict == expected
    assert several(runs[:1] * 1).verdict.startswith("Not shown of the method, though the one student differs: ")
    assert several(runs[:2]).verdict.startswith("Not shown: ") and "2 seeds x 200" in several(runs[:2]).verdict


def test_arms_are_counted_and_the_best_is_named(tmp_path: Path) -> None:
    arms = (("ssd", 0.3), ("spd", 0.9))
    runs = [read_run(run_of(tmp_path / f"{m}{s}", m, s, p)) for m, p in arms for s in (1, 2, 3)]
    answer = several(runs)
    assert answer.question == "Which of SSD and SPD on arithmetic helps tiny?"
    assert answer.verdict.startswith("1 of 2 is shown to be better than the base on arithmetic. Best: spd, +")
    assert "1 of 1 pairs of them differ, most spd from ssd by +" in answer.verdict
    alone = several([run for run in runs if run.seed == 1])
    assert alone.verdict.startswith("None of 2 are shown") and "One student each: nothing is shown" in alone.verdict


def test_one_arm_names_its_other_benchmarks_and_which_are_shown(tmp_path: Path) -> None:
    rows = across_rows([read_run(run_of(tmp_path / f"{s}", "spd", s, 0.9)) for s in (1, 2, 3)])
    other = {**rows[0], "task": "letters", "split": "out"}
    arm = [read_run(tmp_path / f"{s}") for s in (1, 2, 3)]
    verdict = sentence_of_runs(arm, [rows[0], other])
    points = f"{100 * rows[0]['delta']:+.1f} points"
    assert verdict.startswith(f"Shown: {points}") and f"; on letters {points}" in verdict
    assert verdict.endswith(" (shown).")
    unmoved = {**other, "word": "no difference", "margin": 0.03}
    assert sentence_of_runs(arm, [unmoved]).startswith(f"No difference of 3 points or more: {points}")


def test_models_of_one_method_are_asked_about_together(tmp_path: Path) -> None:
    runs = [read_run(run_of(tmp_path / m, "spd", 1, 0.5, model=m)) for m in ("tiny", "small")]
    assert question(runs) == "Which of 2 models does SPD on arithmetic help?"


def test_flips_of_seeds_are_summed_and_those_of_arms_stand_apart(tmp_path: Path) -> None:
    flips = {"task": "arithmetic", "n": 200, "right_to_wrong": 10, "wrong_to_right": 30}
    moved = {"answers": [flips, {**flips, "task": "letters"}, {**flips, "right_to_wrong": None}]}
    runs = [
        changed(run_of(tmp_path / f"{m}{s}", m, s, 0.6), lambda r: r.update(moved=moved))
        for m in ("spd", "ssd")
        for s in (1, 2)
    ]
    both = _summed({"spd": runs[:2], "ssd": runs[2:3]}, "arithmetic")
    assert [(r["task"], r["n"], r["right_to_wrong"], r["wrong_to_right"]) for r in both] == [
        ("spd", 400, 20, 60),
        ("ssd", 200, 10, 30),
    ]
    assert _summed({"spd": runs[:1]}, "arithmetic")[0]["task"] == "arithmetic", "one arm needs no name"
    assert _summed({"spd": runs[:1]}, "mmlu") == []


def test_a_sweep_asks_for_its_settings_and_shows_so_many_rows(tmp_path: Path) -> None:
    runs = []
    for rank in range(14):
        path = run_of(tmp_path / f"r{rank}", "spd", 1, 0.3 + rank / 50, fresh=False, n=40)
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["subspace"]["rank"] = rank + 1
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        runs.append(read_run(path))
    answer = several(runs, {"point-15": "its command failed with status 1"})
    assert answer.question == "Which rank of SPD on arithmetic helps tiny?"
    assert len(answer.figures[0].chart.rows) == MOST_ROWS  # type: ignore[union-attr]
    assert "6 of 14 comparisons" in answer.figures[0].caption
    assert answer.notices[0] == "point-15 is not in this report: its command failed with status 1"


def test_what_limits_the_numbers_is_said_first(tmp_path: Path) -> None:
    warning = {"stage": "generate", "figures": {}, "warnings": ["91% of the completions are cut."]}
    paths = [make_run(tmp_path / name, seed=i) for i, name in enumerate("abcd")]
    runs = [changed(path, lambda r: r.update(health=[warning])) for path in paths]
    old = changed(paths[0], lambda r: r.update(schema=1))
    assert notices([old])[0].startswith("An earlier version scored this run (schema 1)")
    lines = notices([old, *runs[1:]])
    assert lines[0].startswith("a: An earlier version") and "4 of 4 runs: humaneval was not run" in lines[1]
    assert lines[-1] == "4 of 4 runs: generate: 91% of the completions are cut."
    named = {f"point {i}": "failed" for i in range(20)}
    lines = notices(runs, unfinished=named)
    assert len(lines) == MOST_LINES + 1 and lines[-1].startswith("And 10 more")


def test_runs_on_other_examples_and_versions_say_so(tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        path = make_run(tmp_path / name, seed=ord(name))
        (path / "environment.json").write_text(json.dumps({"packages": {"torch": f"2.{ord(name)}"}}))
        runs.append(
            changed(path, lambda r, name=name: r["benchmarks"].setdefault("codealpaca.spd", {}).update(examples=name))
        )
    lines = notices(runs)
    assert "Runs were made with different versions: torch." in lines
    (path / "environment.json").write_text(json.dumps({"packages": {"torch": "2.97"}}))
    lines = notices([runs[0], read_run(path)])
    assert "Runs answered different examples of codealpaca: their scores are not averaged." in lines
    rows = [{"task": "arithmetic", "unshared": 1200}]
    assert any("1,200 answers to arithmetic have no counterpart" in line for line in notices(runs, rows))
