"""Generated programs: one-line functions from a one-line specification and three tests, in the shape of MBPP."""

from __future__ import annotations

import random
import re
from typing import Any

from spd_lightning.tasks.coding import instruction_prompt, program_meta, spans_of
from spd_lightning.tasks.letters import WORDS
from spd_lightning.tasks.synthetic import SyntheticTask

Template = tuple[str, str, str]
"""What a function returns, its name, and the expression."""

# By argument and type of the result: first what is trained on, then what tests alone ask for. Both halves are about as
# hard for a small model, which knows some of them and others not at all. {a}, {b}, {c} are drawn.
FIRST: dict[str, dict[str, tuple[list[Template], list[Template]]]] = {
    "n": {
        "int": (
            [
                ("n plus {a}", "add_{a}", "n + {a}"),
                ("n minus {a}", "subtract_{a}", "n - {a}"),
                ("n divided by {a}, rounded down", "divide_by_{a}", "n // {a}"),
                ("the square of n plus {a}", "square_plus_{a}", "n * n + {a}"),
                ("the larger of n and {a}", "larger_of_{a}", "max(n, {a})"),
                ("the smaller of n and {a}", "smaller_of_{a}", "min(n, {a})"),
                ("n multiplied by {a}, minus {b}", "multiply_{a}_subtract_{b}", "n * {a} - {b}"),
            ],
            [
                ("{a} minus n", "n_from_{a}", "{a} - n"),
                ("the remainder of n divided by {a}", "remainder_{a}", "n % {a}"),
                ("the square of n minus {a}", "square_minus_{a}", "n * n - {a}"),
                ("n multiplied by {a}", "multiply_by_{a}", "n * {a}"),
                ("the absolute difference of n and {a}", "distance_{a}", "abs(n - {a})"),
                ("n multiplied by {a}, plus {b}", "multiply_{a}_add_{b}", "n * {a} + {b}"),
                ("n plus {a}, multiplied by {b}", "add_{a}_multiply_{b}", "(n + {a}) * {b}"),
            ],
        ),
        "bool": (
            [
                ("True if n is greater than {a}, else False", "greater_than_{a}", "n > {a}"),
            ],
            [
                ("True if n is less than {a}, else False", "less_than_{a}", "n < {a}"),
                ("True if n is divisible by {a}, else False", "divisible_by_{a}", "n % {a} == 0"),
            ],
        ),
    },
    "xs": {
        "int": (
            [
                ("the sum of the list xs plus {a}", "sum_plus_{a}", "sum(xs) + {a}"),
                ("the smallest number of the list xs plus {a}", "smallest_plus_{a}", "min(xs) + {a}"),
                ("the last number of the list xs plus {a}", "last_plus_{a}", "xs[-1] + {a}"),
                ("the length of the list xs plus {a}", "length_plus_{a}", "len(xs) + {a}"),
                ("the sum of the list xs multiplied by {a}, plus {b}", "sum_times_{a}_plus_{b}", "sum(xs) * {a} + {b}"),
            ],
            [
                ("the sum of the list xs minus {a}", "sum_minus_{a}", "sum(xs) - {a}"),
                ("the largest number of the list xs plus {a}", "largest_plus_{a}", "max(xs) + {a}"),
                ("the first number of the list xs plus {a}", "first_plus_{a}", "xs[0] + {a}"),
                (
                    "how many numbers of the list xs are less than {a}",
                    "count_below_{a}",
                    "len([x for x in xs if x < {a}])",
                ),
            ],
        ),
        "bool": (
            [
                ("True if {a} is in the list xs, else False", "contains_{a}", "{a} in xs"),
            ],
            [
                ("True if the sum of the list xs is greater than {a}, else False", "sum_above_{a}", "sum(xs) > {a}"),
            ],
        ),
        "list": (
            [
                ("the numbers of the list xs that are less than {a}", "keep_below_{a}", "[x for x in xs if x < {a}]"),
                ("each number of the list xs plus {a}", "add_{a}_to_each", "[x + {a} for x in xs]"),
                ("the list xs with {a} at the end", "append_{a}", "xs + [{a}]"),
            ],
            [
                (
                    "the numbers of the list xs that are greater than {a}",
                    "keep_above_{a}",
                    "[x for x in xs if x > {a}]",
                ),
                ("each number of the list xs minus {a}", "subtract_{a}_from_each", "[x - {a} for x in xs]"),
                ("each number of the list xs multiplied by {a}", "multiply_each_by_{a}", "[x * {a} for x in xs]"),
                ("the list xs with {a} at the front", "put_{a}_first", "[{a}] + xs"),
            ],
        ),
    },
    "s": {
        "int": (
            [
                ("the length of the string s multiplied by {a}", "length_times_{a}", "len(s) * {a}"),
            ],
            [
                ("the length of the string s plus {a}", "length_plus_{a}", "len(s) + {a}"),
            ],
        ),
        "bool": (
            [],
            [
                ("True if the string s has more than {c} characters, else False", "longer_than_{c}", "len(s) > {c}"),
            ],
        ),
        "str": (
            [
                ("the string s followed by the digits {a}", "followed_by_{a}", "s + '{a}'"),
                ("the string s in upper case followed by the digits {a}", "upper_{a}", "s.upper() + '{a}'"),
                ("the string s repeated {c} times", "repeat_{c}_times", "s * {c}"),
                ("the string s between the digits {a} and the digits {b}", "between_{a}_and_{b}", "'{a}' + s + '{b}'"),
            ],
            [
                ("the digits {a} followed by the string s", "preceded_by_{a}", "'{a}' + s"),
                ("the string s reversed and followed by the digits {a}", "reversed_{a}", "s[::-1] + '{a}'"),
                ("the first letter of the string s followed by the digits {a}", "initial_{a}", "s[0] + '{a}'"),
            ],
        ),
    },
}
# What is done to that in a second step, by its type; {d} is drawn.
SECOND: dict[str, list[Template]] = {
    "int": [
        ("{what}, and then multiplied by {d}", "{name}_times_{d}", "({first}) * {d}"),
        ("{what}, and then increased by {d}", "{name}_up_{d}", "({first}) + {d}"),
        ("{what}, and then reduced by {d}", "{name}_down_{d}", "({first}) - {d}"),
    ],
    "list": [
        ("{what}, and then {d} at the end", "{name}_end_{d}", "{first} + [{d}]"),
        ("{what}, and then reversed", "{name}_backwards", "({first})[::-1]"),
        ("{what}, and then sorted", "{name}_sorted", "sorted({first})"),
    ],
    "str": [
        ("{what}, and then reversed", "{name}_backwards", "({first})[::-1]"),
        ("{what}, and then followed by the digits {d}", "{name}_end_{d}", "{first} + '{d}'"),
        ("{what}, and then doubled", "{name}_twice", "({first}) * 2"),
    ],
}
LARGEST = 299  # number drawn; arguments go a quarter beyond it, so that every test can turn out either way
# arguments, and the share of rows with a second step
LEVELS: dict[str, tuple[tuple[str, ...], float]] = {
    "easy": (("n",), 0.0),
    "medium": (("n", "n", "xs", "s"), 0.125),
    "hard": (("n", "xs", "s"), 1.0),
}


