"""Generated tasks: deterministic in every process, splits that no two seeds mix, right answers, the published shape."""

from __future__ import annotations

import hashlib
import itertools
import operator
import re
import subprocess
import sys
from typing import Any

import pytest

from spd_lightning.errors import UserError
from spd_lightning.tasks import TASKS, load_task
from spd_lightning.tasks.chains import in_words
from spd_lightning.tasks.coding import program
from spd_lightning.tasks.functions import FIRST, SECOND, joined
from spd_lightning.tasks.overlap import count_overlap
from spd_lightning.tasks.synthetic import SyntheticTask

NAMES = ("arithmetic", "letters", "functions", "chains")
SEEDS = range(42, 47)
DIGESTS = {
    "arithmetic": (3, "ddfea716ab82"),
    "letters": (3, "c5e1a094e3e4"),
    "functions": (3, "95ab73be9007"),
    "chains": (3, "09874d024eb2"),
}
ALL = [f"{name}{level}" for name in NAMES for level in ("", ":easy", ":medium", ":hard")]


def digest(name: str) -> str:
    examples = [e for split in ("train", "test") for e in load_task(name, seed=7).examples(split, 30)]  # type: ignore[arg-type]
    return hashlib.sha256(repr(examples).encode()).hexdigest()


def computations(name: str, split: Any, count: int, seed: int = 42) -> set[str]:
    task = load_task(name, seed=seed)
    assert isinstance(task, SyntheticTask)
    return {doc["computation"] for doc in task.docs(split, count)}


@pytest.mark.parametrize("name", ALL)
def test_splits_are_disjoint_and_without_repeats(name: str) -> None:
    task = load_task(name)
    train, test = task.examples("train", 600), task.examples("test", 150)
    assert count_overlap(train, test) == 0
    for examples, split in ((train, "train"), (test, "test")):
        assert [e.id for e in examples] == [f"{split}/s42/{row}" for row in range(len(examples))]
        assert len({e.prompt for e in examples}) == len(examples)
        assert task.examples(split, 40) == examples[:40]  # type: ignore[arg-type]
    assert {(e.id, e.prompt) for e in train}.isdisjoint((e.id, e.prompt) for e in test)


@pytest.mark.parametrize("name", ALL)
def test_no_computation_of_a_test_is_trained_on_under_any_seed(name: str) -> None:
    """Of the numbers and operations, not of the wording: names and things would make a new row of the same sum."""
    tests = set[str]().union(*(computations(name, "test", 200, seed) for seed in SEEDS))
    trains = set[str]().union(*(computations(name, "train", 400, seed) for seed in SEEDS))
    assert len(tests) > 5 and len(trains) > 5 and tests.isdisjoint(trains)


def test_what_is_one_computation() -> None:
    """The wording of a row is the seed's affair; its computation is written without it."""
    docs = TASKS["arithmetic"]().docs("train", 600)
    by_computation: dict[str, set[str]] = {}
    for doc in docs:
        by_computation.setdefault(doc["computation"], set()).add(doc["question"])
        assert doc["computation"] == doc["work"] and not re.search("[a-z]", doc["computation"])
    assert max(len(questions) for questions in by_computation.values()) > 1
    functions = {doc["computation"] for doc in TASKS["functions"]().docs("test", 600)}
    assert all("{" in text or not re.search(r"\d\d", text) for text in functions)  # a template, whatever its numbers
    for doc in TASKS["letters"]().docs("test", 50):
        assert doc["what"] not in doc["computation"]


def test_a_sum_of_words_and_one_of_numbers_fall_on_the_same_side() -> None:
    """Arithmetic and chains write their steps alike: what one trains on is no test of the other."""
    train = computations("arithmetic", "train", 1000) | computations("chains", "train", 1000)
    test = computations("arithmetic", "test", 1000) | computations("chains", "test", 1000)
    shared = computations("arithmetic", "train", 1000) & computations("chains:easy", "train", 500)
    assert shared and train.isdisjoint(test)


# questions of a seed's test rows (n) that also stand among those of another seed, at most
REPEATED = {"arithmetic": (2000, 50), "letters": (500, 0), "functions": (500, 60), "chains": (500, 60)}


