"""Generated tasks: deterministic in every process, disjoint splits, right answers, the published shape."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
import sys
from typing import Any

import pytest

from spd_lightning.errors import UserError
from spd_lightning.tasks import TASKS, load_task
from spd_lightning.tasks.coding import program
from spd_lightning.tasks.overlap import count_overlap

NAMES = ("arithmetic", "letters", "functions")
ALL = [f"{name}{level}" for name in NAMES for level in ("", ":easy", ":medium", ":hard")]


def digest(name: str) -> str:
    examples = [e for split in ("train", "test") for e in load_task(name).examples(split, 30)]  # type: ignore[arg-type]
    return hashlib.sha256(repr(examples).encode()).hexdigest()


@pytest.mark.parametrize("name", ALL)
def test_splits_are_disjoint_and_without_repeats(name: str) -> None:
    task = load_task(name)
    train, test = task.examples("train", 600), task.examples("test", 150)
    assert count_overlap(train, test) == 0
    for examples, split in ((train, "train"), (test, "test")):
        assert [e.id for e in examples] == [f"{split}/{row}" for row in range(len(examples))]
        assert len({e.prompt for e in examples}) == len(examples)
        assert task.examples(split, 40) == examples[:40]  # type: ignore[arg-type]
    assert {(e.id, e.prompt) for e in train}.isdisjoint((e.id, e.prompt) for e in test)


def test_rows_are_the_same_in_another_process_with_another_hash_seed() -> None:
    code = f"from tests.unit.tasks.test_synthetic import digest; print(*[digest(n) for n in {NAMES!r}])"
    run = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "7", "HF_HUB_OFFLINE": "1"}, text=True,
                         capture_output=True, check=True)  # fmt: skip
    assert run.stdout.split() == [digest(name) for name in NAMES]


@pytest.mark.parametrize("name", ["arithmetic:easy", "arithmetic", "arithmetic:hard"])
def test_arithmetic_answers_follow_from_the_story(name: str) -> None:
    steps = set()
    for example in load_task(name).examples("train", 300):
        story = re.findall(r"has (\d+)|gets (\d+) more|gives away (\d+)|has (\d+) times", example.meta["question"])
        total = 0
        for start, more, less, _ in story:
            total = total + int(start or 0) + int(more or 0) - int(less or 0)
        if "times" not in example.meta["question"]:
            assert total == int(example.expected)
        for left, result in re.findall(r"(\d+ [-+*] \d+) = (\d+)", example.target):
            assert eval(left) == int(result) >= 0
        start, end = example.spans[0]
        assert (example.prompt + example.target)[start:end] == example.expected
        assert example.target.endswith(f"\n#### {example.expected}") and len(example.target) < 64
        steps.add(example.target.count("="))
    assert steps == {"easy": {1}, "hard": {2, 3}}.get(name.partition(":")[2], {1, 2, 3})


@pytest.mark.parametrize("name", ["letters:easy", "letters", "letters:hard"])
def test_letters_have_one_right_option(name: str) -> None:
    examples = load_task(name).examples("test", 400)
    counts = [sum(e.expected == letter for e in examples) for letter in "ABCD"]
    assert min(counts) > 70  # no letter is favoured
    for example in examples:
        assert example.target == f" {example.expected}" and example.choices == (" A", " B", " C", " D")
        options = re.findall(r"\n([A-D])\. (.*)", example.meta["question"])
        assert [letter for letter, _ in options] == list("ABCD")
        assert len({text for _, text in options}) == 4
        if not name.endswith("hard"):  # the last place that the story names for the thing
            thing = re.search(r"Answer: The (.*) is in box$", example.prompt).group(1)  # type: ignore[union-attr]
            assert (
                re.findall(rf"he {thing} (?:is in|goes to) box ([A-D])", example.meta["question"])[-1]
                == example.expected
            )


@pytest.mark.parametrize("name", ["functions:easy", "functions", "functions:hard"])
def test_functions_pass_their_own_tests_and_others_do_not(name: str) -> None:
    examples = load_task(name).examples("test", 120)
    for example in examples:
        exec(program(example, example.target), {})
        assert example.prompt.endswith("\n".join([*example.expected.split("\n"), "Code:"]))
        assert [(example.prompt + example.target)[s:e] for s, e in example.spans] == example.expected.split("\n")
    for example, other in itertools.pairwise(examples):
        with pytest.raises((NameError, AssertionError)):
            exec(program(example, other.target), {})


def test_functions_have_many_families() -> None:
    names = {re.sub(r"\d+", "N", e.target.split("(")[0]) for e in load_task("functions").examples("train", 600)}
    assert len(names) >= 30


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_benchmarks(protocol: Any) -> None:
    for name in NAMES:
        benchmark = load_task(name).benchmark(protocol, 7)
        assert (len(benchmark.examples), benchmark.num_fewshot, benchmark.task) == (7, 0, name)
        assert benchmark.max_new_tokens <= 64
    assert len(load_task("letters").benchmark(protocol).examples) == 200
    assert len(load_task("letters").examples("train")) == 1000


def test_the_supply_of_a_small_task_ends_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TASKS["letters"], "draw", lambda self, rng: {"question": f"q{rng.randrange(5)}"})
    with pytest.raises(UserError, match=r"Task 'letters:hard' has only \d different train questions, 50 were"):
        TASKS["letters"](variant="hard").docs("train", 50)


def test_unknown_difficulty() -> None:
    with pytest.raises(UserError, match=r"Unknown variant of task letters 'letters:hrd'\. Did you mean 'letters:hard'"):
        load_task("letters:hrd")
