"""Stage 4: one process's portion of a benchmark, in three plain functions: ask, answer, judge.

`ask` makes prompts that fit and says what fitting cost, the same on every process. `answer` has the model complete or
compare those that are dealt to this process. `judge` makes records of what came, by the table of verdicts.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.evaluation.continuations import LikelihoodItem
from spd_lightning.evaluation.decoding import GREEDY, Decoding
from spd_lightning.evaluation.likelihood import LikelihoodScore, score_choices
from spd_lightning.generation.engine import EngineStats, generate
from spd_lightning.generation.requests import Generation, Request, Truncation, build_requests, encode_prompts
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.chat_template import PromptFormat, plain_prompt
from spd_lightning.scoring.answers import evaluation_stops
from spd_lightning.scoring.counting import RECORD_KEYS, WRITTEN_KEYS, Record
from spd_lightning.scoring.execution import programs_at_once, run_programs
from spd_lightning.scoring.judging import judge_all
from spd_lightning.scoring.script_answers import read_as_script
from spd_lightning.scoring.verdicts import Verdict, allowed_letters, judge_choice
from spd_lightning.tasks.task import Benchmark, Example

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int, int], None]
ShortContext = Literal["fewer_shots", "error"]


@dataclass(frozen=True)
class Way:
    """How a benchmark is asked, and which part of it falls to this process.

    Attributes:
        samples: Completions per example.
        decoding: Of each.
        rank: This process, 0-based.
        world_size: Number of processes.

    The others are explained at `run_benchmark`.
    """

    samples: int = 1
    decoding: Decoding = GREEDY
    batch_size: int | None = None
    seed: int = 42
    rank: int = 0
    world_size: int = 1
    prompt_format: PromptFormat = "plain"
    short_context: ShortContext = "fewer_shots"
    repetition_penalty: float = 1.0
    timeout_s: float = 5.0
    progress: Progress | None = None


@dataclass(frozen=True)
class Asked:
    """What a model is asked, on all processes together.

    Attributes:
        items: Texts whose likelihoods are read.
        requests: Prompts that are completed.
        fewer_shots: Prompts that keep fewer solved examples than the benchmark has.
        truncated: Prompts that were cut all the same.
        cue_lost: Those whose end, with the cue that asks for the answer, the protocol cuts.
    """

    items: Sequence[LikelihoodItem] = ()
    requests: Sequence[Request] = ()
    fewer_shots: int = 0
    truncated: int = 0
    cue_lost: int = 0


@dataclass(frozen=True)
class Answers:
    """What the model of this process answered.

    Attributes:
        likelihoods: Of the items dealt to it.
        generations: Of the requests dealt to it.
        new_tokens: Tokens that were drawn.
    """

    likelihoods: Sequence[LikelihoodScore] = ()
    generations: Sequence[Generation] = ()
    new_tokens: int = 0


# -- ask ---------------------------------------------------------------------------------------------------------------


def ask(benchmark: Benchmark, tokenizer: PreTrainedTokenizerBase, context: int | None, way: Way) -> Asked:
    """The prompts of a benchmark that fit into the model's context.

    Raises:
        UserError: If one does not fit and ``short_context`` is error, or no completion would.
    """
    items: list[LikelihoodItem] = []
    fewer = 0
    if benchmark.output_type != "generate":
        choices = benchmark.output_type == "choices"
        room = None if context is None else context + 1  # the last token is predicted, never read
        longest = {e.id: max(e.choices, key=len, default="") if choices else e.target for e in benchmark.examples}
        shots, fewer = _fitting(benchmark, tokenizer, context, room, longest, "plain", way)
        for e in benchmark.examples:
            whole = plain_prompt(e.full_prompt(shots[e.id]), benchmark.system_prompt)
            text = _start_of(whole, benchmark.max_prompt_length, tokenizer)
            shared = text[: len(text) - len(e.prompt)] or benchmark.task
            items.append(LikelihoodItem(e.id, text, e.choices if choices else (e.target,), shared))
    if benchmark.output_type == "choices":
        return Asked(items=items, fewer_shots=fewer)
    limit, published = benchmark.max_new_tokens, benchmark.max_prompt_length
    room = None if context is None else context - limit
    if room is not None and room < 1:
        raise UserError(
            f"{benchmark.task} needs {limit} new tokens, the model's context is {context}. "
            "Take a model with a longer context, or leave this task out of tasks (--evaluation.tasks)."
        )
    shots, fewer = _fitting(benchmark, tokenizer, context, room, {}, way.prompt_format, way)
    prompts = [(e.id, e.full_prompt(shots[e.id])) for e in benchmark.examples]
    side: Truncation = "middle" if published is None else "end"
    most = min((n for n in (room, published) if n is not None), default=None)
    form, system = way.prompt_format, benchmark.system_prompt
    requests, counts = build_requests(tokenizer, prompts, way.samples, most, form, truncation=side, system=system)
    cut = counts["truncated"]
    if published is not None and cut and way.rank == 0:
        cue = benchmark.examples[0].prompt.splitlines()[-1]
        log.warning(
            "%s: %d of %d prompts are longer than %d tokens; the paper protocol cuts their end, and they lose %r",
            *(benchmark.task, cut, len(benchmark.examples), published, cue[-20:]),
        )
    return Asked(items, requests, fewer, cut, 0 if published is None else cut)


def _fitting(
    benchmark: Benchmark,
    tokenizer: PreTrainedTokenizerBase,
    context: int | None,
    room: int | None,
    tails: dict[str, str],
    form: PromptFormat,
    way: Way,
) -> tuple[dict[str, int], int]:
    """How many shots of each example fit into ``room`` tokens, with what follows the prompt (``tails``, by id), and of
    how many examples that is fewer than it has."""
    shots, system = {}, benchmark.system_prompt
    for e in benchmark.examples:
        keep = len(e.shots)
        while room is not None and not _fits(e.full_prompt(keep) + tails.get(e.id, ""), room, form, tokenizer, system):
            if way.short_context == "error":
                raise UserError(
                    f"{benchmark.task}: example {e.id!r} with {keep} solved examples exceeds the model's "
                    f"context of {context} tokens. Set short_context (--evaluation.short_context) fewer_shots, or "
                    "take a "
                    "model with a longer context."
                )
            if keep == 0:
                break
            keep -= 1
        shots[e.id] = keep
    fewer = sum(shots[e.id] < len(e.shots) for e in benchmark.examples)
    if fewer and way.rank == 0:
        log.warning(
            "%s: %d of %d prompts keep fewer than %d solved examples, to fit the context of %s tokens",
            *(benchmark.task, fewer, len(shots), benchmark.num_fewshot, context),
        )
    return shots, fewer


def _fits(text: str, room: int, form: PromptFormat, tokenizer: PreTrainedTokenizerBase, system: str) -> bool:
    # a token is at least one byte; a few special ones
    if form == "plain" and len(plain_prompt(text, system).encode()) + 8 <= room:
        return True
    return len(encode_prompts(tokenizer, [text], form, system)[0]) <= room


def _start_of(text: str, limit: int | None, tokenizer: PreTrainedTokenizerBase) -> str:
    """As much of a prompt as the protocol's limit, tokens, leaves of it."""
    if limit is None or len(text.encode()) + 8 <= limit:
        return text
    offsets = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return text if len(offsets) <= limit else text[: max(end for _, end in offsets[:limit])]


