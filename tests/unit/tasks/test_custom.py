"""A user's own file: every field, the scoring rules, and every mistake with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.errors import UserError
from spd_lightning.evaluation.metrics import ExactMatchNumber
from spd_lightning.scoring.verdicts import metric_names
from spd_lightning.tasks import load_task
from spd_lightning.tasks.coding import program
from spd_lightning.tasks.task_file import TaskFile


def write(folder: Path, *rows: Any) -> str:
    path = folder / "mine.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def load(folder: Path, *rows: Any) -> Any:
    return load_task("custom", task_file=write(folder, *rows))


ROW = {"prompt": "Q: 1+1?\nA:", "target": " two"}


@pytest.mark.parametrize(
    ("row", "metric"),
    [
        ({}, "exact_match"),
        ({"target": "#### 2"}, "exact_match_flexible"),
        ({"score": "exact"}, "accuracy"),
        ({"targets": [" two", "2"]}, "accuracy"),
        ({"normalise": ["case"]}, "accuracy"),
        ({"target": "A", "choices": ["1", "2"]}, "acc"),
        ({"tests": "assert f() == 2"}, "pass@1"),
    ],
)
def test_the_page_names_the_metric_of_every_way_to_score(tmp_path: Path, row: Any, metric: str) -> None:
    assert metric_names(load(tmp_path, {**ROW, **row}).answer_type)[0] == metric
    page = (Path(__file__).parents[3] / "docs" / "own_data.md").read_text(encoding="utf-8")
    assert f"`{metric}`" in page.partition("\nMetrics: ")[2].partition("\n\n")[0]


def test_defaults(tmp_path: Path) -> None:
    task = load(tmp_path, *[{**ROW, "prompt": f"Q{i}"} for i in range(10)])
    assert [e.id for e in task.examples("test")] == ["test/4", "test/9"]
    assert [e.id for e in task.examples("train", 5)] == [f"train/{i}" for i in (0, 1, 2, 3, 5)]
    example = task.examples("train")[0]
    assert (example.prompt, example.target, example.expected, example.choices) == ("Q0", " two", "two", ())
    assert example.spans == ((2, 6),)  # the target
    benchmark = task.benchmark()
    assert (benchmark.task, benchmark.domain, benchmark.answer_type, benchmark.output_type) == (
        "custom",
        "other",
        "text",
        "generate",
    )


def test_given_fields_are_kept(tmp_path: Path) -> None:
    row = {**ROW, "id": "x-1", "split": "test", "domain": "math", "correct": [[0, 1], [11, 14]]}
    task = load(tmp_path, {**ROW, "id": 7, "domain": "math", "split": "train"}, "", row)
    (example,) = task.examples("test")
    assert (example.id, example.spans, task.domain) == ("x-1", ((0, 1), (11, 14)), "math")
    assert (example.prompt + example.target)[11:14] == "two"
    assert task.examples("train")[0].id == "7"


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_choices_are_letters(protocol: Any, tmp_path: Path) -> None:
    task = load(tmp_path, {"prompt": "x\nAnswer:", "target": " C", "choices": ["1", "2", "3"], "split": "test"})
    benchmark = task.benchmark(protocol)
    (example,) = benchmark.examples
    assert (benchmark.answer_type, example.expected) == ("letter", "C")
    likelihood = protocol == "standard"
    assert benchmark.output_type == ("choices" if likelihood else "generate")
    assert example.choices == ((" A", " B", " C") if likelihood else ())


def test_choices_without_a_space_before_the_letter(tmp_path: Path) -> None:
    task = load(tmp_path, {"prompt": "Answer: ", "target": "B", "choices": ["1", "2"], "split": "test"})
    assert task.benchmark().examples[0].choices == ("A", "B")


def test_number(tmp_path: Path) -> None:
    task = load(tmp_path, {"prompt": "Q", "target": " so\n#### 1,250\n", "split": "test"})
    benchmark = task.benchmark()
    assert (benchmark.answer_type, benchmark.examples[0].expected) == ("number", "1250")
    assert benchmark.examples[0].spans == ((1, 16),)  # without `correct` it is the whole target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("#### $18", "18"),
        ("#### 18.", "18"),
        ("#### 1/2", "0.5"),
        ("#### 50%", "50"),  # as GSM8K means it
        ("#### 1e5", "100000"),
        ("#### **$1,250.00**", "1250.00"),
        ("#### 18 dollars", "18"),
        ("#### -3", "-3"),
        ("####\n\u0661\u0668", "18"),
        ("#### 3 3/4 cups", "3.75"),
    ],
)
def test_gold_numbers_are_read_as_completions_are(target: str, expected: str, tmp_path: Path) -> None:
    task = load(tmp_path, {"prompt": "Q", "target": f" so\n{target}", "split": "test"})
    benchmark = task.benchmark()
    assert (benchmark.answer_type, benchmark.examples[0].expected) == ("number", expected)
    assert ExactMatchNumber().verdict(target, benchmark.examples[0].expected)
    assert not ExactMatchNumber().verdict("#### 19", benchmark.examples[0].expected)


@pytest.mark.parametrize(
    "target", ["#### NaN", "#### 1e400", "#### inf", "#### 3 or 4", "#### many", "#### 2:30", "####  x"]
)
def test_a_gold_number_that_cannot_be_read_is_refused(target: str, tmp_path: Path) -> None:
    good = {"prompt": "Q", "target": "#### 1"}
    with pytest.raises(
        UserError, match=r"mine\.jsonl, line 3: `target` is .*, but it must be text that ends in `#### N`"
    ):
        load(tmp_path, good, "", {"prompt": "Q", "target": f"so\n{target}"})


def test_a_heading_that_does_not_end_the_target_is_text(tmp_path: Path) -> None:
    task = load(tmp_path, {"prompt": "Q", "target": "#### Capital\nParis", "split": "test"})
    assert task.benchmark().answer_type == "text"


def test_program(tmp_path: Path) -> None:
    row = {"prompt": "write f", "target": " def f(): return 1", "tests": "assert f() == 1", "split": "test"}
    task = load(tmp_path, row)
    (example,) = task.benchmark().examples
    assert (task.answer_type, example.expected) == ("program", "assert f() == 1")
    exec(program(example, example.target), {})
    with pytest.raises(AssertionError):
        exec(program(example, "def f(): return 2"), {})


def test_null_fields_and_a_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "bom.jsonl"
    path.write_text("\ufeff" + json.dumps({**ROW, "id": None, "choices": None}) + "\r\n", encoding="utf-8")
    assert load_task("custom", task_file=str(path)).examples("train")[0].id == "train/0"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{oops", r"not valid JSON"),
        ("[1]", r"a JSON object is needed, found list"),
        ({"target": " t"}, r"`prompt` is missing, but it must be text"),
        ({**ROW, "prompt": "  "}, r"`prompt` is '  ', but"),
        ({**ROW, "target": 3}, r"`target` is 3, but it must be text"),
        ({"prompt": "p", "target": ""}, r"`target` is '', but"),
        ({**ROW, "answer": "x"}, r"unknown field 'answer'\. Known: prompt, target, id"),
        ({**ROW, "id": 1.5}, r"`id` is 1\.5, but"),
        ({**ROW, "id": ""}, r"`id` is '', but"),
        ({**ROW, "id": True}, r"`id` is True, but"),
        ({**ROW, "split": "dev"}, r"`split` is 'dev', but it must be train or test"),
        ({**ROW, "domain": "history"}, r"`domain` is 'history', but it must be one of math, code, qa, other"),
        ({**ROW, "domain": ["qa"]}, r"`domain` is \['qa'\], but"),
        ({**ROW, "tests": ""}, r"`tests` is '', but it must be Python source"),
        ({**ROW, "tests": "assert ("}, r"`tests` is 'assert \(', but it must be Python that parses"),
        ({**ROW, "target": ' "." '}, r"`target` is .*, but it must be more than quotes and punctuation"),
        ({**ROW, "tests": ["assert 1"]}, r"`tests` is \['assert 1'\], but"),
        ({**ROW, "correct": []}, r"`correct` is \[\], but it must be a list of \[start, end\) offsets within 0 to 14"),
        ({**ROW, "correct": [[0, 15]]}, r"`correct` is \[\[0, 15\]\], but"),
        ({**ROW, "correct": [[-1, 2]]}, r"`correct` is \[\[-1, 2\]\], but"),
        ({**ROW, "correct": [[3, 3]]}, r"`correct` is \[\[3, 3\]\], but"),
        ({**ROW, "correct": [[0, True]]}, r"`correct` is \[\[0, True\]\], but"),
        ({**ROW, "correct": [1, 2]}, r"`correct` is \[1, 2\], but"),
        ({**ROW, "choices": ["1"]}, r"`choices` is \['1'\], but it must be a list of 2 to 26 texts"),
        ({**ROW, "choices": ["1", 2]}, r"`choices` is \['1', 2\], but"),
        ({**ROW, "choices": ["1", "2"]}, r"`target` is ' two', but it must be the letter .* \(A to B\)"),
        ({**ROW, "choices": ["1", "2"], "target": " C"}, r"`target` is ' C', but it must be the letter"),
    ],
)
def test_mistakes_are_told_with_file_and_line(row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"mine\.jsonl, line 3: {message}"):
        load(tmp_path, ROW, "", row)


def test_ids_must_differ(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2: id 'a' stands on line 1 too"):
        load(tmp_path, {**ROW, "id": "a"}, {**ROW, "id": "a"})


def test_one_rule_and_one_domain(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2 has domain qa, line 1 domain other\. Put them in two files"):
        load(tmp_path, ROW, {**ROW, "domain": "qa"})
    with pytest.raises(UserError, match=r"line 2 has scoring by running `tests`, line 1 scoring by exact match"):
        load(tmp_path, ROW, {**ROW, "tests": "assert 1"})


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Task 'custom' needs a file\. Set task_file \(--subspace\.task_file\)"):
        load_task("custom")
    with pytest.raises(UserError, match=r"task_file='/no/such\.jsonl': there is no such file"):
        load_task("custom", task_file="/no/such.jsonl")
    with pytest.raises(UserError, match=r"task_file='.*': that is a folder, not a file"):
        load_task("custom", task_file=str(tmp_path))
    with pytest.raises(UserError, match=r"mine\.jsonl holds no rows"):
        load(tmp_path, "", " ")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9", "target": "x"}\n')
    with pytest.raises(UserError, match=r"latin\.jsonl cannot be read as UTF-8 text"):
        load_task("custom", task_file=str(tmp_path / "latin.jsonl"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("columns", v) for v in ({"prompt": ["q"]}, {1: "q"}, "q")),
        *(("normalise", v) for v in ([["case"]], [1], "case")),
        *(("num_fewshot", v) for v in (-1, True, 1.0, "1")),
        *(("system_prompt", v) for v in (3, ["x"])),
    ],
)
def test_options_of_another_kind_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^task_file\.{name}=.* is not possible\. Set task_file"):
        TaskFile.of({"path": "a.jsonl", name: value})
    assert TaskFile.of({"path": "a.jsonl", name: None}) == TaskFile("a.jsonl")
    with pytest.raises(UserError, match="Unknown key of task_file '3'"):
        TaskFile.of({"path": "a.jsonl", 3: "x"})


def test_no_test_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 row and none of them is a test row\. Give some rows `split: test`"):
        load(tmp_path, ROW).benchmark()
    with pytest.raises(UserError, match=r"none of them is a train row\. Give some rows `split: train`"):
        load(tmp_path, {**ROW, "split": "test"}).examples("train")
    with pytest.raises(UserError, match=r"gives no train examples \(limit=0"):
        load(tmp_path, ROW).examples("train", 0)


def test_rules_by_row_and_by_file(tmp_path: Path) -> None:
    rows = [
        {**ROW, "split": "test", "target": " two", "targets": ["2"]},
        {**ROW, "split": "test", "score": "regex", "targets": ["^t"]},
        {**ROW, "split": "test", "score": "number", "target": "so\n#### 2"},
    ]
    task = load_task("custom", task_file={"path": write(tmp_path, *rows), "score": "contains", "normalise": ["case"]})
    rules = [e.meta["rule"] for e in task.benchmark().examples]
    assert [(r.name, r.targets, r.normalise) for r in rules] == [
        ("contains", (" two", "2"), ("case",)),
        ("regex", ("^t",), ("case",)),
        ("number", ("2",), ("case",)),
    ]
    assert (task.answer_type, task.output_type) == ("rule", "generate")


@pytest.mark.parametrize(
    ("row", "file", "said"),
    [
        ({"completion": "3"}, {}, "`completion` and `target` stand both in the row. Leave one of the two out."),
        ({"messages": []}, {}, "`messages` and `prompt` stand both in the row"),
        ({"tests": "assert f(1) == 2"}, {"score": "exact"}, "`score` is 'exact', which does not run the `tests`"),
        ({"choices": ["x", "y"], "target": "A", "targets": ["A", "B"]}, {}, "`targets` does nothing where rows are"),
        ({"tests": "assert f(1) == 2", "normalise": ["case"]}, {}, "`normalise` does nothing where rows are scored by"),
        ({"score": "number", "normalise": ["case"]}, {}, "`normalise` does nothing where rows are scored by number"),
        ({"score": "letter", "target": "A"}, {"normalise": ["case"]}, r"normalise=\['case'\] does nothing here: the"),
        (
            {"target": "2"},
            {"normalise": ["case"], "score": "number"},
            "are scored by number. Leave it out, or set",
        ),
    ],
)
def test_what_would_be_left_aside_is_refused(
    row: dict[str, Any], file: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        load_task("custom", task_file={"path": write(tmp_path, {**ROW, **row}), **file})


def test_the_one_letter_that_is_accepted_may_be_named_as_a_list(tmp_path: Path) -> None:
    row = {"prompt": "a", "targets": ["B"], "choices": ["x", "y"], "split": "test"}
    assert load(tmp_path, row).benchmark().examples[0].expected == "B"


def test_several_targets_without_a_rule_keep_the_implied_one(tmp_path: Path) -> None:
    task = load(
        tmp_path, {**ROW, "split": "test", "targets": ["2"]}, {"prompt": "Q", "target": "#### 3", "targets": ["4"]}
    )
    names = [e.meta["rule"].name for e in (*task.benchmark().examples, *task.examples("train"))]
    assert names == ["exact", "number"]
    assert load(tmp_path, {"prompt": "Q", "targets": ["a", "b"], "split": "test"}).benchmark().examples[0].target == "a"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "score": "tests"}, "`score` is 'tests', which needs `tests` in the row"),
        ({**ROW, "score": "choice_likelihood"}, "`score` is 'choice_likelihood', which needs `choices` in the row"),
        ({**ROW, "score": "exakt"}, "`score` is 'exakt', but it must be one of exact, contains"),
        ({**ROW, "score": 3}, "`score` is 3, but it must be text"),
        ({**ROW, "targets": []}, r"`targets` is \[\], but it must be a list of at least one text"),
        ({**ROW, "targets": ["a", 2]}, r"`targets` is \['a', 2\], but it must be a list of texts"),
        ({**ROW, "score": "number"}, "the accepted answer ' two' does not suit score 'number'"),
        ({"messages": [{"role": "user", "content": "x"}]}, r"the turns have the roles \['user'\], but"),
    ],
)
def test_mistakes_of_rules_are_told_with_their_line(row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"mine\.jsonl, line 2: {message}"):
        load(tmp_path, ROW, row)


def test_a_row_with_a_rule_names_those_that_others_imply(tmp_path: Path) -> None:
    rows = [{**ROW, "score": "contains"}, ROW, {**ROW, "target": "so\n#### 4"}]
    rules = [e.meta["rule"] for e in load(tmp_path, *rows).examples("train")]
    assert [(r.name, r.targets) for r in rules] == [("contains", (" two",)), ("exact", (" two",)), ("number", ("4",))]


def test_letters_and_programs_may_be_named(tmp_path: Path) -> None:
    row = {"prompt": "x", "target": " B", "choices": ["1", "2"], "split": "test"}
    assert load(tmp_path, {**row, "score": "choice_likelihood"}).answer_type == "letter"
    assert load(tmp_path, {**row, "score": "letter"}).answer_type == "rule"
    program = {"prompt": "x", "target": "def f(): return 1", "tests": "assert f()", "split": "test"}
    assert load(tmp_path, {**program, "score": "tests"}).answer_type == "program"
