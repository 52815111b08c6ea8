"""Word problems answered by a number: GSM8K and SVAMP.

Reference: arXiv:2605.22675, prompts and sizes; GSM8K is arXiv:2110.14168, SVAMP is arXiv:2103.07191.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spd_lightning.tasks.numbers import final_number
from spd_lightning.tasks.sources import load_rows
from spd_lightning.tasks.task import Example, Split, Task


def number_span(prompt: str, target: str) -> tuple[tuple[int, int], ...]:
    """The span of N in a target that ends in ``#### N``, in ``prompt + target``; empty where there is none."""
    final = final_number(target)
    return ((len(prompt) + final.start, len(prompt) + final.end),) if final and final.value is not None else ()


def number_text(target: str) -> str:
    """N of a target that ends in ``#### N``, as plain digits; empty where there is none.

    >>> number_text("so\\n#### $1,250"), number_text("#### 50%"), number_text("#### 1e5")
    ('1250', '50', '100000')
    """
    final = final_number(target)
    return "" if final is None or final.value is None else f"{final.value:f}"


class GSM8K(Task):
    """Grade-school mathematics: 7,473 train and 1,319 test problems with worked answers that end in ``#### N``.

    Standard: 5-shot with the first rows of train, the whole test split. Paper: zero-shot, the first 100 test rows,
    prompts cut at 384 tokens, 256 new ones. Correctness is defined by the characters of N.
    """

    name = "gsm8k"
    domain = "math"
    answer_type = "number"
    stop = ("\nQuestion:", "\n\nQuestion")
    paper_max_prompt_length = 384
    in_script = True
    has_reference_rows = True
    num_fewshot = 5

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        return load_rows(f"gsm8k/{split}", self.data_dir)

    def doc_to_question(self, doc: dict[str, Any]) -> str:
        return doc["question"]

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return f"Question: {doc['question']}\nAnswer:"

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['answer']}"

    def doc_to_expected(self, doc: dict[str, Any]) -> str:
        return number_text(doc["answer"])

    def doc_to_spans(self, doc: dict[str, Any], prompt: str, target: str) -> tuple[tuple[int, int], ...]:
        return number_span(prompt, target)

    def standard_examples(self, limit: int | None) -> list[Example]:
        shots = tuple(f"{e.prompt}{e.target}\n\n" for e in self.examples("train", self.num_fewshot))
        return [replace(e, shots=shots) for e in self.examples("test", limit)]

    def paper_examples(self, limit: int | None) -> list[Example]:
        return self.examples("test", 100)[:limit]


class SVAMP(Task):
    """One-step word problems with varied structure: 700 train and 300 test rows (``chilled_split``).

    Zero-shot under both protocols; standard takes all 300 test rows, paper the first 100, cut at 384 tokens. The
    target is the number alone, since the data has no worked answer.
    """

    name = "svamp"
    domain = "math"
    answer_type = "number"
    stop = ("\nQuestion:", "\n\nQuestion")
    paper_max_prompt_length = 384
    in_script = True

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        return [
            {**row, "id": row["ID"]} for row in load_rows("svamp/all", self.data_dir) if row["chilled_split"] == split
        ]

    def doc_to_question(self, doc: dict[str, Any]) -> str:
        return f"{doc['Body'].strip()} {doc['Question'].strip()}"

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return f"Question: {self.doc_to_question(doc)}\nAnswer:"

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['Answer']:.10g}"

    def doc_to_spans(self, doc: dict[str, Any], prompt: str, target: str) -> tuple[tuple[int, int], ...]:
        return ((len(prompt) + 1, len(prompt) + len(target)),)

    def paper_examples(self, limit: int | None) -> list[Example]:
        return self.examples("test", 100)[:limit]