# -- answer ------------------------------------------------------------------------------------------------------------


@dataclass
class _Done:
    """How much of its portion this process has done, told after each batch."""

    task: str
    total: int
    progress: Progress | None
    done: int = field(default=0)

    def advance(self, found: Sequence[LikelihoodScore | Generation]) -> None:
        self.done += len(found)
        if self.progress is not None:
            tokens = sum(g.num_tokens for g in found if isinstance(g, Generation))
            self.progress(self.task, self.done, self.total, tokens)


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    asked: Asked,
    context: int | None,
    way: Way,
) -> Answers:
    """Have the model compare and complete what is dealt to this process.

    Raises:
        UserError: If a likelihood is not finite.
    """
    passes = 1 + (benchmark.output_type == "target_nll")
    total = math.ceil(len(benchmark.examples) * way.samples * passes / way.world_size)
    bar, stats = _Done(benchmark.task, total, way.progress), EngineStats()
    dealt: dict[str, Any] = {"batch_size": way.batch_size, "rank": way.rank, "world_size": way.world_size}
    dealt["on_batch"] = bar.advance
    likelihoods: list[LikelihoodScore] = []
    generations: list[Generation] = []
    if asked.items:  # their batches are dealt apart from those of the completions; joined after the gather
        likelihoods = score_choices(model, tokenizer, list(asked.items), max_length=context, **dealt)
    for s in likelihoods:
        if not all(math.isfinite(v) for v in s.log_likelihoods):
            raise UserError(
                f"{benchmark.task}: the likelihood of example {s.id!r} is not finite in {model.dtype}. "
                "Set dtype (--data.dtype) float32, or look for NaN in the weights."
            )
    if asked.requests:
        params = SamplingParams(
            max_new_tokens=benchmark.max_new_tokens,
            temperature=way.decoding.temperature,
            top_p=way.decoding.top_p,
            top_k=way.decoding.top_k,
            repetition_penalty=way.repetition_penalty,
            seed=way.seed,
            stop=evaluation_stops(benchmark.answer_type, benchmark.stop, benchmark.protocol, way.prompt_format),
        )
        generations = generate(model, tokenizer, list(asked.requests), params, stats=stats, **dealt)
    return Answers(likelihoods, generations, stats.tokens)


