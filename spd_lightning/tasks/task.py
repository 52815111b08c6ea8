"""What a task is: rows, what is asked of the model, and which characters make a completion right.

A `Task` turns rows ("docs") into `Example`s for calibration and training, and into a `Benchmark` for evaluation.
It knows nothing of models or tokenizers: prompts and targets are text, correctness spans are character offsets.
Scoring stands in ``scoring/`` and reads only ``answer_type`` and the fields of an example.

Reference: arXiv:2605.22675, section on calibration and the appendix with prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from spd_lightning.errors import UserError

Split = Literal["train", "test"]
Protocol = Literal["standard", "paper"]
Domain = Literal["math", "code", "qa", "other"]
AnswerType = Literal["number", "letter", "text", "program", "likelihood", "rule"]
OutputType = Literal["generate", "choices", "target_nll"]
Rows = Literal["first", "reference"]


@dataclass(frozen=True)
class Example:
    """One question with its right answer.

    The text that a model reads in a benchmark is ``header + "".join(shots) + prompt`` (`full_prompt`).

    Attributes:
        id: Unique within a task and split.
        prompt: What the model reads, without a chat template.
        target: The correct completion; prompt and target are joined with nothing between.
        spans: Correctness-defining ``[start, end)`` character offsets into ``prompt + target``.
        expected: The gold answer in the form that the task's scorer compares: a number, a letter, a text; for
            programs the text of the tests.
        shots: Solved examples that stand before the prompt (few-shot), the first to drop when the context is short
            first; joined with nothing between.
        header: What stands before the shots and is never dropped.
        choices: The continuations whose likelihoods are compared, e.g. ``(" A", " B", " C", " D")``; empty for
            generated answers.
        meta: What a scorer or a table needs beside that. Always ``question`` (the bare question, by which overlap is
            counted); for programs ``program_prefix``, ``program_suffix`` and ``continues`` (see `coding.program`);
            for MMLU ``subject`` and ``category``; for BBH ``subject``; a user's own ``rule``.
    """

    id: str
    prompt: str
    target: str
    spans: tuple[tuple[int, int], ...] = ()
    expected: str = ""
    shots: tuple[str, ...] = ()
    header: str = ""
    choices: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def full_prompt(self, num_shots: int | None = None) -> str:
        """Header, the last ``num_shots`` shots (all if None) and the prompt, as the model reads them."""
        keep = len(self.shots) if num_shots is None else num_shots
        return self.header + "".join(self.shots[len(self.shots) - keep :]) + self.prompt


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
        max_prompt_length: Longer prompts lose their end, tokens; None for the model's context alone. Only the paper
            protocol sets it, and there a cut prompt loses its cue (``Answer:``, ``Code:``): counted and said.
        system_prompt: Of every prompt; empty for none.
        script: Whether completions are read as the authors' script does, too (see ``scoring/script_answers.py``).
        stop: Strings that end a completion; the text is cut before the first of them.
        num_fewshot: Solved examples before each prompt.
        num_dropped: Rows of the data that cannot be scored (an empty gold output) and were left out.
        version: Version of the task; part of every fingerprint.
    """

    task: str
    domain: Domain
    protocol: Protocol
    answer_type: AnswerType
    output_type: OutputType
    examples: tuple[Example, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    num_fewshot: int = 0
    num_dropped: int = 0
    version: int = 1
    max_prompt_length: int | None = None
    script: bool = False
    system_prompt: str = ""


class Task:
    """A capability: where its rows come from, what is asked, and which characters define correctness.

    A subclass states the class attributes and writes `docs`, `doc_to_text`, `doc_to_target` and, where they differ
    from the defaults below, the other ``doc_to_*`` methods. Few-shot prompts of the standard protocol come from
    `standard_examples`, the published rows and prompts of the paper protocol from `paper_examples`.

    Attributes:
        name: Key in ``TASKS``.
        domain: math, code, qa or other.
        answer_type: How a completion is read.
        output_type: How the standard protocol scores.
        version: Raised by hand when prompts or rows change.
        max_new_tokens: Limit of a completion in the standard protocol and of training completions, in tokens.
        paper_max_new_tokens: Limit under the paper protocol, in tokens.
        paper_max_prompt_length: Where the paper protocol cuts the end off a prompt, tokens; None for nowhere.
        has_reference_rows: Whether the authors' script calibrates and trains on this task, so that ``rows`` may be
            ``reference``.
        in_script: Whether the authors' script reads answers of this task.
        system_prompt: Of every prompt (see `chat_template.prompt_turns`); empty for none.
        solved: Solved examples with which every plain prompt (`doc_to_text`) begins; empty for none.
        stop: Strings that end a completion in the standard protocol; the published one sets none.
        num_fewshot: Solved examples before each prompt in the standard protocol.
        default_num_examples: Calibration examples where the user names no number.
        variants: What may stand behind a colon in the name.
        train_split_name: Split of the data that the training examples come from, named in the results.
        no_train: Why the task cannot be trained on; empty if it can.

    Args:
        data_dir: Folder with the data sets (see the README), or None to take rows from the hub.
        variant: What stands behind a colon in the task's name (``paper`` in ``bbh:paper``); empty for none.
        rows: Training rows: ``first`` (of the training split, as they stand), or ``reference`` (those of the authors'
            script, in its order and with the text as it takes it).

    Raises:
        UserError: For ``reference`` on a task that the script does not train on.
    """

    name: ClassVar[str]
    domain: Domain
    answer_type: AnswerType
    output_type: OutputType = "generate"
    version: ClassVar[int] = 1
    max_new_tokens: ClassVar[int] = 256
    paper_max_new_tokens: ClassVar[int] = 256
    paper_max_prompt_length: ClassVar[int | None] = None
    has_reference_rows: ClassVar[bool] = False
    in_script: bool = False
    solved: str = ""
    system_prompt: str = ""
    stop: tuple[str, ...] = ()
    num_fewshot: ClassVar[int] = 0
    default_num_examples: ClassVar[int] = 50
    variants: ClassVar[tuple[str, ...]] = ()
    train_split_name: str = "train"
    no_train: ClassVar[str] = ""

    def __init__(self, data_dir: str | None = None, variant: str = "", rows: Rows = "first") -> None:
        self.data_dir = data_dir
        self.variant = variant
        self.reference = rows == "reference"
        check_rows_option(type(self), rows)

    @property
    def full_name(self) -> str:
        """The name as the user wrote it, with its variant."""
        return f"{self.name}:{self.variant}" if self.variant else self.name

    def docs(self, split: Split, limit: int | None = None) -> list[dict[str, Any]]:
        """The rows of a split in the data's own order; a task may stop at ``limit`` where more would cost time."""
        raise NotImplementedError

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        """The plain prompt: of calibration, of training, and of the paper protocol."""
        raise NotImplementedError

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        """The correct completion of `doc_to_text`, with the space or newline that it begins with."""
        raise NotImplementedError

    def doc_to_expected(self, doc: dict[str, Any]) -> str:
        """The gold answer as the scorer compares it; by default the target without white space around it."""
        return self.doc_to_target(doc).strip()

    def doc_to_question(self, doc: dict[str, Any]) -> str:
        """The bare question, without the words around it that every prompt of the task shares."""
        return self.doc_to_text(doc)

    def doc_to_spans(self, doc: dict[str, Any], prompt: str, target: str) -> tuple[tuple[int, int], ...]:
        """Correctness-defining character spans of ``prompt + target``; by default the whole target."""
        return ((len(prompt), len(prompt) + len(target)),) if target.strip() else ()

    def doc_to_choices(self, doc: dict[str, Any]) -> tuple[str, ...]:
        """Continuations to compare by likelihood; by default none."""
        return ()

    def doc_to_meta(self, doc: dict[str, Any]) -> dict[str, Any]:
        """What `Example.meta` holds beside ``question``."""
        return {}

    def doc_to_id(self, doc: dict[str, Any], split: str, row: int) -> str:
        """The data's own id if it has one, else ``<split>/<row>``, rows counted from 0."""
        return str(doc["id"]) if "id" in doc else f"{split}/{row}"

    def example(self, doc: dict[str, Any], split: str, row: int) -> Example:
        """The plain, zero-shot example of a row."""
        prompt, target = self.doc_to_text(doc), self.doc_to_target(doc)
        return Example(
            id=self.doc_to_id(doc, split, row),
            prompt=prompt,
            target=target,
            spans=self.doc_to_spans(doc, prompt, target),
            expected=self.doc_to_expected(doc),
            choices=self.doc_to_choices(doc),
            meta={"question": self.doc_to_question(doc), **self.doc_to_meta(doc)},
        )

    def solved_end(self, example: Example, num_shots: int | None = None) -> int:
        """Where the solved examples end in ``example.full_prompt(num_shots)``, in characters; 0 where there are none.

        They are the example's shots (few-shot, with the header before them) and those of every plain prompt
        (`solved`). What follows is the question itself.
        """
        before = len(example.full_prompt(num_shots)) - len(example.prompt)
        if self.solved and example.prompt.startswith(self.solved):
            return before + len(self.solved)
        kept = len(example.shots) if num_shots is None else num_shots
        return before if kept else 0

    def examples(self, split: Split, limit: int | None = None) -> list[Example]:
        """The first ``limit`` examples of a split, for calibration and training prompts.

        Raises:
            UserError: If the task has no training data and ``split`` is train, or if there is no row at all.
        """
        if split == "train" and self.no_train:
            raise UserError(
                f"Task {self.full_name!r} cannot be trained on: {self.no_train} Set task (--subspace.task) to another."
            )
        docs = self.docs(split, limit)
        docs = docs if limit is None else docs[:limit]
        if not docs:
            raise UserError(
                f"Task {self.full_name!r} gives no {split} examples (limit={limit}; its data may have no such "
                "rows). Set a limit of at least 1, or a task with such rows."
            )
        name = self.train_split_name if split == "train" else split
        return [self.example(doc, name, row) for row, doc in enumerate(docs)]

    def paper_examples(self, limit: int | None) -> list[Example]:
        """The published rows with their plain prompts; by default the whole test split."""
        return self.examples("test", limit)

    def standard_examples(self, limit: int | None) -> list[Example]:
        """The test split as the field prompts it; by default the plain prompts."""
        return self.examples("test", limit)

    def benchmark(self, protocol: Protocol = "standard", limit: int | None = None) -> Benchmark:
        """The task as it is scored, the first ``limit`` examples of it.

        Raises:
            UserError: For another protocol, or a limit below 1.
        """
        if protocol not in ("standard", "paper"):
            raise UserError(f"protocol={protocol!r} is not known. Set --evaluation.protocol to standard or paper.")
        if limit is not None and limit < 1:
            raise UserError(f"limit={limit} leaves nothing to score. Set --evaluation.limit to at least 1, or null.")
        paper = protocol == "paper"
        found = self.paper_examples(limit) if paper else self.standard_examples(limit)
        scored = [e for e in found if e.target.strip()]
        output_type: OutputType = "generate" if paper and self.output_type == "choices" else self.output_type
        if output_type != "choices":
            scored = [replace(e, choices=()) for e in scored]
        return Benchmark(
            task=self.full_name,
            domain=self.domain,
            protocol=protocol,
            answer_type=self.answer_type,
            output_type=output_type,
            examples=tuple(scored),
            max_new_tokens=self.paper_max_new_tokens if paper else self.max_new_tokens,
            stop=() if paper else self.stop,
            num_fewshot=0 if paper else self.num_fewshot,
            num_dropped=len(found) - len(scored),
            version=self.version,
            max_prompt_length=self.paper_max_prompt_length if paper else None,
            script=paper and self.in_script,
            system_prompt=self.system_prompt,
        )


def check_rows_option(task: type[Task], rows: str) -> None:
    """Refuse training rows that a task does not have.

    Raises:
        UserError: For another word than first or reference, or reference where the authors' script has no such rows.
    """
    if rows not in ("first", "reference"):
        raise UserError(f"rows={rows!r} is not known. Set --data.rows to first or reference.")
    if rows == "reference" and not task.has_reference_rows:
        raise UserError(
            f"rows='reference' names the training rows of the authors' script, which has none of task {task.name!r} "
            "(only of gsm8k, mbpp and mmlu). Set --data.rows first."
        )
