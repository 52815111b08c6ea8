"""What generated tasks share: rows drawn by a seed, and a split that no two seeds can mix. No data, no network.

A row is a function of (task, difficulty, version, seed, number) alone, through ``random.Random`` seeded with a string,
which is the same on every machine and in every process. Calibration rows, training prompts and test rows are drawn by
the run's seed, and ids hold it: other seeds, other rows. Whether a row is train or test is decided by its
*computation*, the sequence of numbers and operations without the words around it, in which there is no seed: what is
tested under one seed is trained on under none. The order of the numbers counts: ``3 + 5`` and ``5 + 3`` are two
computations, and a story of two steps is another one than either step. The variant of the name is the difficulty:
``arithmetic:hard``.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from typing import Any, ClassVar

from spd_lightning.errors import UserError
from spd_lightning.tasks.math_word import number_span
from spd_lightning.tasks.task import Rows, Split, Task

IN_VAIN = 20_000  # draws in a row without a new question, after which the supply counts as used up


class SyntheticTask(Task):
    """A task whose rows are drawn; ``size`` rows a split where no limit is given.

    A subclass writes `draw`, which makes one row with a ``question`` from a random generator, and a ``computation``
    where wording can differ for one and the same.

    Args:
        data_dir: Not read.
        variant: The difficulty; empty for the default one.
        rows: ``first``, there are no others.
        seed: Of the rows.
    """

    size: ClassVar[dict[Split, int]] = {"train": 1000, "test": 200}
    version = 2
    variants = ("easy", "medium", "hard")
    default_difficulty: ClassVar[str] = "medium"

    def __init__(self, data_dir: str | None = None, variant: str = "", rows: Rows = "first", seed: int = 42) -> None:
        super().__init__(data_dir, variant, rows)
        self.seed = seed

    @property
    def difficulty(self) -> str:
        """The variant, or the default one, on which a small model is neither at the floor nor perfect."""
        return self.variant or self.default_difficulty

    def draw(self, rng: random.Random) -> dict[str, Any]:
        """One row: ``question``, which differs between the rows of a split, and ``computation`` (default: the same)."""
        raise NotImplementedError

    def is_for_tests(self, doc: dict[str, Any]) -> bool:
        """Whether a row is for tests: half of all computations are, whatever the seed, the family and the words."""
        return hashlib.sha256(doc.get("computation", doc["question"]).encode()).digest()[0] % 2 == 0

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        """The first ``limit`` rows of the split's supply under this seed.

        Raises:
            UserError: If there are not that many different questions.
        """
        wanted = self.size[split] if limit is None else limit
        found: dict[str, dict[str, Any]] = {}
        in_vain = 0
        for number in itertools.count():
            if len(found) >= wanted:
                break
            doc = self.draw(random.Random(f"{self.name}/{self.difficulty}/{self.version}/{self.seed}/{number}"))
            if doc["question"] in found or self.is_for_tests(doc) != (split == "test"):
                in_vain += 1
                if in_vain > IN_VAIN:
                    raise UserError(
                        f"Task {self.full_name!r} has only {len(found)} different {split} questions, {wanted} were "
                        "asked for. Set a smaller limit, or a harder variant."
                    )
                continue
            in_vain = 0
            found[doc["question"]] = doc
        return list(found.values())

    def doc_to_question(self, doc: dict[str, Any]) -> str:
        return doc["question"]

    def doc_to_id(self, doc: dict[str, Any], split: str, row: int) -> str:
        """``<split>/s<seed>/<row>``, rows counted from 0."""
        return f"{split}/s{self.seed}/{row}"


class WorkedTask(SyntheticTask):
    """A task whose rows have one number as their ``answer``, behind its ``work``: ``4 + 2 = 6`` and ``#### 6``."""

    domain = "math"
    answer_type = "number"

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return f"{self.solved}Question: {doc['question']}\nAnswer:"

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['work']}\n#### {doc['answer']}"

    def doc_to_expected(self, doc: dict[str, Any]) -> str:
        return doc["answer"]

    def doc_to_spans(self, doc: dict[str, Any], prompt: str, target: str) -> tuple[tuple[int, int], ...]:
        return number_span(prompt, target)