@pytest.mark.parametrize("name", NAMES)
def test_every_seed_draws_its_own_rows(name: str) -> None:
    size, most = REPEATED[name]
    asked = {
        (seed, split): {e.meta["question"] for e in load_task(name, seed=seed).examples(split, count)}
        for seed in (42, 43, 44)
        for split, count in (("test", size), ("train", 562))
    }
    for one, other in itertools.combinations((42, 43, 44), 2):
        assert len(asked[one, "test"] & asked[other, "test"]) <= most
        assert len(asked[one, "train"] & asked[other, "train"]) < 562 / 4


def test_the_first_step_of_a_function_decides_its_split() -> None:
    """A second step makes no new function of one that is trained on."""
    halves = [
        {template[2] for kinds in FIRST.values() for both in kinds.values() for template in both[half]}
        for half in (0, 1)
    ]
    assert [len(half) for half in halves] == [22, 23] and halves[0].isdisjoint(halves[1])
    for name in ("functions:easy", "functions", "functions:hard"):
        for half, split in zip(halves, ("train", "test")):
            own = half | {
                joined(("", "", step), second)[2] for step in half for rows in SECOND.values() for second in rows
            }
            assert computations(name, split, 300) <= own, (name, split)


def test_functions_have_ten_thousand_test_rows() -> None:
    assert len(TASKS["functions"]().docs("test", 10_000)) == 10_000


def test_rows_are_the_same_in_another_process_with_another_hash_seed() -> None:
    code = f"from tests.unit.tasks.test_synthetic import digest; print(*[digest(n) for n in {NAMES!r}])"
    run = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "7", "HF_HUB_OFFLINE": "1"}, text=True,
                         capture_output=True, check=True)  # fmt: skip
    assert run.stdout.split() == [digest(name) for name in NAMES]


def test_rows_stay_what_they_are() -> None:
    """Digests of today's rows: who changes them raises the task's version, and says so."""
    assert {name: (load_task(name).version, digest(name)[:12]) for name in NAMES} == DIGESTS


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
    assert steps == {"easy": {1}, "hard": {2, 3}}.get(name.partition(":")[2], {1, 2})


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


KINDS: dict[str, Any] = {
    "sum": operator.add,
    "difference": operator.sub,
    "product": operator.mul,
    "larger": max,
    "smaller": min,
}


@pytest.mark.parametrize("name", ["chains:easy", "chains", "chains:hard"])
def test_chains_are_worked_out_from_the_inside(name: str) -> None:
    def value(words: str) -> int:
        """Of an expression in prefix notation, read by itself."""
        nonlocal rest
        rest = words.removeprefix("the ")
        for kind, apply in KINDS.items():
            if rest.startswith(f"{kind} of "):
                left = value(rest.removeprefix(f"{kind} of "))
                return apply(left, value(rest.removeprefix(" and ")))
        word = rest.split(" ")[0]
        rest = rest.removeprefix(word)
        return names[word]

    names = {in_words(number): number for number in range(100)}
    for example in load_task(name).examples("test", 300):
        rest = ""
        words = re.fullmatch("What is (.*)\\?", example.meta["question"])[1]  # type: ignore[index]
        assert value(words) == int(example.expected) >= 0 and rest == ""
        steps = re.findall(r"(\d+ [-+*] \d+|m\w\w\(\d+, \d+\)) = (\d+)", example.target)
        assert len(steps) == words.count(" of ") == {"easy": 1, "hard": 3}.get(name.partition(":")[2], 2) and all(
            eval(left) == int(result) for left, result in steps
        )
        assert steps[-1][1] == example.expected and example.target.endswith(f"\n#### {example.expected}")
        ((start, end),) = example.spans
        assert (example.prompt + example.target)[start:end] == example.expected


def test_no_constant_passes_a_function_test() -> None:
    for example in load_task("functions").examples("train", 300):
        results = {test.split(" == ")[1] for test in example.expected.split("\n")}
        assert len(results) > 1


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
    monkeypatch.setattr(TASKS["letters"], "draw", lambda self, rng: {"question": f"q{rng.randrange(9)}"})
    with pytest.raises(UserError, match=r"Task 'letters:hard' has only \d different train questions, 50 were"):
        TASKS["letters"](variant="hard").docs("train", 50)


def test_unknown_difficulty() -> None:
    with pytest.raises(UserError, match=r"Unknown variant of task letters 'letters:hrd'\. Did you mean 'letters:hard'"):
        load_task("letters:hrd")
