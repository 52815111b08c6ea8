"""Generated word problems: what somebody has after getting and giving away."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from spd_lightning.tasks.synthetic import WorkedTask

NAMES = "Anna Ben Clara Dan Emma Finn Grace Hugo Iris Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tina Victor"
THINGS = "apples books stamps pencils marbles cookies stickers shells coins cards balloons buttons"


class Arithmetic(WorkedTask):
    """Word problems of one or two steps (``hard``: two or three), answered step by step and ended by ``#### N``.

    Three solved problems stand in every prompt, so that a small model without training knows the form.

    On 100 training rows of seed 999, which nothing scores (drawn as version 2, of the same kind), bf16, greedy,
    zero-shot: SmolLM2-135M-Instruct 36, strict and flexible (of two steps and more 2 in 37, measured apart); Gemma 3
    270M 16 with numbers up to 25. 2,000 test rows hold some 760 different computations; about 35 of their questions
    (1.8%) are another seed's as well.
    """

    name = "arithmetic"
    version = 3
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
        "medium": ((1, 1, 1, 2), 20, "+++-"),
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
        worked = ". ".join(work)
        return {"question": question, "computation": worked, "work": worked, "answer": str(total)}
