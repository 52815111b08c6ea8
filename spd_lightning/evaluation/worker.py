"""Stage 4: one process's share of a benchmark: prompts that fit, completions and likelihoods, records with verdicts."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.evaluation.likelihood import LikelihoodItem, LikelihoodScore, score_choices
from spd_lightning.generation.engine import EngineStats, generate
from spd_lightning.generation.requests import Generation, Truncation, build_requests, encode_prompts
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.scoring.answers import evaluation_stops
from spd_lightning.scoring.counting import RECORD_KEYS, Record
from spd_lightning.scoring.execution import programs_at_once, run_programs
from spd_lightning.scoring.judging import judge_all
from spd_lightning.scoring.script_answers import read_as_script
from spd_lightning.scoring.verdicts import Verdict, allowed_letters, judge_choice
from spd_lightning.tasks.task import Benchmark, Example

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int, int], None]
PromptFormat = Literal["plain", "chat"]
ShortContext = Literal["fewer_shots", "error"]


class BenchmarkWorker:
    """One process's share of a benchmark.

    Args:
        model: A causal language model in eval mode; None for judging completions that are there already.
        tokenizer: The model's.
        benchmark: What to score, the same on every process.
        samples: Completions per example.
        batch_size: See `run_benchmark`.
        seed: Of the samples' noise.
        rank: This process, 0-based.
        world_size: Number of processes.
        progress: See `run_benchmark`.
        repetition_penalty: See `run_benchmark`.
    """

    def __init__(
        self,
        model: PreTrainedModel | Any,
        tokenizer: PreTrainedTokenizerBase | Any,
        benchmark: Benchmark,
        samples: int,
        batch_size: int | None,
        seed: int,
        rank: int,
        world_size: int,
        progress: Progress | None,
        repetition_penalty: float = 1.0,
    ) -> None:
        self.model, self.tokenizer, self.benchmark = model, tokenizer, benchmark
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.rank, self.world_size, self.progress = rank, world_size, progress
        self.repetition_penalty = repetition_penalty
        self.examples = {e.id: e for e in benchmark.examples}
        self.facts = {"fewer_shots": 0, "truncated": 0, "cue_lost": 0, "new_tokens": 0}
        self.nll: dict[str, dict[str, float]] = {}  # by example: sum of the target's loss, its tokens and characters
        self.letters = allowed_letters(benchmark.answer_type, benchmark.examples)
        self.done = 0
        passes = 1 + (benchmark.output_type == "target_nll")
        self.total = math.ceil(len(benchmark.examples) * samples * passes / world_size)
        config: Any = None if model is None else model.config.get_text_config()
        self.context: int | None = getattr(config, "max_position_embeddings", None)

    def run(self, prompt_format: PromptFormat, timeout_s: float, short_context: ShortContext) -> list[Record]:
        """The records of this process; `facts` and `nll` are filled meanwhile. Arguments as in `run_benchmark`."""
        kind = self.benchmark.output_type
        if kind == "choices":
            return [self._choice_record(s) for s in self._likelihoods("plain", short_context)]
        if kind == "target_nll":  # its batches are dealt apart from those of the completions; joined after the gather
            for s in self._likelihoods("plain", short_context):
                chars = len(self.examples[s.id].target)
                self.nll[s.id] = {"nll": -s.log_likelihoods[0], "tokens": s.num_tokens[0], "chars": chars}
        generations = self._generate(prompt_format, short_context)
        records = self._judge(generations, timeout_s)
        if self.benchmark.script:
            run = functools.partial(run_programs, timeout_s=timeout_s, workers=programs_at_once(self.world_size))
            read_as_script(records, self.examples, self.benchmark.answer_type, run)
        return records

    # -- prompts -----------------------------------------------------------------------------------------------------

    def _fitting(self, room: int | None, form: PromptFormat, rest: str, short_context: ShortContext) -> dict[str, int]:
        """How many shots of each example fit into ``room`` tokens, with what follows the prompt (``rest``)."""
        shots = {}
        for e in self.benchmark.examples:
            keep = len(e.shots)
            tail = {"": "", "target": e.target, "choice": max(e.choices, key=len, default="")}[rest]
            while room is not None and not self._fits(e.full_prompt(keep) + tail, room, form):
                if short_context == "error":
                    raise UserError(
                        f"{self.benchmark.task}: example {e.id!r} with {keep} solved examples exceeds the model's "
                        f"context of {self.context} tokens. Set --evaluation.short_context fewer_shots, or take a "
                        "model with a longer context."
                    )
                if keep == 0:
                    break
                keep -= 1
            shots[e.id] = keep
        fewer = sum(shots[e.id] < len(e.shots) for e in self.benchmark.examples)
        self.facts["fewer_shots"] = fewer
        if fewer and self.rank == 0:
            log.warning(
                "%s: %d of %d prompts keep fewer than %d solved examples, to fit the context of %s tokens",
                *(self.benchmark.task, fewer, len(shots), self.benchmark.num_fewshot, self.context),
            )
        return shots

    def _fits(self, text: str, room: int, form: PromptFormat) -> bool:
        if form == "plain" and len(text.encode()) + 8 <= room:  # a token is at least one byte; a few special ones
            return True
        return len(encode_prompts(self.tokenizer, [text], form)[0]) <= room

    def _say_cut(self, cut: int) -> None:
        """Say that the protocol's limit cost prompts their end, and with it the cue that asks for the answer."""
        self.facts["cue_lost"] = cut
        if cut and self.rank == 0:
            cue = self.benchmark.examples[0].prompt.splitlines()[-1]
            log.warning(
                "%s: %d of %d prompts are longer than %d tokens; the paper protocol cuts their end, and they lose %r",
                *(self.benchmark.task, cut, len(self.benchmark.examples), self.benchmark.max_prompt_length, cue[-20:]),
            )

    def _start_of(self, text: str) -> str:
        """As much of a prompt as the protocol's limit leaves of it."""
        limit = self.benchmark.max_prompt_length
        if limit is None or len(text.encode()) + 8 <= limit:
            return text
        offsets = self.tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        return text if len(offsets) <= limit else text[: max(end for _, end in offsets[:limit])]

    # -- the model's work --------------------------------------------------------------------------------------------

    def _likelihoods(self, form: PromptFormat, short_context: ShortContext) -> list[LikelihoodScore]:
        rest = "choice" if self.benchmark.output_type == "choices" else "target"
        room = None if self.context is None else self.context + 1  # the last token is predicted, never read
        shots = self._fitting(room, form, rest, short_context)
        items = []
        for e in self.benchmark.examples:
            text = self._start_of(e.full_prompt(shots[e.id]))
            shared = text[: len(text) - len(e.prompt)] or self.benchmark.task
            items.append(LikelihoodItem(e.id, text, e.choices if rest == "choice" else (e.target,), shared))
        scores = score_choices(
            self.model,
            self.tokenizer,
            items,
            batch_size=self.batch_size,
            max_length=self.context,
            rank=self.rank,
            world_size=self.world_size,
            on_batch=lambda found: self._advance(len(found), 0),
        )
        self.facts["truncated"] = sum(s.truncated for s in scores)
        for s in scores:
            if not all(math.isfinite(v) for v in s.log_likelihoods):
                raise UserError(
                    f"{self.benchmark.task}: the likelihood of example {s.id!r} is not finite in {self.model.dtype}. "
                    "Set --data.dtype float32, or look for NaN in the weights."
                )
        return scores

    def _generate(self, form: PromptFormat, short_context: ShortContext) -> list[Generation]:
        bench, limit = self.benchmark, self.benchmark.max_new_tokens
        room = None if self.context is None else self.context - limit
        if room is not None and room < 1:
            raise UserError(
                f"{self.benchmark.task} needs {limit} new tokens, the model's context is {self.context}. "
                "Take a model with a longer context, or leave this task out of --evaluation.tasks."
            )
        shots = self._fitting(room, form, "", short_context)
        prompts = [(e.id, e.full_prompt(shots[e.id])) for e in self.benchmark.examples]
        published = self.benchmark.max_prompt_length
        side: Truncation = "middle" if published is None else "end"
        most = min((n for n in (room, published) if n is not None), default=None)
        requests, counts = build_requests(self.tokenizer, prompts, self.samples, most, form, truncation=side)
        self.facts["truncated"] += counts["truncated"] if self.rank == 0 else 0  # counted over the whole list
        if published is not None:
            self._say_cut(counts["truncated"])
        params = SamplingParams(
            max_new_tokens=limit,
            temperature=0.0 if self.samples == 1 else 0.8,
            top_p=1.0 if self.samples == 1 else 0.95,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            stop=evaluation_stops(bench.answer_type, bench.stop, bench.protocol, form),
        )
        stats = EngineStats()
        found = generate(
            self.model,
            self.tokenizer,
            requests,
            params,
            batch_size=self.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            on_batch=lambda batch: self._advance(len(batch), sum(g.num_tokens for g in batch)),
            stats=stats,
        )
        self.facts["new_tokens"] = stats.tokens
        return found

    def _advance(self, examples: int, tokens: int) -> None:
        self.done += examples
        if self.progress is not None:
            self.progress(self.benchmark.task, self.done, self.total, tokens)

    # -- records -----------------------------------------------------------------------------------------------------

    def _judge(self, generations: list[Generation], timeout_s: float) -> list[Record]:
        """Records of completions with their verdicts."""
        verdicts = judge_all(
            self.benchmark.answer_type,
            [self.examples[g.id] for g in generations],
            [g.completion for g in generations],
            letters=self.letters,
            timeout_s=timeout_s,
            workers=programs_at_once(self.world_size),
        )
        return [
            _row(self.examples[g.id], g.sample, g.completion, v) for g, v in zip(generations, verdicts, strict=True)
        ]

    def _choice_record(self, s: LikelihoodScore) -> Record:
        e = self.examples[s.id]
        by_letter = {choice.strip(): value for choice, value in zip(e.choices, s.log_likelihoods)}
        return _row(e, 0, "", judge_choice(e.expected, by_letter))


def _row(e: Example, sample: int, completion: str, v: Verdict) -> Record:
    """A record; its prompt is the question without the solved examples before it."""
    values = (e.id, sample, e.prompt, completion, v.answer, e.expected, v.correct, v.reason, dict(v.scores))
    return dict(zip(RECORD_KEYS, values, strict=True))
