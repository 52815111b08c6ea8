"""The first screen: a question, one sentence whose numbers are those of the results, and what is out of order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from spd_lightning.artifacts.files import write_jsonl
from spd_lightning.evaluation.statistics import holm
from spd_lightning.report import write_report
from spd_lightning.report.across import across_rows
from spd_lightning.report.answer import MOST_ROWS, Answer, _summed, answer_of_run, answer_of_runs
from spd_lightning.report.exports import one_line
from spd_lightning.report.notices import MOST_LINES, THE_REST, first_lines, notices
from spd_lightning.report.runs import Run, read_run
from spd_lightning.report.sections import caveats
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
    assert answer.figures[0].caption.endswith("filled: shown after correction.")
    loss = {**comparison("codealpaca", "nll_per_token", -0.004, 0.5), "ci95": [-0.006, 0.002]}
    run = changed(tmp_path / "r", lambda r: r["comparisons"].append(loss))
    assert answer_of_run(run).figures[0].caption.endswith("2 of 3 comparisons, the rest under Comparisons.")


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
    for other, shown in ((0, "0%"), (1, "under 1%"), (999, "over 99%"), (1000, "100%")):
        rows = [{**row, "n": 1000, "other_text": other}]
        run = changed(tmp_path / "r", lambda r, rows=rows: r.update(moved={"answers": rows}))
        assert f"it changed {shown} of the answers" in answer_of_run(run).verdict
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
    best = [row.label.split(",")[0] for row in answer.figures[0].chart.rows]  # type: ignore[union-attr]
    flips = {"task": "arithmetic", "n": 40, "other_text": 5, "right_to_wrong": 1, "wrong_to_right": 2}
    for run in runs:
        run.results["moved"] = {"answers": [flips]}
    shown = [row.label for row in several(runs).figures[1].chart.rows]  # type: ignore[union-attr]
    assert shown == [f"spd ({name}), n=40" for name in best], "the arms of the figure beside it"
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
    lines = first_lines(notices(runs, unfinished=named))
    assert len(lines) == MOST_LINES + 1 and lines[-1] == f"And 10 more: see {THE_REST}."


def test_what_the_first_screen_has_no_room_for_stands_behind_it(tmp_path: Path) -> None:
    """Points of a sweep that failed are in no file of the report but here."""
    runs = [make_run(tmp_path / f"rank{rank}", rank=rank) for rank in (2, 4)]
    (tmp_path / ".sweep").mkdir()
    for i in range(20):
        (tmp_path / ".sweep" / f"point{i:02}.json").write_text(json.dumps({"status": 1}))
    write_report(runs, tmp_path / "out", formats=("md",), plots=())
    first, rest = (tmp_path / "out" / "report.md").read_text().split(f"## {THE_REST}")
    assert f"more: see {THE_REST}." in first and "point19" not in first
    assert all(f"point{i:02} is not in this report" in rest for i in range(20))


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
    rows = [{"task": "arithmetic", "a": "base", "b": "spd", "unshared": 1200}]
    assert any(line.startswith("1,200 answers to arithmetic have no counterpart") for line in notices(runs, rows))
    rows += [{**rows[0], "b": "ssd", "unshared": 0}]
    assert any(line.startswith("Up to 1,200 answers to arithmetic") for line in notices(runs, rows))


def test_arms_without_a_common_example_are_named(tmp_path: Path) -> None:
    """Each is compared with its base, and a reader looks for the pair."""
    arms = (("ssd", (1, 2, 3)), ("spd", (4, 5, 6)))
    runs = [read_run(run_of(tmp_path / f"{m}{s}", m, s, 0.6)) for m, seeds in arms for s in seeds]
    assert "ssd and spd have no example of arithmetic in common and are not compared." in several(runs).notices
    shared = [read_run(run_of(tmp_path / f"again{s}", "spd", s, 0.5)) for s in (1, 2, 3)]
    assert not any("in common" in line for line in several([*runs[:3], *shared]).notices)


def with_benchmark(path: Path, task: str, share: float, split: str) -> Path:
    """Another benchmark for a run of `run_of`: the same examples with answers of its own."""
    method = json.loads((path / "results.json").read_text())["method"]
    for row, right in (("base", 0.3), (method, share)):
        lines = (path / "samples" / f"arithmetic.{row}.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        made = [{**r, "correct": i < right * len(records)} for i, r in enumerate(records)]
        write_jsonl(path / "samples" / f"{task}.{row}.jsonl", made)

    def add(results: dict[str, Any]) -> None:
        results["scores"] += [{**s, "task": task, "split": split} for s in results["scores"][:2]]

    changed(path, add)
    return path


def test_a_benchmark_is_in_domain_for_the_arm_that_was_trained_on_it(tmp_path: Path) -> None:
    """Each arm has a task of its own, and both are scored on both: one set of groups for all would be false of one."""
    first = with_benchmark(run_of(tmp_path / "a", "spd", 1, 0.5), "letters", 0.4, "out")
    second = with_benchmark(run_of(tmp_path / "b", "spd", 1, 0.5, task="arithmetic"), "letters", 0.4, "in")
    config = yaml.safe_load((second / "config.yaml").read_text())
    config["subspace"]["task"] = "letters"
    (second / "config.yaml").write_text(yaml.safe_dump(config))

    def other(results: dict[str, Any]) -> None:
        results["trained_on"] = "letters"
        for s in results["scores"][:2]:
            s["split"] = "out"

    runs = [read_run(first), changed(second, other)]
    chart = several(runs).figures[0].chart
    assert [(row.label.split(", n=")[0], row.group[:3]) for row in chart.rows] == [  # type: ignore[union-attr]
        ("task=arithmetic, arithmetic", "In:"),
        ("task=letters, letters", "In:"),
        ("task=letters, arithmetic", "Out"),
        ("task=arithmetic, letters", "Out"),
    ]
    assert "arithmetic (in, out) | letters (in, out) |" in one_line(runs, across_rows(runs)).split("\n")[0]
    assert ". On letters none of 2 shown to be better" in several(runs).verdict


def test_a_run_of_the_base_alone_takes_no_split_from_a_student(tmp_path: Path) -> None:
    def untrained(results: dict[str, Any]) -> None:
        results.update(trained_on=None, method="base")
        results["scores"] = [{**s, "split": None} for s in results["scores"] if s["method"] == "base"]

    alone = run_of(tmp_path / "base", "base", 1, 0.3)
    runs = [read_run(run_of(tmp_path / "spd", "spd", 1, 0.6)), changed(alone, untrained)]
    answer = several(runs)
    assert [row.group for row in answer.figures[0].chart.rows] == ["In: the task trained on"]  # type: ignore[union-attr]
    assert answer.question == "Does SPD on arithmetic help tiny?", "the method is no setting"
    lines = one_line(runs, across_rows(runs)).split("\n")
    assert "arithmetic (in)" in lines[0] and len(lines) == 3, "the base has no difference from itself"


def test_arms_that_answered_one_benchmark_each_are_both_in_the_sentence(tmp_path: Path) -> None:
    runs = [read_run(run_of(tmp_path / t, "spd", 1, 0.9, task=t)) for t in ("arithmetic", "letters")]
    verdict = several(runs).verdict
    assert verdict.startswith(
        "None of 1 is shown to be better than the base on arithmetic. Best: spd (task=arithmetic)"
    )
    assert "On letters none of 1 shown to be better. One student each" in verdict


def without_base(path: Path) -> Run:
    (path / "samples" / "arithmetic.base.jsonl").unlink()
    return changed(path, lambda r: r.update(scores=r["scores"][1:]))


def test_students_without_a_base_are_compared_with_each_other(tmp_path: Path) -> None:
    arms = (("ssd", 0.2), ("spd", 0.9))
    runs = [without_base(run_of(tmp_path / f"{m}{s}", m, s, p)) for m, p in arms for s in (1, 2, 3)]
    (row,) = across_rows(runs)
    assert several(runs).verdict == (
        "No student was compared with its base. On arithmetic: 1 of 1 pairs of them differ, most spd from ssd by "
        f"{100 * row['delta']:+.1f} points [{100 * row['ci95'][0]:+.1f}, {100 * row['ci95'][1]:+.1f}]."
    )
    only = changed(tmp_path / "spd1", lambda r: r.update(comparisons=[comparison("arithmetic", "acc", 0.1, 0.01)]))
    only.comparisons[0].update(a="projected")
    assert answer_of_run(only).verdict.startswith("No student was compared with its base, so nothing is claimed: spd")


def test_one_student_differs_only_after_correction(tmp_path: Path) -> None:
    """The run's own table corrects over its benchmarks; a report over several runs says no more."""
    runs = [read_run(run_of(tmp_path / name, "spd", 1, 0.9)) for name in ("a", "b")]
    row = across_rows(runs)[0]
    p_values = [0.03, 0.5, 0.6]
    rows = [
        {**row, "task": f"t{i}" if i else row["task"], "students": {**row["students"], "p_value": p}}
        for i, p in enumerate(p_values)
    ]
    assert min(holm(p_values)) > 0.05
    assert sentence_of_runs(runs, rows).startswith("Not shown: ")
    assert sentence_of_runs(runs, rows[:1]).startswith("Not shown of the method, though the one student differs: ")


