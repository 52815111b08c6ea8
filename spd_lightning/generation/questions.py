"""Stage 2: what is asked of the model. A task's training prompts, tokenised, cut where they are too long, and counted.

`recipe` says how they are answered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from spd_lightning.errors import UserError
from spd_lightning.generation.requests import Request, Truncation, build_requests, check_context, encode_with_template
from spd_lightning.generation.text import decode
from spd_lightning.model.load import load_config, load_tokenizer
from spd_lightning.scoring.answers import cut_at_stops, evaluation_stops
from spd_lightning.tasks import load_task
from spd_lightning.tasks.task import Example, Rows, Task


@dataclass(frozen=True)
class Questions:
    """The prompts of a corpus. The fields are options of `SelfGenerationDataModule`, which explains them.

    Rows and tokens are read on first use, once.

    Args:
        say: Is told of prompts that are cut or left out.

    Raises:
        UserError: For a number that is not possible.
    """

    model_name_or_path: str
    task_name: str
    task_file: str | dict[str, Any] | None = None
    data_dir: str | None = None
    rows: Rows = "first"
    num_prompts: int | None = None
    num_generations: int = 1
    max_new_tokens: int | None = None
    max_prompt_length: int = 384
    long_prompts: Literal["truncate", "reject"] = "truncate"
    truncation: Truncation = "middle"
    prompt_format: Literal["plain", "chat"] = "plain"
    seed: int = 42
    say: Callable[[str], None] = field(default=lambda message: None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("num_generations", "max_prompt_length"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"{name}={value} must be at least 1. Set --data.{name}.")
        if self.num_prompts is not None and self.num_prompts < 1:
            raise UserError(
                f"num_prompts={self.num_prompts} leaves no prompt. Set --data.num_prompts to at least 1, or null for "
                "all."
            )

    @cached_property
    def task(self) -> Task:
        """The task object."""
        return load_task(self.task_name, self.data_dir, self.task_file, "--subspace.task", self.rows, self.seed)

    @cached_property
    def prompts(self) -> list[Example]:
        """The training prompts, in the data's order.

        Raises:
            UserError: If there is none.
        """
        prompts = self.task.examples("train", self.num_prompts)
        if not prompts:
            raise UserError(f"Task {self.task_name!r} has no training prompt. Choose another task (--subspace.task).")
        return prompts

    def read(self) -> None:
        """Read rows and tokens now, to be told now of what is wrong with them.

        Raises:
            UserError: If there is no prompt, one that has no tokens, or one that does not fit into the model's context.
        """
        self._tokenised  # noqa: B018

    @property
    def new_tokens(self) -> int:
        """Limit of a completion in tokens: what was set, else the task's own."""
        return self.max_new_tokens or self.task.max_new_tokens

    @property
    def requests(self) -> list[Request]:
        """Every (prompt, sample) pair in canonical order of the prompts, tokenised."""
        return self._tokenised[0]

    @property
    def counts(self) -> dict[str, int]:
        """How many prompts there are, how many were cut or left out, and how many requests they make."""
        return self._tokenised[1]

    @cached_property
    def _tokenised(self) -> tuple[list[Request], dict[str, int]]:
        requests, counts = build_requests(
            load_tokenizer(self.model_name_or_path),
            [(example.id, example.prompt) for example in self.prompts],
            num_generations=self.num_generations,
            max_prompt_length=self.max_prompt_length,
            prompt_format=self.prompt_format,
            on_long=self.long_prompts,
            truncation=self.truncation,
            system=self.task.system_prompt,
        )
        self._say_long(counts)
        # told before hours of work: the longest batch comes last
        check_context(load_config(self.model_name_or_path), requests, self.new_tokens)
        return requests, counts

    def _say_long(self, counts: dict[str, int]) -> None:
        if counts["truncated"]:
            self.say(
                f"[generate] {counts['truncated']} of {counts['prompts']} prompts are longer than "
                f"{self.max_prompt_length} tokens and lose the {self.truncation} of their text "
                "(--data.max_prompt_length, --data.truncation)"
            )
        if counts["rejected"]:
            self.say(
                f"[generate] {counts['rejected']} of {counts['prompts']} prompts are longer than "
                f"{self.max_prompt_length} tokens and are left out (--data.long_prompts reject)"
            )

    def solved_tokens(self) -> dict[str, int]:
        """How many of each prompt's first tokens are solved examples (`Task.solved_end`), by example id.

        Those whose text ends within the solved examples: a token that reaches into the question is the question's. What
        stands before them, such as the head of a chat template, counts with them; a prompt without any has 0.
        """
        ends = {e.id: self.task.solved_end(e) for e in self.prompts}
        solved = [e for e in self.prompts if ends[e.id]]
        heads = sorted({e.prompt[: ends[e.id]] for e in solved})
        tokenizer, form = load_tokenizer(self.model_name_or_path), (self.prompt_format, self.task.system_prompt)
        of_heads = dict(zip(heads, encode_with_template(tokenizer, heads, *form)))
        counts = dict.fromkeys(ends, 0)
        for e, whole in zip(solved, encode_with_template(tokenizer, [e.prompt for e in solved], *form)):
            head = of_heads[e.prompt[: ends[e.id]]]
            alone = head.ids[: len(head.ids) - head.suffix]
            end = next((i for i, (a, b) in enumerate(zip(whole.ids, alone)) if a != b), len(alone))
            length = len(decode(tokenizer, alone))  # where the two are cut otherwise, as white space before a word is
            while end < len(whole.ids) and len(decode(tokenizer, whole.ids[: end + 1])) <= length:
                end += 1
            left = replace(whole, ids=tuple(range(len(whole.ids)))).cut(self.max_prompt_length, self.truncation)
            counts[e.id] = sum(place < end for place in left)
        return counts

    def digests(self) -> dict[str, str]:
        """SHA-256 of the prompts' texts, and of the tokens that template and cut made of them."""
        prompts = [[e.id, e.prompt] for e in self.prompts]
        tokens = [[r.id, *r.prompt_ids] for r in self.requests if r.sample == 0]
        return {
            "prompts": hashlib.sha256(json.dumps(prompts, ensure_ascii=True).encode()).hexdigest(),
            "prompt_tokens": hashlib.sha256(json.dumps(tokens).encode()).hexdigest(),
        }

    def judged_part(self, completion: str) -> str:
        """What of a completion is judged: the text before the stop strings of the standard evaluation."""
        stops = evaluation_stops(self.task.answer_type, self.task.stop, "standard", self.prompt_format)
        return cut_at_stops(completion, stops)
