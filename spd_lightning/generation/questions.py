"""Stage 2: what is asked of the model. Training prompts, tokenised, cut where they are too long, and counted.

Those of several tasks are mixed: each task gives as many as its weight says, and they stand by turns. What depends on
the task of a prompt (its solved examples, the system prompt, how an answer is read) is asked of its `Asked`. `recipe`
says how they are answered.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

from transformers import PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.generation.requests import Request, Truncation, build_requests, check_context, encode_with_template
from spd_lightning.generation.text import decode
from spd_lightning.model.load import load_config, load_tokenizer
from spd_lightning.model.source import model_fingerprint
from spd_lightning.scoring.answers import cut_at_stops, evaluation_stops
from spd_lightning.scoring.verdicts import allowed_letters
from spd_lightning.tasks import load_task
from spd_lightning.tasks.mix import Tasks, by_turns, label, shares, weights_of
from spd_lightning.tasks.task import Example, Rows, Task

T = TypeVar("T")
COUNTS = ("prompts", "truncated", "rejected", "requests")


@dataclass(frozen=True)
class Asked:
    """One task's part of the questions.

    Attributes:
        task: The task.
        prompts: Its prompts, in the data's order. Where there are several tasks, its name stands before each id.
        prompt_format: Of all of them.
        new_tokens: Limit of their completions.
    """

    task: Task
    prompts: list[Example]
    prompt_format: Literal["plain", "chat"]
    new_tokens: int

    @cached_property
    def letters(self) -> str:
        """The letters that its answers may be."""
        return allowed_letters(self.task.answer_type, self.prompts)

    def judged_part(self, completion: str) -> str:
        """What of a completion is judged: the text before the stop strings of the standard evaluation."""
        stops = evaluation_stops(self.task.answer_type, self.task.stop, "standard", self.prompt_format)
        return cut_at_stops(completion, stops)


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
    tasks: Tasks
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

    def facts(self) -> dict[str, Any]:
        """What is asked of whom, at a glance."""
        number = "all" if self.num_prompts is None else self.num_prompts
        return {"task": label(self.tasks), "model": self.model_name_or_path, "num_prompts": number}

    def __post_init__(self) -> None:
        for name in ("num_generations", "max_prompt_length"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"{name}={value} must be at least 1. Set --data.{name}.")
        if self.num_prompts is not None and self.num_prompts < 1:
            raise UserError(
                f"num_prompts={self.num_prompts} leaves no prompt. Set --data.num_prompts to at least 1, or null for "
                "all."
            )
        shares(self.num_prompts, weights_of(self.tasks))

    @cached_property
    def asked(self) -> dict[str, Asked]:
        """What is asked of each task, by its name, in alphabetical order.

        Raises:
            UserError: If a task gives no prompt.
        """
        found = {}
        for name, count in shares(self.num_prompts, weights_of(self.tasks)).items():
            task = load_task(name, self.data_dir, self.task_file, "--subspace.task", self.rows, self.seed)
            prompts = task.examples("train", count)
            if not prompts:
                raise UserError(f"Task {name!r} has no training prompt. Choose another task (--subspace.task).")
            if len(weights_of(self.tasks)) > 1:
                prompts = [replace(e, id=f"{name}/{e.id}") for e in prompts]
            found[name] = Asked(task, prompts, self.prompt_format, self.max_new_tokens or task.max_new_tokens)
        return found

    @cached_property
    def prompts(self) -> list[Example]:
        """The training prompts, in the data's order; those of several tasks by turns."""
        return by_turns({name: part.prompts for name, part in self.asked.items()})

    @cached_property
    def _task_of(self) -> dict[str, str]:
        return {e.id: name for name, part in self.asked.items() for e in part.prompts}

    def of(self, example_id: str) -> Asked:
        """The part that an example is of."""
        return self.asked[self._task_of[example_id]]

    def by_task(self, rows: Iterable[T], id_of: Callable[[T], str]) -> dict[str, list[T]]:
        """Rows by the task of their example, tasks in alphabetical order, rows in their own.

        Args:
            rows: Requests, records, texts.
            id_of: The example's id of a row.
        """
        found: dict[str, list[T]] = defaultdict(list)
        for row in rows:
            found[self._task_of[id_of(row)]].append(row)
        return {name: found[name] for name in self.asked if name in found}

    def check_trained(self, name: str) -> None:
        """Refuse to train another model than the one that answered: it would read its tokens as other ones.

        Raises:
            UserError: If ``name`` is another model.
        """
        own = self.model_name_or_path
        if name != own and model_fingerprint(name) != model_fingerprint(own):
            raise UserError(
                f"model_name_or_path={name} is to be trained, but the texts are answers of {own}. Give "
                "SPDFineTuningModule and SelfGenerationDataModule the same model (--subspace.model_name_or_path)."
            )

    def check_drawn(self, temperature: float) -> None:
        """Refuse several completions of a prompt where nothing is drawn: they would all be the same."""
        if temperature == 0 and self.num_generations > 1:
            raise UserError(
                f"num_generations={self.num_generations} at temperature 0 is one completion {self.num_generations} "
                "times. Set --data.temperature above 0, or --data.num_generations 1."
            )

    def read(self) -> None:
        """Read rows and tokens now, to be told now of what is wrong with them.

        Raises:
            UserError: If there is no prompt, one that has no tokens, or one that does not fit into the model's context.
        """
        self._tokenised  # noqa: B018

    @property
    def new_tokens(self) -> int:
        """Limit of a completion in tokens: what was set, else the task's own; of several tasks the largest."""
        return max(part.new_tokens for part in self.asked.values())

    @property
    def split(self) -> str:
        """Which part of the data the prompts are: ``train``, ``validation``; of several tasks each one's."""
        found = {name: part.task.train_split_name for name, part in self.asked.items()}
        return ", ".join(f"{name}: {split}" if len(found) > 1 else split for name, split in found.items())

    @property
    def requests(self) -> list[Request]:
        """Every (prompt, sample) pair in canonical order of the prompts, tokenised."""
        return self._tokenised[0]

    @property
    def counts(self) -> dict[str, int]:
        """How many prompts there are, how many were cut or left out, and how many requests they make."""
        tasks = self._tokenised[1].values()
        return {name: sum(counts[name] for counts in tasks) for name in COUNTS}

    def counts_of(self, task: str) -> dict[str, int]:
        """`counts` of one task."""
        return self._tokenised[1][task]

    @cached_property
    def _tokenised(self) -> tuple[list[Request], dict[str, dict[str, int]]]:
        tokenizer, made, counts = load_tokenizer(self.model_name_or_path), {}, {}
        for name, part in self.asked.items():
            own, counts[name] = build_requests(
                tokenizer,
                [(example.id, example.prompt) for example in part.prompts],
                num_generations=self.num_generations,
                max_prompt_length=self.max_prompt_length,
                prompt_format=self.prompt_format,
                on_long=self.long_prompts,
                truncation=self.truncation,
                system=part.task.system_prompt,
            )
            # told before hours of work: the longest batch comes last
            check_context(load_config(self.model_name_or_path), own, part.new_tokens)
            made.update({(request.id, request.sample): request for request in own})
            self._say_long(counts[name])
        order = [(e.id, sample) for e in self.prompts for sample in range(self.num_generations)]
        return [made[key] for key in order if key in made], counts

    def _say_long(self, counts: dict[str, int]) -> None:
        if counts["truncated"]:
            self.say(
                f"[generate] {counts['truncated']} of {counts['prompts']} prompts are longer than "
                f"{self.max_prompt_length} tokens and lose the {self.truncation} of their text: max_prompt_length "
                "(--data.max_prompt_length) and truncation (--data.truncation)"
            )
        if counts["rejected"]:
            self.say(
                f"[generate] {counts['rejected']} of {counts['prompts']} prompts are longer than "
                f"{self.max_prompt_length} tokens and are left out: long_prompts=reject (--data.long_prompts)"
            )

    def solved_tokens(self) -> dict[str, int]:
        """How many of each prompt's first tokens are solved examples (`Task.solved_end`), by example id.

        Those whose text ends within the solved examples: a token that reaches into the question is the question's. What
        stands before them, such as the head of a chat template, counts with them; a prompt without any has 0.
        """
        tokenizer = load_tokenizer(self.model_name_or_path)
        return {i: n for part in self.asked.values() for i, n in self._solved_tokens(part, tokenizer).items()}

    def _solved_tokens(self, part: Asked, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
        ends = {e.id: part.task.solved_end(e) for e in part.prompts}
        solved = [e for e in part.prompts if ends[e.id]]
        heads = sorted({e.prompt[: ends[e.id]] for e in solved})
        form = (self.prompt_format, part.task.system_prompt)
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

    def digests(self) -> dict[str, Any]:
        """SHA-256 of the prompts' texts, and of the tokens that template and cut made of them; by task, of several."""
        tokens = self.by_task([r for r in self.requests if r.sample == 0], lambda r: r.id)
        found = {}
        for name, part in self.asked.items():
            texts = json.dumps([[e.id, e.prompt] for e in part.prompts], ensure_ascii=True)
            ids = json.dumps([[r.id, *r.prompt_ids] for r in tokens.get(name, [])])
            found[name] = [hashlib.sha256(content.encode()).hexdigest() for content in (texts, ids)]
        if len(found) == 1:
            return dict(zip(("prompts", "prompt_tokens"), *found.values()))
        return {what: {n: own[i] for n, own in found.items()} for i, what in enumerate(("prompts", "prompt_tokens"))}