def test_one_arm_has_all_its_benchmarks_on_the_first_screen(tmp_path: Path) -> None:
    runs = []
    for seed in (1, 2, 3):
        path = run_of(tmp_path / f"{seed}", "spd", seed, 0.6)
        for i in range(MOST_ROWS):
            with_benchmark(path, f"task{i}", 0.5, "out")
        flips = {"n": 200, "other_text": 50, "right_to_wrong": 10, "wrong_to_right": 30}
        flips |= {"from_parsing": 0.0, "from_accuracy": 0.1}
        answers = [{**flips, "task": task} for task in ("arithmetic", *(f"task{i}" for i in range(MOST_ROWS)))]
        runs.append(changed(path, lambda r, answers=answers: r.update(moved={"answers": answers})))
    forest, flipped, *_ = several(runs).figures
    assert len(forest.chart.rows) == len(flipped.chart.rows) == MOST_ROWS + 1  # type: ignore[union-attr]
    assert {row.group[:2] for row in forest.chart.rows} == {"In", "Ou"}  # type: ignore[union-attr]
    assert flipped.chart.rows[0].label == "arithmetic, n=600"  # type: ignore[union-attr]
    assert len(answer_of_run(runs[0]).figures[0].chart.rows) == MOST_ROWS + 1  # type: ignore[union-attr]


