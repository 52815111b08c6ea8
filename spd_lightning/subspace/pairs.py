"""Stage 1: the calibration pairs of one task, from rows to tokens with S marked, and what its moments depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.model.chat_template import PromptFormat
from spd_lightning.subspace import calibration
from spd_lightning.subspace.capture import STEP, form_batches
from spd_lightning.subspace.correctness import CalibrationStatistics, EncodedExample, Loss, SpanRule, encode_examples
from spd_lightning.subspace.sites import SiteKey
from spd_lightning.tasks import load_task
from spd_lightning.tasks.task import Example, Rows, Task


@dataclass(frozen=True)
class Pairs:
    """The pairs of one task. The fields are options of `SubspaceExtractionModule`, which explains them.

    Rows and tokens are read on first use, once.

    Args:
        tokenizer: Gives the model's.
        context: Gives the longest text that the model takes, tokens; None for no limit.
        option: That names the task, for messages.
    """

    name: str
    tokenizer: Callable[[], PreTrainedTokenizerBase]
    context: Callable[[], int | None]
    task_file: str | dict[str, Any] | None
    data_dir: str | None
    num_examples: int | None
    max_length: int
    loss: Loss
    span_rule: SpanRule
    seed: int
    rows: Rows
    prompt_format: PromptFormat
    option: str = "--subspace.task"

    @cached_property
    def task(self) -> Task:
        """The task object."""
        return load_task(self.name, self.data_dir, self.task_file, self.option, self.rows, self.seed)

    @cached_property
    def examples(self) -> list[Example]:
        """The pairs: the first rows of the task's training split."""
        return calibration.first_examples(self.task, self.num_examples)

    @cached_property
    def encoded(self) -> tuple[list[EncodedExample], CalibrationStatistics]:
        """The tokenised pairs with a non-empty S, and what became of all.

        Raises:
            UserError: If a text is longer than the model takes, or as `encode_examples`.
        """
        form = (self.prompt_format, self.task.system_prompt)
        found = encode_examples(self.tokenizer(), self.examples, self.max_length, self.span_rule, self.loss, *form)
        longest, context = max(found[0], key=lambda e: e.reach), self.context()
        most = None if context is None else context - context % STEP  # rows are run in whole steps
        if most is not None and longest.reach > most:
            raise UserError(
                f"The calibration text of {longest.id} has {len(longest.input_ids)} tokens within max_length="
                f"{self.max_length}, but the model takes {context}. Set max_length (--subspace.max_length) to {most}."
            )
        return found

    @property
    def reading(self) -> dict[str, Any]:
        """How examples become tokens and S."""
        found = {"task": self.name, "loss": self.loss, "span_rule": self.span_rule, "max_length": self.max_length}
        return found | ({"prompt_format": "chat"} if self.prompt_format == "chat" else {})  # plain text: keys as before

    def key(self, fingerprint: str, sites: Iterable[SiteKey], dtype: torch.dtype, batch_tokens: int) -> dict[str, Any]:
        """Everything that the task's moments depend on; see `calibration.moments_key`."""
        return calibration.moments_key(
            fingerprint,
            self.reading,
            task_version=self.task.version,
            rows=self.rows,
            examples=self.examples,
            sites=sites,
            dtype=dtype,
            batch_tokens=batch_tokens,
            tokens=self.encoded[0] if self.prompt_format == "chat" or self.task.system_prompt else None,
        )

    def metadata(self, model: str, fingerprint: str, weights_digest: str, dtype: str) -> dict[str, Any]:
        """What the file of the task's moments says; see `calibration.metadata`."""
        return calibration.metadata(model, fingerprint, weights_digest, self.reading, dtype, self.encoded[1])


def batches_of(pairs: Iterable[Pairs], batch_tokens: int) -> list[tuple[str, int, list[EncodedExample]]]:
    """The batches of all tasks, a task's one after another: its name, its examples before the batch, the batch."""
    batches = []
    for part in pairs:
        formed = form_batches(part.encoded[0], batch_tokens)
        starts = accumulate((len(batch) for batch in formed), initial=0)
        batches += [(part.name, before, batch) for before, batch in zip(starts, formed)]
    return batches
