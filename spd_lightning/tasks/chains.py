"""Generated nested expressions in words, answered by one number."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from spd_lightning.tasks.math_word import number_span
from spd_lightning.tasks.synthetic import SyntheticTask

UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
OPERATIONS = {"+": "the sum of {} and {}", "-": "the difference of {} and {}", "*": "the product of {} and {}"}
LARGEST_FACTOR = 12


def in_words(number: int) -> str:
    """A number below 100, as it is said.

    >>> in_words(7), in_words(40), in_words(45)
    ('seven', 'forty', 'forty-five')
    """
    if number < 20:
        return UNITS.split()[number]
    tens, unit = divmod(number, 10)
    return TENS.split()[tens - 2] + (f"-{in_words(unit)}" if unit else "")


class Chains(SyntheticTask):
    """Expressions in words, the inner ones worked out first, ended by ``#### N``.

    "The sum of seven and the product of two and three" is ``2 * 3 = 6. 7 + 6 = 13``. Three solved expressions stand in
    every prompt.
    """

    name = "chains"
    domain = "math"
    answer_type = "number"
    max_new_tokens = 64
    paper_max_new_tokens = 64
    stop = ("\nQuestion:", "\n\n")
    solved = (
        "Question: What is the sum of four and five?\nAnswer: 4 + 5 = 9\n#### 9\n\n"
        "Question: What is the difference of nine and the sum of two and three?\n"
        "Answer: 2 + 3 = 5. 9 - 5 = 4\n#### 4\n\n"
        "Question: What is the product of two and the sum of one and six?\n"
        "Answer: 1 + 6 = 7. 2 * 7 = 14\n#### 14\n\n"
    )
    # numbers of operations to draw from, largest number drawn, operations to draw from
    LEVELS: ClassVar[dict[str, tuple[tuple[int, ...], int, str]]] = {
        "easy": ((1, 2), 12, "+"),
        "medium": ((1, 2, 2, 3), 20, "++-*"),
        "hard": ((3, 4), 20, "+-*"),
    }

    def draw(self, rng: random.Random) -> dict[str, Any]:
        counts, largest, kinds = self.LEVELS[self.difficulty]
        work: list[str] = []
        words, value = self._expression(rng, rng.choice(counts), largest, kinds, work)
        steps = ". ".join(work)
        return {"question": f"What is {words}?", "computation": steps, "work": steps, "answer": str(value)}

    def _expression(
        self, rng: random.Random, operations: int, largest: int, kinds: str, work: list[str]
    ) -> tuple[str, int]:
        """Words and value of an expression with so many operations; ``work`` gets its steps, inner ones first."""
        if operations == 0:
            number = rng.randint(2, largest)
            return in_words(number), number
        kind = rng.choice(kinds)
        left = rng.randrange(operations)
        sides = [self._expression(rng, n, largest, kinds, work) for n in (left, operations - 1 - left)]
        if kind == "-":  # nothing falls below zero
            sides.sort(key=lambda side: -side[1])
        (a, x), (b, y) = sides
        if kind == "*" and max(x, y) > LARGEST_FACTOR:
            kind = "+"
        value = {"+": x + y, "-": x - y, "*": x * y}[kind]
        work.append(f"{x} {kind} {y} = {value}")
        return OPERATIONS[kind].format(a, b), value

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return f"{self.solved}Question: {doc['question']}\nAnswer:"

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['work']}\n#### {doc['answer']}"

    def doc_to_expected(self, doc: dict[str, Any]) -> str:
        return doc["answer"]

    def doc_to_spans(self, doc: dict[str, Any], prompt: str, target: str) -> tuple[tuple[int, int], ...]:
        return number_span(prompt, target)