def test_a_benchmark_that_fewer_seeds_scored_says_so(tmp_path: Path) -> None:
    paths = [run_of(tmp_path / f"{s}", "spd", s, 0.6) for s in (1, 2, 3)]
    with_benchmark(paths[0], "letters", 0.5, "out")
    answer = several([read_run(path) for path in paths])
    assert "3 seeds x 200 examples; on letters +" in answer.verdict
    assert answer.verdict.endswith(", 1 seed x 200 examples.")
    labels = [row.label for row in answer.figures[0].chart.rows]  # type: ignore[union-attr]
    assert labels == ["arithmetic, n=200, 3 seeds", "letters, n=200, 1 seed"]


def test_a_run_that_repeats_a_seed_is_named(tmp_path: Path) -> None:
    runs = [read_run(run_of(tmp_path / name, "spd", seed, 0.6)) for name, seed in (("a", 1), ("b", 2), ("c", 1))]
    line = "c: another run of spd has the seed; comparisons across runs take the first."
    assert line in several(runs).notices and line not in several(runs[:2]).notices


def test_flips_of_several_arms_say_of_which_benchmark(tmp_path: Path) -> None:
    flips = {"task": "arithmetic", "n": 200, "other_text": 50, "right_to_wrong": 10, "wrong_to_right": 30}
    runs = []
    for method in ("spd", "ssd"):
        path = with_benchmark(run_of(tmp_path / method, method, 1, 0.6), "letters", 0.5, "out")
        runs.append(changed(path, lambda r: r.update(moved={"answers": [flips]})))
    assert several(runs).figures[1].chart.title == "Answers that flipped on arithmetic"


def test_an_external_signal_is_named_among_several_runs_too(tmp_path: Path) -> None:
    run = read_run(run_of(tmp_path / "a", "filtered", 1, 0.6))
    run.results["comparisons"] = [{**comparison("arithmetic", "acc", 0.1, 0.01), "b": "filtered"}]
    for among in (False, True):
        assert any("it uses an external signal" in line for line in caveats(run, among))
