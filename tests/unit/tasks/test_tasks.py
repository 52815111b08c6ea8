"""Tasks on the real data: counts, ids, prompts typed by hand, correctness spans, programs, and every error."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.errors import UserError
from spd_lightning.tasks import TASKS, load_task
from spd_lightning.tasks.coding import program, spans_of
from spd_lightning.tasks.math_word import number_span
from spd_lightning.tasks.multiple_choice import CATEGORY
from spd_lightning.tasks.overlap import count_overlap
from spd_lightning.tasks.sources import BBH_TASKS, load_rows
from spd_lightning.tasks.task import Example, Task

load_once = functools.cache(load_task)  # MMLU keeps its rows

REAL = ("gsm8k", "svamp", "humaneval", "mbpp", "mbpp_sanitized", "codealpaca", "mmlu", "bbh")

# (task, protocol): examples, shots, output type, new tokens
BENCHMARKS = {
    ("gsm8k", "standard"): (1319, 5, "generate", 256),
    ("gsm8k", "paper"): (100, 0, "generate", 256),
    ("svamp", "standard"): (300, 0, "generate", 256),
    ("svamp", "paper"): (100, 0, "generate", 256),
    ("humaneval", "standard"): (164, 0, "generate", 1024),
    ("humaneval", "paper"): (164, 0, "generate", 512),
    ("mbpp", "standard"): (500, 3, "generate", 512),
    ("mbpp", "paper"): (257, 0, "generate", 512),
    ("mbpp_sanitized", "standard"): (257, 3, "generate", 512),
    ("mbpp_sanitized", "paper"): (257, 0, "generate", 512),
    ("codealpaca", "standard"): (100, 0, "target_nll", 256),
    ("codealpaca", "paper"): (100, 0, "target_nll", 256),
    ("mmlu", "standard"): (14042, 5, "choices", 5),
    ("mmlu", "paper"): (200, 0, "generate", 5),
    ("bbh", "standard"): (6430, 3, "generate", 128),
    ("bbh", "paper"): (300, 0, "generate", 16),
    ("bbh:paper", "standard"): (1419, 3, "generate", 128),
    ("bbh:paper", "paper"): (300, 0, "generate", 16),
    ("bbh:snarks", "standard"): (175, 3, "generate", 128),
    ("bbh:snarks", "paper"): (50, 0, "generate", 16),
}
TRAIN_COUNTS = {"gsm8k": 7473, "svamp": 700, "mbpp": 464, "mbpp_sanitized": 163, "codealpaca": 19922}


def span_texts(example: Example) -> list[str]:
    text = example.prompt + example.target
    return [text[start:end] for start, end in example.spans]


# ---- every task ----


@pytest.mark.parametrize(("name", "protocol"), BENCHMARKS)
def test_benchmarks_have_the_published_size_and_unique_ids(name: str, protocol: Any, data_dir: str) -> None:
    benchmark = load_once(name, data_dir).benchmark(protocol)
    count, shots, output_type, max_new_tokens = BENCHMARKS[name, protocol]
    assert len(benchmark.examples) == len({e.id for e in benchmark.examples}) == count
    assert (benchmark.num_fewshot, benchmark.output_type, benchmark.max_new_tokens) == (
        shots,
        output_type,
        max_new_tokens,
    )
    assert {len(e.shots) for e in benchmark.examples} == {shots}
    assert (benchmark.task, benchmark.protocol, benchmark.num_dropped) == (name, protocol, 0)
    assert all(e.target.strip() and e.expected for e in benchmark.examples)
    assert all(bool(e.choices) == (output_type == "choices") for e in benchmark.examples)
    if protocol == "paper":
        assert benchmark.stop == () and not any(e.header for e in benchmark.examples)


@pytest.mark.parametrize("name", TRAIN_COUNTS)
def test_training_examples_are_the_first_rows(name: str, data_dir: str) -> None:
    task = load_task(name, data_dir)
    examples = task.examples("train")
    assert len(examples) == len({e.id for e in examples}) == TRAIN_COUNTS[name]
    assert task.examples("train", 7) == examples[:7]
    assert all(0 <= s < e <= len(x.prompt + x.target) for x in examples for s, e in x.spans)


@pytest.mark.parametrize("name", ["gsm8k", "mbpp", "mmlu", "codealpaca", "svamp", "bbh", "humaneval"])
def test_limit_takes_the_first_examples(name: str, data_dir: str) -> None:
    task = load_once(name, data_dir)
    for protocol in ("standard", "paper"):
        whole = task.benchmark(protocol)
        assert task.benchmark(protocol, 7).examples == whole.examples[:7]


@pytest.mark.parametrize(("name", "groups"), [("mmlu", 57), ("bbh", 27)])
def test_a_limited_standard_benchmark_leaves_no_subject_out(name: str, groups: int, data_dir: str) -> None:
    examples = load_once(name, data_dir).benchmark("standard", 2 * groups + 1).examples
    assert sorted(Counter(e.meta["subject"] for e in examples).values()) == [2] * (groups - 1) + [3]
    first_rows = {e.meta["subject"]: e.id for e in reversed(load_once(name, data_dir).benchmark("standard").examples)}
    assert {e.id for e in examples[:groups]} == set(first_rows.values()), "a subject begins with its first row"


def test_domains() -> None:
    domains = {name: TASKS[name].domain for name in TASKS if name != "custom"}
    assert domains == {
        "gsm8k": "math",
        "svamp": "math",
        "arithmetic": "math",
        "humaneval": "code",
        "mbpp": "code",
        "mbpp_sanitized": "code",
        "codealpaca": "code",
        "functions": "code",
        "chains": "math",
        "mmlu": "qa",
        "bbh": "qa",
        "letters": "qa",
    }


# ---- the three published prompts, typed by hand ----


def test_gsm8k_prompt(data_dir: str) -> None:
    (example,) = load_task("gsm8k", data_dir).examples("train", 1)
    assert example.prompt == (
        "Question: Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How "
        "many clips did Natalia sell altogether in April and May?\nAnswer:"
    )
    assert example.target == (
        " Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = <<48+24=72>>72 clips altogether in "
        "April and May.\n#### 72"
    )
    assert (example.id, example.expected, span_texts(example)) == ("train/0", "72", ["72"])


def test_mmlu_prompt(data_dir: str) -> None:
    (example,) = load_once("mmlu", data_dir).examples("train", 1)
    assert example.prompt == (
        "Question: The cyclic subgroup of Z_24 generated by 18 has order\nA. 4\nB. 8\nC. 12\nD. 6\nAnswer:"
    )
    assert (example.target, example.expected, span_texts(example)) == (" A", "A", [" A"])


def test_mbpp_prompt(data_dir: str) -> None:
    example = next(e for e in load_task("mbpp", data_dir).examples("train") if e.id == "604")
    assert example.prompt == (
        "Instruction: Write a function to reverse words in a given string.\n"
        "Your code should pass these tests:\n"
        'assert reverse_words("python program")==("program python")\n'
        'assert reverse_words("java language")==("language java")\n'
        'assert reverse_words("indian man")==("man indian")\n'
        "Code:"
    )
    assert example.target == " def reverse_words(s):\n        return ' '.join(reversed(s.split()))"
    assert span_texts(example) == example.prompt.split("\n")[2:5]


# ---- the standard prompts ----


def test_gsm8k_five_shot_prompt(data_dir: str) -> None:
    task = load_task("gsm8k", data_dir)
    train = task.examples("train", 5)
    text = task.benchmark("standard", 1).examples[0].full_prompt()
    assert text.count("Question: ") == 6 and text.count("\n#### ") == 5
    assert text.startswith(f"{train[0].prompt}{train[0].target}\n\nQuestion: Weng earns $12 an hour")
    assert text.endswith("How much in dollars does she make every day at the farmers' market?\nAnswer:")


def test_fewer_shots_drop_the_first_and_keep_the_header() -> None:
    example = Example("1", "p", "t", shots=("a", "b"), header="h")
    assert [example.full_prompt(n) for n in (None, 2, 1, 0)] == ["habp", "habp", "hbp", "hp"]


def test_mmlu_five_shot_prompt(data_dir: str) -> None:
    benchmark = load_once("mmlu", data_dir).benchmark("standard")
    first = benchmark.examples[0]
    assert first.header == ("The following are multiple choice questions (with answers) about abstract algebra.\n\n")
    assert first.shots[0] == (
        "Find all c in Z_3 such that Z_3[x]/(x^2 + c) is a field.\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer: B\n\n"
    )
    assert first.prompt == (
        "Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.\n"
        "A. 0\nB. 4\nC. 2\nD. 6\nAnswer:"
    )
    assert (first.choices, first.expected, span_texts(first)) == ((" A", " B", " C", " D"), "B", [" B"])
    assert Counter(e.expected for e in benchmark.examples) == {"A": 3222, "B": 3462, "C": 3582, "D": 3776}
    for example in benchmark.examples[::97]:  # the shots are of the example's own subject
        assert example.meta["subject"].replace("_", " ") in example.header
    assert len({e.shots for e in benchmark.examples}) == 57


def test_mmlu_subjects_have_the_four_usual_categories(data_dir: str) -> None:
    subjects = {row["subject"] for row in load_rows("mmlu/dev", data_dir)}
    assert CATEGORY.keys() == subjects
    assert Counter(CATEGORY.values()) == {"STEM": 18, "humanities": 13, "social sciences": 12, "other": 14}


def test_mmlu_paper_rows(data_dir: str) -> None:
    import numpy as np

    ids = [e.id for e in load_once("mmlu", data_dir).benchmark("paper").examples]
    assert ids == [f"test/{row}" for row in np.random.default_rng(42).permutation(14042)[:200]]


def test_mmlu_trains_on_validation_rows_that_are_not_in_test(data_dir: str) -> None:
    task = load_once("mmlu", data_dir)
    train, test = task.examples("train"), task.benchmark("standard").examples
    assert task.train_split_name == "validation" and {e.id.split("/")[0] for e in train} == {"validation"}
    assert 1400 < len(train) <= 1531 - 27 and len({e.id for e in train}) == len(train)
    assert count_overlap(train, test) == 0
    validation = [task.example(doc, "validation", 0) for doc in task.file_docs("validation")]  # type: ignore[attr-defined]
    assert count_overlap(validation, test) == 1531 - len(train)


def test_mbpp_three_shot_prompt(data_dir: str) -> None:
    first = load_task("mbpp", data_dir).benchmark("standard", 1).examples[0]
    assert first.shots[0] == (
        "You are an expert Python programmer, and here is your task: Write a function to find the similar elements "
        "from the given two tuple lists. Your code should pass these tests:\n\n"
        "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)\n"
        "assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)\n"
        "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)\n"
        "[BEGIN]\ndef similar_elements(test_tup1, test_tup2):\n  res = tuple(set(test_tup1) & set(test_tup2))\n"
        "  return (res)\n[DONE]\n\n"
    )
    assert "\r" not in "".join(first.shots) and "is_not_prime" in first.shots[1] and "heapq" in first.shots[2]
    assert first.prompt.endswith("\n[BEGIN]\n") and first.id == "11"


def test_mbpp_ids_of_the_splits(data_dir: str) -> None:
    task = load_task("mbpp", data_dir)
    assert [e.id for e in task.benchmark("standard").examples] == [str(i) for i in range(11, 511)]
    assert [e.id for e in task.examples("train")] == [str(i) for i in [*range(601, 975), *range(511, 601)]]


def test_bbh_shots_are_not_scored(data_dir: str) -> None:
    benchmark = load_task("bbh", data_dir).benchmark("standard")
    assert {e.meta["subject"] for e in benchmark.examples} == set(BBH_TASKS) and len(BBH_TASKS) == 27
    assert not [e.id for e in benchmark.examples if e.id.split("/")[1] in ("0", "1", "2")]
    first = benchmark.examples[0]
    assert first.full_prompt() == (
        "Q: not ( True ) and ( True ) is\nA: False\n\nQ: True and not not ( not False ) is\nA: True\n\n"
        "Q: not True or False or ( False ) is\nA: False\n\nQ: False or not ( True ) and False is\nA:"
    )
    assert (first.id, first.expected, first.target) == ("boolean_expressions/3", "False", " False")


def test_bbh_paper_tasks(data_dir: str) -> None:
    examples = load_task("bbh:paper", data_dir).benchmark("paper").examples
    assert list(Counter(e.meta["subject"] for e in examples).items()) == [
        ("logical_deduction_three_objects", 50),
        ("date_understanding", 50),
        ("movie_recommendation", 50),
        ("boolean_expressions", 50),
        ("causal_judgement", 50),
        ("sports_understanding", 50),
    ]


# ---- correctness spans on every row ----


def test_gsm8k_spans_are_the_final_numbers(data_dir: str) -> None:
    for row, example in zip(load_rows("gsm8k/train", data_dir), load_task("gsm8k", data_dir).examples("train")):
        number = row["answer"].rsplit("#### ", 1)[1]
        assert span_texts(example) == [number] and example.expected == number.replace(",", "")
        float(example.expected)


def test_number_span_of_odd_texts() -> None:
    assert number_span("ab", " x\n#### 1,000 ") == ((10, 15),)
    assert number_span("", "#### 3\nor rather\n#### -4.5") == ((22, 26),)
    assert number_span("", "no number") == number_span("", "## Title\n#### Notes") == ()


def test_mmlu_spans_are_the_letter(data_dir: str) -> None:
    for example in load_once("mmlu", data_dir).examples("train"):
        assert span_texts(example) == [f" {example.expected}"] and example.expected in "ABCD"


@pytest.mark.parametrize("name", ["mbpp", "mbpp_sanitized"])
def test_mbpp_spans_are_the_asserts_in_the_prompt(name: str, data_dir: str) -> None:
    for split in ("train", "test"):
        for example in load_task(name, data_dir).examples(split):  # type: ignore[arg-type]
            texts = span_texts(example)
            assert len(texts) >= 3 and all(t.startswith("assert") and "\n" not in t for t in texts)
            assert "\n".join(texts).split() == example.expected.split()
            assert example.spans[-1][1] <= len(example.prompt)


def test_spans_of_equal_lines_are_taken_in_turn() -> None:
    assert spans_of(["assert a", "assert a "], "x assert a\nassert a \n") == ((2, 10), (11, 19))


def test_svamp_spans_are_the_number(data_dir: str) -> None:
    for example in load_task("svamp", data_dir).examples("train"):
        assert span_texts(example) == [example.expected] and example.expected.lstrip("-").isdigit()


# ---- flaws of the data ----


def test_mbpp_targets_have_no_carriage_return(data_dir: str) -> None:
    assert any("\r\n" in row["code"] for row in load_rows("mbpp/full", data_dir))
    assert not [e.id for e in load_task("mbpp", data_dir).examples("train") if "\r" in e.target]


def test_codealpaca_rows_without_output_are_dropped_and_counted(data_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spd_lightning.tasks.coding.CodeAlpaca.num_test", 20022 - 1000)
    benchmark = load_task("codealpaca", data_dir).benchmark("standard")
    assert (len(benchmark.examples), benchmark.num_dropped) == (20022 - 1000 - 6, 6)


def test_codealpaca_input_markers_count_as_no_input(data_dir: str) -> None:
    prompts = [e.prompt for e in load_task("codealpaca", data_dir).examples("train")]
    assert not [p for p in prompts if re.search(r"\nInput: [<\[ ]*no ?p?input", p, re.IGNORECASE)]
    assert sum("\nInput: " in p for p in prompts) > 9000


def test_few_training_questions_stand_in_test(data_dir: str) -> None:
    for name in ("gsm8k", "svamp", "mbpp"):
        task = load_task(name, data_dir)
        assert count_overlap(task.examples("train"), task.benchmark("standard").examples) <= {"mbpp": 5}.get(name, 0)


# ---- programs ----


def run(source: str) -> None:
    exec(compile(source, "program", "exec"), {"__name__": "program"})


@pytest.mark.parametrize("row", [0, 1, 38])
def test_humaneval_program_continues_the_prompt(row: int, data_dir: str) -> None:
    example = load_task("humaneval", data_dir).benchmark().examples[row]
    text = program(example, example.target)
    assert text.startswith(example.prompt + example.target) and f"check({example.meta['entry_point']})" in text
    run(text)
    with pytest.raises((AssertionError, TypeError)):
        run(program(example, "    return None\n"))


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_mbpp_program_runs_imports_code_setup_and_tests(protocol: Any, data_dir: str) -> None:
    by_id = {e.id: e for e in load_task("mbpp", data_dir).benchmark(protocol).examples}
    for name in ("11", "12", "367") if protocol == "standard" else ("11", "82"):  # 367 has set-up code, 82 an import
        run(program(by_id[name], by_id[name].target))
        with pytest.raises((AssertionError, NameError)):
            run(program(by_id[name], by_id["17"].target))


# ---- where the solved examples end ----


def test_solved_examples_end_where_the_question_begins(data_dir: str) -> None:
    for name, begins in (("arithmetic", "Question: "), ("functions", "Instruction: Write"), ("letters", "Question: ")):
        task = load_task(name)
        example = task.examples("train", 1)[0]
        question = example.prompt[task.solved_end(example) :]
        assert question.startswith(begins) and question.count(begins) == 1
        assert (task.solved_end(example) == 0) == (name == "letters")  # it has none
    for name in ("gsm8k", "mmlu", "mbpp", "bbh:snarks"):
        task = load_once(name, data_dir)
        example = task.benchmark(limit=1).examples[0]
        for shots in (None, 2, 1):
            text = example.full_prompt(shots)
            end = task.solved_end(example, shots)
            assert text[end:] == example.prompt and text[:end].endswith(example.shots[-1])
        assert task.solved_end(example, 0) == 0  # a header alone solves nothing
        assert task.solved_end(task.examples("test", 1)[0]) == 0


def test_solved_examples_of_a_plain_prompt_count_beside_shots() -> None:
    task = load_task("arithmetic")
    (example,) = task.examples("train", 1)
    more = replace(example, header="H\n", shots=("a\n", "bcd\n"))
    assert [more.full_prompt(n)[task.solved_end(more, n) :] for n in (None, 1, 0)] == [
        example.prompt[len(task.solved) :]
    ] * 3


# ---- mistakes ----


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gsm8", r"Unknown task 'gsm8'\. Did you mean 'gsm8k'\? Known: arithmetic, bbh.* Set --subspace\.task\."),
        ("bbh:papers", r"Unknown variant of task bbh 'bbh:papers'\. Did you mean 'bbh:paper'\?"),
        ("bbh:", r"Unknown variant of task bbh 'bbh:'"),
        ("gsm8k:hard", r"Task 'gsm8k' has no variants, found 'gsm8k:hard'\. Set --subspace\.task to gsm8k\."),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(name, option="--subspace.task")


def test_the_option_of_an_unknown_name_defaults_to_the_benchmarks() -> None:
    with pytest.raises(UserError, match=r"Set --evaluation\.tasks\."):
        load_task("nothing")


@pytest.mark.parametrize("name", ["humaneval", "bbh", "bbh:paper"])
def test_tasks_for_evaluation_only(name: str) -> None:
    with pytest.raises(
        UserError, match=f"Task '{name}' cannot be trained on: .* Set task .--subspace.task. to another"
    ):
        load_task(name).examples("train")


def test_unknown_protocol() -> None:
    with pytest.raises(UserError, match=r"protocol='fast' is not known\. Set --evaluation\.protocol to standard or"):
        load_task("letters").benchmark("fast")  # type: ignore[arg-type]


def test_limit_below_one() -> None:
    with pytest.raises(UserError, match=r"limit=0 leaves nothing to score\. Set --evaluation\.limit"):
        load_task("letters").benchmark(limit=0)
    with pytest.raises(UserError, match=r"Task 'letters' gives no train examples \(limit=0"):
        load_task("letters").examples("train", 0)


def test_data_folder_without_the_file_of_a_task(tmp_path: Path) -> None:
    for name in REAL:
        with pytest.raises(UserError, match=rf"has no file {name.split('_')[0]}/"):
            load_task(name, str(tmp_path)).benchmark()


def write(folder: Path, key: str, *rows: dict[str, Any]) -> str:
    path = folder / f"{key}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)


def test_gsm8k_answer_without_number(tmp_path: Path) -> None:
    good = {"question": "q", "answer": "#### 1"}
    folder = write(tmp_path, "gsm8k/test", good, {"question": "q", "answer": "it is seven"})
    with pytest.raises(UserError, match=r"gsm8k/test\.jsonl, line 2: the answer does not end in .*'it is seven'"):
        load_task("gsm8k", folder).benchmark("paper")


QUESTION = {"question": "q", "choices": ["1", "2", "3", "4"], "answer": 1, "subject": "anatomy"}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"choices": ["1", "2", "3"]}, "3 choices and the answer 1"), ({"answer": 4}, "4 choices and the answer 4")],
)
def test_mmlu_rows_with_other_choices(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write(tmp_path, "mmlu/test", QUESTION, {**QUESTION, **change})
    with pytest.raises(UserError, match=rf"mmlu/test\.jsonl, line 2: {message}, but 4 choices"):
        load_task("mmlu", folder).benchmark("paper")


def test_mmlu_without_enough_shots(tmp_path: Path) -> None:
    write(tmp_path, "mmlu/dev", QUESTION)
    folder = write(tmp_path, "mmlu/test", QUESTION)
    with pytest.raises(UserError, match="mmlu/dev has 1 rows of the subject 'anatomy', 5 are needed"):
        load_task("mmlu", folder).benchmark("standard")


def test_mmlu_takes_auxiliary_train_where_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path, "mmlu/auxiliary_train", {**QUESTION, "subject": ""})
    task = load_task("mmlu", folder)
    (example,) = task.examples("train")
    assert (task.train_split_name, example.id, example.meta["category"]) == (
        "auxiliary_train",
        "auxiliary_train/0",
        "other",
    )


def test_mbpp_without_its_shots(tmp_path: Path) -> None:
    row = {"task_id": 11, "text": "t", "code": "c", "test_list": ["assert 1"], "test_setup_code": "", "split": "test"}
    folder = write(tmp_path, "mbpp/full", row)
    with pytest.raises(UserError, match=r"mbpp/full: the few-shot tasks \[2, 3, 4\] are missing"):
        load_task("mbpp", folder).benchmark("standard")


def test_a_task_without_its_methods_says_so() -> None:
    with pytest.raises(NotImplementedError):
        Task().examples("train")