# -- judge -------------------------------------------------------------------------------------------------------------


def judge(benchmark: Benchmark, answers: Answers, way: Way) -> list[Record]:
    """The records of this process."""
    examples = {e.id: e for e in benchmark.examples}
    if benchmark.output_type == "choices":
        return [_choice_record(examples[s.id], s) for s in answers.likelihoods]
    workers = programs_at_once(way.world_size)
    verdicts = judge_all(
        benchmark.answer_type,
        [examples[g.id] for g in answers.generations],
        [g.completion for g in answers.generations],
        letters=allowed_letters(benchmark.answer_type, benchmark.examples),
        timeout_s=way.timeout_s,
        workers=workers,
    )
    records = [
        _record(examples[g.id], g.sample, g.completion, v) | {key: getattr(g, key) for key in WRITTEN_KEYS}
        for g, v in zip(answers.generations, verdicts, strict=True)
    ]
    if benchmark.script:
        run = functools.partial(run_programs, timeout_s=way.timeout_s, workers=workers)
        read_as_script(records, examples, benchmark.answer_type, run)
    return records


def target_losses(benchmark: Benchmark, answers: Answers) -> dict[str, dict[str, float]]:
    """By example: sum of the target's loss, its tokens and characters; empty where no target is read."""
    if benchmark.output_type != "target_nll":
        return {}
    chars = {e.id: len(e.target) for e in benchmark.examples}
    return {
        s.id: {"nll": -s.log_likelihoods[0], "tokens": s.num_tokens[0], "chars": chars[s.id]}
        for s in answers.likelihoods
    }


def _choice_record(e: Example, s: LikelihoodScore) -> Record:
    by_letter = {choice.strip(): value for choice, value in zip(e.choices, s.log_likelihoods)}
    return _record(e, 0, "", judge_choice(e.expected, by_letter))


def _record(e: Example, sample: int, completion: str, v: Verdict) -> Record:
    """A record. Its prompt is the question without the solved examples before it, its group the subject, if it has."""
    values = (e.id, sample, e.prompt, completion, v.answer, e.expected, v.correct, v.reason, dict(v.scores))
    group = {"group": e.meta["subject"]} if "subject" in e.meta else {}
    return dict(zip(RECORD_KEYS, values, strict=True)) | group