def joined(first: Template, second: Template) -> Template:
    """Two steps as one template."""
    what, name, expression = first
    parts = {"what": what, "name": name, "first": expression}
    return tuple(re.sub(r"\{(what|name|first)\}", lambda m: parts[m[1]], text) for text in second)  # type: ignore[return-value]


def _value(rng: random.Random, argument: str, number: int) -> Any:
    """An argument to test with, sometimes one in which the function's number plays a part."""
    if argument == "s":
        return rng.choice(" ".join(WORDS.values()).split())
    if argument == "n":
        return number * rng.randint(1, 4) if rng.random() < 0.3 else rng.randint(0, LARGEST + 50)
    xs = [rng.randint(0, rng.choice((9, LARGEST + 50))) for _ in range(rng.randint(2, 4))]
    if rng.random() < 0.3:
        xs[rng.randrange(len(xs))] = number
    return xs


class Functions(SyntheticTask):
    """One-line functions from a one-line specification and three tests, in the shape of MBPP.

    ``easy``: one number; ``medium``: numbers in half of the rows, lists and strings in the others; ``hard``: all three
    alike. The result goes through a second step in no row, an eighth of them, and every row. One solved task stands in
    every prompt.

    Half of the functions, whatever their numbers, are for tests alone. On rows of seed 999, which nothing scores, bf16,
    greedy, zero-shot: SmolLM2-135M-Instruct 73 of 200 test rows and 70 of 200 training rows, Gemma 3 270M about a third
    of either (5 rows of each function). Of 500 questions up to 60 are another seed's as well, with other tests.
    """

    name = "functions"
    domain = "code"
    version = 3
    answer_type = "program"
    max_new_tokens = 64
    paper_max_new_tokens = 64
    stop = ("\nInstruction:", "\n\n", "\nassert", "\nprint")
    solved = (
        "Instruction: Write a function half_of_twelve that returns n minus half of 12.\n"
        "Your code should pass these tests:\nassert half_of_twelve(9) == 3\nassert half_of_twelve(20) == 14\n"
        "Code: def half_of_twelve(n):\n    return n - 6\n\n"
    )

    def draw(self, rng: random.Random) -> dict[str, Any]:
        arguments, with_second = LEVELS[self.difficulty]
        argument = rng.choice(arguments)
        known = [
            (kind, template, half == 1)
            for kind, halves in FIRST[argument].items()
            if kind in SECOND or with_second < 1
            for half in (0, 1)
            for template in halves[half]
        ]
        kind, template, for_tests = rng.choice(known)
        if kind in SECOND and rng.random() < with_second:
            template = joined(template, rng.choice(SECOND[kind]))
        numbers = {
            "a": rng.randint(2, LARGEST),
            "b": rng.randint(2, LARGEST),
            "c": rng.randint(3, 6),
            "d": rng.randint(2, LARGEST),
        }
        what, name, expression = (text.format(**numbers) for text in template)
        tests: dict[str, str] = {}  # arguments and results
        while len(tests) < 3 or len(set(tests.values())) == 1:
            if len(tests) == 3:  # one result for all: a constant would pass
                tests.popitem()
            value = _value(rng, argument, numbers["a"])
            # the expressions are the ones above, with numbers put in
            tests[repr(value)] = repr(eval(expression, {argument: value}))
        return {
            "question": f"Write a function {name} that returns {what}.",
            "computation": template[2],
            "for_tests": for_tests,
            "code": f"def {name}({argument}):\n    return {expression}",
            "tests": [f"assert {name}({value}) == {result}" for value, result in tests.items()],
        }

    def is_for_tests(self, doc: dict[str, Any]) -> bool:
        """By the first step, numbers apart: no function of a test is one of training with others in it."""
        return bool(doc["for_tests"])

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return self.solved + instruction_prompt(doc["question"], doc["tests"])

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['code']}"

    def doc_to_expected(self, doc: dict[str, Any]) -> str:
        return "\n".join(doc["tests"])

    def doc_to_spans(self, doc: dict[str, Any], prompt: str, target: str) -> tuple[tuple[int, int], ...]:
        return tuple(
            (s + len(self.solved), e + len(self.solved)) for s, e in spans_of(doc["tests"], prompt[len(self.solved) :])
        )

    def doc_to_meta(self, doc: dict[str, Any]) -> dict[str, Any]:
        return program_meta("", "\n".join(doc["tests"]))
