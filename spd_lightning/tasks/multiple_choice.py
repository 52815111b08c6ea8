"""Questions with one right option or a short exact answer: MMLU and BIG-Bench Hard (BBH).

Reference: arXiv:2605.22675, prompts and sizes; MMLU is arXiv:2009.03300, BBH is arXiv:2210.09261.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from spd_lightning.errors import UserError
from spd_lightning.tasks.golds import four_choices
from spd_lightning.tasks.overlap import normalised_text
from spd_lightning.tasks.sources import BBH_TASKS, has_rows, load_rows, place_of
from spd_lightning.tasks.task import Example, Rows, Split, Task

LETTERS = "ABCD"

SUBJECTS_BY_CATEGORY = {
    "STEM": """abstract_algebra astronomy college_biology college_chemistry college_computer_science
        college_mathematics college_physics computer_security conceptual_physics electrical_engineering
        elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
        high_school_mathematics high_school_physics high_school_statistics machine_learning""",
    "humanities": """formal_logic high_school_european_history high_school_us_history high_school_world_history
        international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory
        professional_law world_religions""",
    "social sciences": """econometrics high_school_geography high_school_government_and_politics
        high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality
        professional_psychology public_relations security_studies sociology us_foreign_policy""",
    "other": """anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management
        marketing medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology""",
}
CATEGORY = {subject: category for category, text in SUBJECTS_BY_CATEGORY.items() for subject in text.split()}


def lettered(question: str, choices: list[str]) -> str:
    """The question and its options, one a line: ``A. ..`` to ``D. ..``."""
    return question + "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, choices))


def in_turn(docs: list[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    """The first row of every group, then the second of every group, and so on; rows of a turn stay in their order.

    The standard protocol scores in this order, so that a limit, which takes the first rows, leaves no subject out
    before it must.

    >>> in_turn([{"s": "a", "i": 0}, {"s": "a", "i": 1}, {"s": "b", "i": 2}], "s")
    [{'s': 'a', 'i': 0}, {'s': 'b', 'i': 2}, {'s': 'a', 'i': 1}]
    """
    seen: Counter[str] = Counter()
    turns = []
    for doc in docs:
        turns.append(seen[doc[group]])
        seen[doc[group]] += 1
    return [doc for _, doc in sorted(zip(turns, docs, strict=True), key=lambda pair: pair[0])]


class MMLU(Task):
    """Four-choice questions on 57 subjects (14,042 test rows).

    Training: ``auxiliary_train`` where the data has it, else the validation rows whose question and choices do not
    stand in test; ``train_split_name`` says which. Standard: likelihood of `` A`` to `` D``, 5-shot with the subject's
    dev rows, subjects in turn. Paper: the first 200 of the test rows shuffled with seed 42, zero-shot, prompts cut at
    512 tokens, 5 new ones, the first letter found. Correctness is defined by what follows ``Answer:``.

    Reference rows: ``auxiliary_train`` shuffled as `datasets` does with seed 42, the first 2,000 of those with four
    choices; ``dev`` as it stands where that file is absent.
    """

    name = "mmlu"
    domain = "qa"
    answer_type = "letter"
    output_type = "choices"
    max_new_tokens = 5
    paper_max_new_tokens = 5
    paper_max_prompt_length = 512
    in_script = True
    has_reference_rows = True
    stop = ("\n",)
    num_fewshot = 5
    default_num_examples = 500
    paper_size: ClassVar[int] = 200
    reference_size: ClassVar[int] = 2000

    def __init__(self, data_dir: str | None = None, variant: str = "", rows: Rows = "first") -> None:
        super().__init__(data_dir, variant, rows)
        self._docs: dict[str, list[dict[str, Any]]] = {}

    @property
    def train_split_name(self) -> str:  # type: ignore[override]
        """``auxiliary_train`` where the data has it, else ``validation`` (reference rows: ``dev``)."""
        if has_rows("mmlu/auxiliary_train", self.data_dir):
            return "auxiliary_train"
        return "dev" if self.reference else "validation"

    def file_docs(self, split: str) -> list[dict[str, Any]]:
        """All rows of a file with their ids.

        Raises:
            UserError: For a row without exactly four choices.
        """
        if split not in self._docs:
            rows = load_rows(f"mmlu/{split}", self.data_dir)
            for number, row in enumerate(rows, start=1):
                # reference rows of this file leave such rows out in `docs`, as the script does
                if not self.reference and (wrong := four_choices(row)):
                    place = place_of(f"mmlu/{split}", self.data_dir)
                    raise UserError(
                        f"{place}, row {number}: {wrong}. Mend that row, or set another data_dir (--data_dir)."
                    )
            self._docs[split] = [{**row, "id": f"{split}/{number}"} for number, row in enumerate(rows)]
        return self._docs[split]

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        if split == "test":
            return self.file_docs("test")
        name = self.train_split_name
        if self.reference and name == "auxiliary_train":
            docs = self.file_docs(name)
            order = np.random.default_rng(42).permutation(len(docs))  # what Dataset.shuffle(seed=42) draws
            return [docs[row] for row in order if len(docs[row]["choices"]) == 4][: self.reference_size]
        if name == "auxiliary_train" or self.reference:
            return self.file_docs(name)
        known = {normalised_text(self.doc_to_question(doc)) for doc in self.file_docs("test")}
        return [doc for doc in self.file_docs(name) if normalised_text(self.doc_to_question(doc)) not in known]

    def doc_to_question(self, doc: dict[str, Any]) -> str:
        return lettered(doc["question"], doc["choices"])

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return f"Question: {self.doc_to_question(doc)}\nAnswer:"

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {LETTERS[doc['answer']]}"

    def doc_to_choices(self, doc: dict[str, Any]) -> tuple[str, ...]:
        return tuple(f" {letter}" for letter in LETTERS)

    def doc_to_meta(self, doc: dict[str, Any]) -> dict[str, Any]:
        return {"subject": doc["subject"], "category": CATEGORY.get(doc["subject"], "other")}

    def standard_examples(self, limit: int | None) -> list[Example]:
        def prompt(doc: dict[str, Any]) -> str:
            return lettered(doc["question"].strip(), doc["choices"]) + "\nAnswer:"

        shots: dict[str, list[str]] = {}
        for doc in self.file_docs("dev"):
            shots.setdefault(doc["subject"], []).append(f"{prompt(doc)}{self.doc_to_target(doc)}\n\n")
        found = []
        for row, doc in enumerate(in_turn(self.docs("test"), "subject")[:limit]):
            subject = doc["subject"]
            if len(shots.get(subject, [])) < self.num_fewshot:
                raise UserError(
                    f"mmlu/dev has {len(shots.get(subject, []))} rows of the subject {subject!r}, {self.num_fewshot} "
                    "are needed as shots. Set data_dir (--data_dir) to a folder that holds the whole file."
                )
            about = subject.replace("_", " ")
            header = f"The following are multiple choice questions (with answers) about {about}.\n\n"
            text = prompt(doc)
            found.append(
                replace(
                    self.example(doc, "test", row),
                    prompt=text,
                    spans=self.doc_to_spans(doc, text, self.doc_to_target(doc)),
                    shots=tuple(shots[subject][: self.num_fewshot]),
                    header=header,
                )
            )
        return found

    def paper_examples(self, limit: int | None) -> list[Example]:
        docs = self.docs("test")
        order = np.random.default_rng(42).permutation(len(docs))[: self.paper_size][:limit]
        return [self.example(docs[row], "test", int(row)) for row in order]


class BBH(Task):
    """27 hard tasks with short exact answers (6,511 rows); for evaluation only.

    The variant ``paper`` is the six published tasks, a task's name is that task alone. Standard: direct answers,
    3-shot, tasks in turn. The official shots are not part of the data, so the first three rows of each task serve as
    its shots and are not scored (6,430 rows remain). Paper: ``{input}\\nAnswer:``, zero-shot, the first 50 rows of each
    of the six tasks, prompts cut at 1,024 tokens, 16 new ones.
    """

    name = "bbh"
    domain = "qa"
    answer_type = "text"
    version = 2
    max_new_tokens = 128
    paper_max_new_tokens = 16
    paper_max_prompt_length = 1024
    stop = ("\nQ:", "\n\n")
    num_fewshot = 3
    variants = ("paper", *BBH_TASKS)
    no_train = "BBH is for evaluation only (its authors ask that it never be trained on)."
    paper_tasks: ClassVar[tuple[str, ...]] = (
        "logical_deduction_three_objects",
        "date_understanding",
        "movie_recommendation",
        "boolean_expressions",
        "causal_judgement",
        "sports_understanding",
    )
    paper_size: ClassVar[int] = 50

    @property
    def in_script(self) -> bool:  # type: ignore[override]
        """The authors' script reads answers of its six tasks alone."""
        return self.variant in ("", "paper", *self.paper_tasks)

    def tasks(self) -> tuple[str, ...]:
        """The BBH tasks that the variant names, in order."""
        if self.variant == "paper":
            return self.paper_tasks
        return (self.variant,) if self.variant else BBH_TASKS

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        by_task: dict[str, list[dict[str, Any]]] = {task: [] for task in BBH_TASKS}
        for row in load_rows("bbh/test", self.data_dir):
            group = by_task.setdefault(row["task"], [])
            group.append({**row, "id": f"{row['task']}/{len(group)}", "row": len(group)})
        return [doc for task in self.tasks() for doc in by_task[task]]

    def doc_to_question(self, doc: dict[str, Any]) -> str:
        return doc["input"]

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        return f"{doc['input']}\nAnswer:"

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return f" {doc['target']}"

    def doc_to_meta(self, doc: dict[str, Any]) -> dict[str, Any]:
        return {"subject": doc["task"]}

    def standard_examples(self, limit: int | None) -> list[Example]:
        def prompt(doc: dict[str, Any]) -> str:
            return f"Q: {doc['input']}\nA:"

        docs = self.docs("test")
        shots: dict[str, tuple[str, ...]] = {}
        for doc in docs:
            if doc["row"] < self.num_fewshot:
                shots[doc["task"]] = (*shots.get(doc["task"], ()), f"{prompt(doc)}{self.doc_to_target(doc)}\n\n")
        scored = in_turn([doc for doc in docs if doc["row"] >= self.num_fewshot], "task")[:limit]
        return [
            replace(self.example(doc, "test", doc["row"]), prompt=prompt(doc), spans=(), shots=shots[doc["task"]])
            for doc in scored
        ]

    def paper_examples(self, limit: int | None) -> list[Example]:
        wanted = (self.variant,) if self.variant in BBH_TASKS else self.paper_tasks
        by_task = BBH(self.data_dir, self.variant if self.variant in BBH_TASKS else "paper").docs("test")
        docs = [doc for task in wanted for doc in by_task if doc["task"] == task and doc["row"] < self.paper_size]
        return [self.example(doc, "test", doc["row"]) for doc in docs[:limit]]
