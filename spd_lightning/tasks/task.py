"""What a task is: rows, what is asked of the model, and which characters make a completion right.

A `Task` turns rows ("docs") into `Example`s for calibration and training, and into a `Benchmark` for evaluation.
It knows nothing of models or tokenizers: prompts and targets are text, correctness spans are character offsets.
Scoring stands in ``evaluation/`` and reads only ``answer_type`` and the fields of an example.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Split = Literal["train", "test"]
Protocol = Literal["standard", "paper"]
Domain = Literal["math", "code", "qa", "other"]
AnswerType = Literal["number", "letter", "text", "program", "likelihood"]


@dataclass(frozen=True)
class Example:
    """One question with its right answer.

    Attributes:
        id: Unique within a task and split.
        prompt: What the model reads, without a chat template.
        target: The correct completion; prompt and target are joined with nothing between.
        spans: Correctness-defining ``[start, end)`` character offsets into ``prompt + target``.
        expected: The gold answer in the form that the task's scorer compares: a number, a letter, a text; for
            programs the text of the tests.
        shots: Solved examples that stand before the prompt (few-shot), the first to drop when the context is short
            first; joined with nothing between.
        choices: The continuations whose likelihoods are compared, e.g. ``(" A", " B", " C", " D")``; empty for
            generated answers.
        meta: What a scorer or a table needs beside that (``entry_point``, ``setup``, ``subject``, ...).
    """

    id: str
    prompt: str
    target: str
    spans: tuple[tuple[int, int], ...] = ()
    expected: str = ""
    shots: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A task as it is scored under one protocol.

    Attributes:
        task: Name of the task as the user wrote it, e.g. ``"bbh:paper"``.
        domain: Domain of the task.
        protocol: ``standard`` (the field's convention) or ``paper`` (the published one).
        answer_type: How a completion is read and compared.
        output_type: ``generate`` (greedy unless ``num_samples`` > 1), ``choices`` (likelihood of each of
            ``Example.choices``) or ``target_nll`` (mean negative log-likelihood of the target, and a completion that
            must parse).
        examples: In canonical order; ids are unique.
        max_new_tokens: Limit of a completion, in tokens.
        stop: Strings that end a completion; the text is cut before the first of them.
        num_fewshot: Solved examples before each prompt.
        version: Version of the task; part of every fingerprint.
    """

    task: str
    domain: Domain
    protocol: Protocol
    answer_type: AnswerType
    output_type: Literal["generate", "choices", "target_nll"]
    examples: tuple[Example, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    num_fewshot: int = 0
    version: int = 1


class Task:
    """A capability: where its rows come from, what is asked, and which characters define correctness.

    A subclass states the class attributes and writes `docs`, `doc_to_text`, `doc_to_target` and, where they differ
    from the defaults below, `doc_to_spans`, `doc_to_id` and `benchmark`.

    Args:
        data_dir: Folder with the data sets (see the README), or None to take rows from the hub.
        variant: What stands behind a colon in the task's name (``paper`` in ``bbh:paper``); empty for none.
    """

    name: ClassVar[str]
    domain: ClassVar[Domain]
    answer_type: ClassVar[AnswerType]
    version: ClassVar[int] = 1
    max_new_tokens: ClassVar[int] = 256
    default_num_examples: ClassVar[int] = 50

    def __init__(self, data_dir: str | None = None, variant: str = "") -> None:
        self.data_dir = data_dir
        self.variant = variant

    def docs(self, split: Split) -> list[dict[str, Any]]:
        """All rows of a split, in the data's own order."""
        raise NotImplementedError

    def examples(self, split: Split, limit: int | None = None) -> list[Example]:
        """The first ``limit`` examples of a split, for calibration and training prompts."""
        raise NotImplementedError

    def benchmark(self, protocol: Protocol = "standard", limit: int | None = None) -> Benchmark:
        """The task as it is scored, the first ``limit`` examples of it."""
        raise NotImplementedError
