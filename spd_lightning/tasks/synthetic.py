"""Generated tasks of three domains, for demos, tests and first experiments: no data, no network, endless rows.

A row is a function of (task, difficulty, seed number) alone, through ``random.Random`` seeded with a string, which
is the same on every machine and in every process. Whether a row is train or test is decided by a digest of its
question, so the two never share one. The variant of the name is the difficulty: ``arithmetic:hard``.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from typing import Any, ClassVar

from spd_lightning.errors import UserError
from spd_lightning.tasks.coding import instruction_prompt, program_meta, spans_of
from spd_lightning.tasks.math_word import number_span
from spd_lightning.tasks.task import Split, Task

NAMES = "Anna Ben Clara Dan Emma Finn Grace Hugo Iris Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tina Victor"
THINGS = "apples books stamps pencils marbles cookies stickers shells coins cards balloons buttons"
WORDS = {
    "animal": "dog cat horse rabbit tiger lion elephant monkey sheep goat wolf bear fox mouse",
    "fruit": "apple banana orange grape lemon peach pear cherry mango plum melon strawberry",
    "color": "red blue green yellow purple black white pink brown gray",
    "vehicle": "car bus train bicycle truck boat airplane ship motorcycle taxi",
    "tool": "hammer saw drill wrench shovel screwdriver axe pliers",
    "piece of clothing": "shirt hat coat shoe glove sock dress jacket scarf skirt",
    "part of the body": "arm leg hand foot head nose ear finger knee elbow",
    "musical instrument": "piano guitar violin drum flute trumpet harp cello",
    "drink": "water milk juice tea coffee beer wine lemonade",
    "piece of furniture": "chair table bed sofa desk shelf cupboard bench",
}
LETTERS = "ABCD"


class SyntheticTask(Task):
    """A task whose rows are drawn; ``size`` rows a split where no limit is given.

    A subclass writes `draw`, which makes one row with a ``question`` from a random generator.
    """

    size: ClassVar[dict[Split, int]] = {"train": 1000, "test": 200}
    variants = ("easy", "medium", "hard")
    default_difficulty: ClassVar[str] = "medium"

    @property
    def difficulty(self) -> str:
        """The variant, or the default one, on which SmolLM2-135M-Instruct is neither at the floor nor perfect."""
        return self.variant or self.default_difficulty

    def draw(self, rng: random.Random) -> dict[str, Any]:
        """One row; its ``question`` decides the split and must differ between rows."""
        raise NotImplementedError

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        """The first ``limit`` rows of the split's endless supply.

        Raises:
            UserError: If there are not that many different questions.
        """
        wanted = self.size[split] if limit is None else limit
        found: dict[str, dict[str, Any]] = {}
        in_vain = 0
        for number in itertools.count():
            if len(found) >= wanted:
                break
            doc = self.draw(random.Random(f"{self.name}/{self.difficulty}/{self.version}/{number}"))
            question = doc["question"]
            is_test = hashlib.sha256(question.encode()).digest()[0] % 5 == 0
            if question in found or is_test != (split == "test"):
                in_vain += 1
                if in_vain > 20_000:
                    raise UserError(
                        f"Task {self.full_name!r} has only {len(found)} different {split} questions, {wanted} were "
                        "asked for. Set a smaller limit, or a harder variant."
                    )
                continue
            in_vain = 0
            found[question] = doc
        return list(found.values())

    def doc_to_question(self, doc: dict[str, Any]) -> str:
        return doc["question"]


class Arithmetic(SyntheticTask):
    """Word problems of one to three steps, answered step by step and ended by ``#### N``.

    Three solved problems stand in every prompt, so that a small model without training knows the form.

    SmolLM2-135M-Instruct, bf16, greedy, zero-shot: 41 of 100 test rows, strict and flexible.
    """

    name = "arithmetic"
    domain = "math"
    answer_type = "number"
    max_new_tokens = 64
    paper_max_new_tokens = 64
    stop = ("\nQuestion:", "\n\n")
    solved = (
        "Question: Eva has 6 pears. Eva gets 7 more pears. How many pears does Eva have now?\n"
        "Answer: 6 + 7 = 13\n#### 13\n\n"
        "Question: Carl has 9 keys. Carl gives away 4 keys. How many keys does Carl have now?\n"
        "Answer: 9 - 4 = 5\n#### 5\n\n"
        "Question: Lena has 3 toys. Lena gets 5 more toys. Lena gets 2 more toys. How many toys does Lena have now?\n"
        "Answer: 3 + 5 = 8. 8 + 2 = 10\n#### 10\n\n"
    )
    # numbers of steps to draw from, largest number drawn, kinds of step to draw from
    LEVELS: ClassVar[dict[str, tuple[tuple[int, ...], int, str]]] = {
        "easy": ((1,), 9, "+"),
        "medium": ((1, 1, 2, 3), 9, "+++-"),
        "hard": ((2, 3), 60, "+-*"),
    }

    def draw(self, rng: random.Random) -> dict[str, Any]:
        steps, largest, kinds = self.LEVELS[self.difficulty]
        name, thing = rng.choice(NAMES.split()), rng.choice(THINGS.split())
        total = rng.randint(2, largest)
        story, work = [f"{name} has {total} {thing}."], []
        for _ in range(rng.choice(steps)):
            kind = rng.choice(kinds) if total > 1 else "+"
            if kind == "*":
                amount = rng.randint(2, 4)
                story.append(f"Now {name} finds a box, and has {amount} times as many {thing}.")
                after = total * amount
            elif kind == "-":
                amount = rng.randint(1, min(total - 1, largest))
                story.append(f"{name} gives away {amount} {thing}.")
                after = total - amount
            else:
                amount = rng.randint(1, largest)
                story.append(f"{name} gets {amount} more {thing}.")
                after = total + amount
            work.append(f"{total} {kind} {amount} = {after}")
            total = after
        question = " ".join([*story, f"How many {thing} does {name} have now?"])
        return {"question": question, "work": ". ".join(work), "answer": str(total)}

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return f"{self.solved}Question: {doc['question']}\nAnswer:"

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['work']}\n#### {doc['answer']}"

    def doc_to_expected(self, doc: dict[str, Any]) -> str:
        return doc["answer"]

    def doc_to_spans(self, doc: dict[str, Any], prompt: str, target: str) -> tuple[tuple[int, int], ...]:
        return number_span(prompt, target)


class Letters(SyntheticTask):
    """Four choices, one letter: in which of four boxes is a thing.

    ``easy``: each thing stays in its box; ``medium``: in half of the rows one thing is moved; ``hard``: one is always
    moved, and the thing is asked for by its kind. Answers are spread evenly over the letters. The prompt goes on to
    ``The dog is in box``, since a model of this size has no hold on a bare ``Answer:`` (20% to 29% measured).

    SmolLM2-135M-Instruct, bf16, likelihood of the letter: 51 of 100 test rows (easy: 30 of 50).
    """

    name = "letters"
    domain = "qa"
    answer_type = "letter"
    output_type = "choices"
    max_new_tokens = 3
    paper_max_new_tokens = 3
    stop = ("\n",)

    def draw(self, rng: random.Random) -> dict[str, Any]:
        kinds = rng.sample(sorted(WORDS), 4)
        things = [rng.choice(WORDS[kind].split()) for kind in kinds]
        boxes = rng.sample(LETTERS, 4)
        story = [f"The {thing} is in box {box}." for thing, box in zip(things, boxes)]
        if self.difficulty == "hard" or (self.difficulty == "medium" and rng.random() < 0.5):
            moved = rng.randrange(4)
            boxes[moved] = rng.choice([letter for letter in LETTERS if letter != boxes[moved]])
            story.append(f"Now the {things[moved]} goes to box {boxes[moved]}.")
        asked = rng.randrange(4)
        what = (kinds if self.difficulty == "hard" else things)[asked]
        options = "".join(f"\n{letter}. box {letter}" for letter in LETTERS)
        question = " ".join([*story, f"Where is the {what}?{options}"])
        return {"question": question, "what": what, "answer": boxes[asked]}

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return f"Question: {doc['question']}\nAnswer: The {doc['what']} is in box"

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['answer']}"

    def doc_to_choices(self, doc: dict[str, Any]) -> tuple[str, ...]:
        return tuple(f" {letter}" for letter in LETTERS)


# What a function returns, its name, and the expression; {a} and {b} are drawn. The argument is n, xs or s.
FAMILIES: dict[str, list[tuple[str, str, str]]] = {
    "n": [
        ("n plus {a}", "add_{a}", "n + {a}"),
        ("n minus {a}", "subtract_{a}", "n - {a}"),
        ("n multiplied by {a}", "multiply_by_{a}", "n * {a}"),
        ("the remainder of n divided by {a}", "remainder_{a}", "n % {a}"),
        ("n divided by {a}, rounded down", "divide_by_{a}", "n // {a}"),
        ("the square of n plus {a}", "square_plus_{a}", "n * n + {a}"),
        ("True if n is greater than {a}, else False", "greater_than_{a}", "n > {a}"),
        ("True if n is divisible by {a}, else False", "divisible_by_{a}", "n % {a} == 0"),
        ("the larger of n and {a}", "larger_of_{a}", "max(n, {a})"),
        ("the smaller of n and {a}", "smaller_of_{a}", "min(n, {a})"),
        ("the absolute difference of n and {a}", "distance_{a}", "abs(n - {a})"),
        ("n multiplied by {a}, plus {b}", "multiply_{a}_add_{b}", "n * {a} + {b}"),
        ("n plus {a}, multiplied by {b}", "add_{a}_multiply_{b}", "(n + {a}) * {b}"),
    ],
    "xs": [
        ("the sum of the list xs plus {a}", "sum_plus_{a}", "sum(xs) + {a}"),
        ("the largest number of the list xs plus {a}", "largest_plus_{a}", "max(xs) + {a}"),
        ("the smallest number of the list xs plus {a}", "smallest_plus_{a}", "min(xs) + {a}"),
        ("the length of the list xs plus {a}", "length_plus_{a}", "len(xs) + {a}"),
        ("True if {a} is in the list xs, else False", "contains_{a}", "{a} in xs"),
        ("the numbers of the list xs that are greater than {a}", "keep_above_{a}", "[x for x in xs if x > {a}]"),
        ("how many numbers of the list xs are less than {a}", "count_below_{a}", "len([x for x in xs if x < {a}])"),
        ("each number of the list xs plus {a}", "add_{a}_to_each", "[x + {a} for x in xs]"),
        ("each number of the list xs multiplied by {a}", "multiply_each_by_{a}", "[x * {a} for x in xs]"),
        ("the list xs with {a} at the end", "append_{a}", "xs + [{a}]"),
        ("the sum of the list xs multiplied by {a}, plus {b}", "sum_times_{a}_plus_{b}", "sum(xs) * {a} + {b}"),
    ],
    "s": [
        ("the length of the string s plus {a}", "length_plus_{a}", "len(s) + {a}"),
        ("the string s followed by the digits {a}", "followed_by_{a}", "s + '{a}'"),
        ("the digits {a} followed by the string s", "preceded_by_{a}", "'{a}' + s"),
        ("the string s in upper case followed by the digits {a}", "upper_{a}", "s.upper() + '{a}'"),
        ("the string s reversed and followed by the digits {a}", "reversed_{a}", "s[::-1] + '{a}'"),
        ("the string s repeated {a} times", "repeat_{a}_times", "s * {a}"),
        ("True if the string s has more than {a} characters, else False", "longer_than_{a}", "len(s) > {a}"),
        ("the string s between the digits {a} and the digits {b}", "between_{a}_and_{b}", "'{a}' + s + '{b}'"),
    ],
}
ARGUMENTS = {"easy": ("n",), "medium": ("n", "xs", "s"), "hard": ("n", "xs", "s")}


class Functions(SyntheticTask):
    """One-line functions from a one-line specification and three tests, in the shape of MBPP.

    ``easy``: arithmetic on one number; ``medium``: numbers, lists and strings; ``hard``: the result of one family
    goes through a second step. One solved task stands in every prompt.

    SmolLM2-135M-Instruct, bf16, greedy, zero-shot: 13 of the first 40 test rows pass.
    """

    name = "functions"
    domain = "code"
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
        argument = rng.choice(ARGUMENTS[self.difficulty])
        what, name, expression = rng.choice(FAMILIES[argument])
        numbers = {"a": rng.randint(2, 30), "b": rng.randint(2, 30)}
        if argument == "s" and "repeat" in name:
            numbers["a"] = rng.randint(2, 5)
        what, name, expression = (text.format(**numbers) for text in (what, name, expression))
        if self.difficulty == "hard":
            what, name, expression = f"the text of {what}, with its length before it", f"labelled_{name}", expression
            expression = f"str(len(str({expression}))) + str({expression})"
        tests: list[str] = []
        while len(tests) < 3:
            value: Any = {
                "n": rng.randint(0, 40),
                "xs": [rng.randint(0, 30) for _ in range(rng.randint(2, 4))],
                "s": rng.choice(" ".join(WORDS.values()).split()),
            }[argument]
            # the expressions are the ones above, with numbers put in
            test = f"assert {name}({value!r}) == {eval(expression, {argument: value})!r}"
            if test not in tests:
                tests.append(test)
        return {
            "question": f"Write a function {name} that returns {what}.",
            "code": f"def {name}({argument}):\n    return {expression}",
            "tests": tests,
        }

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
