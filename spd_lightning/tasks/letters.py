"""Generated questions with four choices: in which of four boxes a thing is. Letters are read in `scoring/`."""

from __future__ import annotations

import random
from typing import Any

from spd_lightning.tasks.synthetic import SyntheticTask

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


class Letters(SyntheticTask):
    """Four choices, one letter: in which of four boxes is a thing.

    ``easy``: each thing stays in its box; ``medium``: in half of the rows one thing is moved; ``hard``: one is always
    moved, and the thing is asked for by its kind. Answers are spread evenly over the letters. The prompt goes on to
    ``The dog is in box``, since a model of this size has no hold on a bare ``Answer:`` (20% to 29% measured).

    On the first 100 training rows of seed 999, which nothing scores, bf16, likelihood of the letter:
    SmolLM2-135M-Instruct 69, Gemma 3 270M 51. No question of 500 is another seed's as well.
    """

    name = "letters"
    version = 3
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
        places = "".join(boxes)
        if self.difficulty == "hard" or (self.difficulty == "medium" and rng.random() < 0.5):
            moved = rng.randrange(4)
            boxes[moved] = rng.choice([letter for letter in LETTERS if letter != boxes[moved]])
            story.append(f"Now the {things[moved]} goes to box {boxes[moved]}.")
            places += f" {moved} to {boxes[moved]}"
        asked = rng.randrange(4)
        what = (kinds if self.difficulty == "hard" else things)[asked]
        options = "".join(f"\n{letter}. box {letter}" for letter in LETTERS)
        question = " ".join([*story, f"Where is the {what}?{options}"])
        # what kind is where and goes where; by the boxes alone, one split would be easier than the other. Who
        # is asked for is drawn within, so that no letter is favoured
        return {
            "question": question,
            "computation": f"{', '.join(kinds)}: {places}",
            "what": what,
            "answer": boxes[asked],
        }

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return f"Question: {doc['question']}\nAnswer: The {doc['what']} is in box"

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['answer']}"

    def doc_to_choices(self, doc: dict[str, Any]) -> tuple[str, ...]:
        return tuple(f" {letter}" for letter in LETTERS)
