"""Generated nested expressions in words, answered by one number."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from spd_lightning.tasks.synthetic import WorkedTask

UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
OPERATIONS = {
    "+": "the sum of {} and {}",
    "-": "the difference of {} and {}",
    "*": "the product of {} and {}",
    "max": "the larger of {} and {}",
    "min": "the smaller of {} and {}",
}
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


class Chains(WorkedTask):
    """Expressions in words, one within the other, the inner ones worked out first, ended by ``#### N``.

    "The sum of two and the larger of four and nine" is ``max(4, 9) = 9. 2 + 9 = 11``. ``easy``: one operation;
    ``medium``: a sum or a difference and a comparison, either within the other; ``hard``: two of the one, products too,
    and a comparison. Three solved expressions stand in every prompt. Two sums within each other are beyond the small
    models that this is for (4 of 40 with numbers up to nine).

    On the first 100 training rows of seed 999, which nothing scores, bf16, greedy, zero-shot: SmolLM2-135M-Instruct 21,
    strict and flexible; with numbers up to nine it has 22, Gemma 3 270M 20. Of 500 questions about 33 (7%) are another
    seed's as well.
    """

    name = "chains"
    version = 3
    max_new_tokens = 64
    paper_max_new_tokens = 64
    stop = ("\nQuestion:", "\n\n")
    solved = (
        "Question: What is the sum of two and the larger of four and nine?\n"
        "Answer: max(4, 9) = 9. 2 + 9 = 11\n#### 11\n\n"
        "Question: What is the smaller of eight and the sum of one and three?\n"
        "Answer: 1 + 3 = 4. min(8, 4) = 4\n#### 4\n\n"
        "Question: What is the difference of the smaller of seven and ten and five?\n"
        "Answer: min(7, 10) = 7. 7 - 5 = 2\n#### 2\n\n"
    )
    # operations, each the kinds to draw it from; largest number drawn
    LEVELS: ClassVar[dict[str, tuple[tuple[tuple[str, ...], ...], int]]] = {
        "easy": ((("+", "-", "max", "min"),), 20),
        "medium": ((("+", "+", "-"), ("max", "min")), 12),
        "hard": ((("+", "-", "*"), ("+", "-", "*"), ("max", "min")), 20),
    }

    def draw(self, rng: random.Random) -> dict[str, Any]:
        slots, largest = self.LEVELS[self.difficulty]
        kinds = [rng.choice(slot) for slot in slots]
        rng.shuffle(kinds)  # the first is the outermost
        work: list[str] = []
        words, value = self._expression(rng, kinds, largest, work)
        worked = ". ".join(work)
        return {"question": f"What is {words}?", "computation": worked, "work": worked, "answer": str(value)}

    def _expression(self, rng: random.Random, kinds: list[str], largest: int, work: list[str]) -> tuple[str, int]:
        """Words and value of an expression with these operations; ``work`` gets its steps, inner ones first."""
        if not kinds:
            number = rng.randint(2, largest)
            return in_words(number), number
        kind, cut = kinds[0], rng.randint(1, len(kinds))
        sides = [self._expression(rng, part, largest, work) for part in (kinds[1:cut], kinds[cut:])]
        if kind == "-":  # nothing falls below zero
            sides.sort(key=lambda side: -side[1])
        (a, x), (b, y) = sides
        if kind == "*" and max(x, y) > LARGEST_FACTOR:
            kind = "+"
        value = {"+": x + y, "-": x - y, "*": x * y, "max": max(x, y), "min": min(x, y)}[kind]
        work.append(f"{kind}({x}, {y}) = {value}" if len(kind) > 1 else f"{x} {kind} {y} = {value}")
        return OPERATIONS[kind].format(a, b), value
