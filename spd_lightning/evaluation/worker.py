"""Stage 4: one process's share of a benchmark: prompts that fit, completions and likelihoods, records with verdicts."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.evaluation.likelihood import LikelihoodItem, LikelihoodScore, score_choices
from spd_lightning.evaluation.metrics import gold_number
from spd_lightning.evaluation.scores import RECORD_KEYS, Record
from spd_lightning.generation.engine import EngineStats, Generation, build_requests, encode_prompts, generate
from spd_lightning.generation.requests import Truncation
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.scoring.answers import (
    evaluation_stops,
    extract_code,
    extract_letter,
    extract_number,
    extract_text,
    letters_up_to,
    normalise_text,
    numbers_equal,
    parses,
)
from spd_lightning.scoring.execution import TestedProgram, judge_programs, run_programs
from spd_lightning.scoring.isolation import may_execute
from spd_lightning.scoring.parts import split
from spd_lightning.scoring.script_answers import read_as_script
from spd_lightning.tasks.coding import solution
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
        self.letters = letters_up_to(e.expected for e in benchmark.examples if benchmark.answer_type == "letter")
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
        if self.benchmark.answer_type == "program":
            records = self._program_records(generations, timeout_s)
        else:
            records = [self._record(g, *self._judge(g)) for g in generations]
        if self.benchmark.script:
            run = functools.partial(run_programs, timeout_s=timeout_s, workers=self._workers())
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

    def _judge(self, g: Generation) -> tuple[str | None, bool, str]:
        """Answer, verdict and reason of a completion that is not run as a program."""
        expected = self.examples[g.id].expected
        if self.benchmark.answer_type == "letter":
            letter, reason = extract_letter(g.completion, self.letters, ())
            return letter, letter == expected, reason
        if self.benchmark.answer_type == "likelihood":
            code = extract_code(g.completion)
            right = parses(code)
            return code, right, "parses" if right else "does not parse"
        if self.benchmark.answer_type == "text":
            text, reason = extract_text(g.completion, expected, ())
            return text, text == normalise_text(expected), reason
        number, reason = extract_number(g.completion, "flexible", ())
        marked, _ = extract_number(g.completion, "strict", ())
        if marked is not None:
            reason = "marker" if numbers_equal(marked, number) else "marker and reading differ"
        return None if number is None else f"{number:f}", numbers_equal(number, gold_number(expected)), reason

    def _choice_record(self, s: LikelihoodScore) -> Record:
        e = self.examples[s.id]
        by_letter = {choice.strip(): value for choice, value in zip(e.choices, s.log_likelihoods)}
        best = max(by_letter.values())
        winners = [letter for letter, value in by_letter.items() if value == best]
        answer = winners[0] if len(winners) == 1 else None  # equal likelihoods are no answer
        reason = "likelihood" if answer else "equal likelihoods"
        return _row(e, 0, "", answer, answer == e.expected, reason, by_letter)

    def _program_records(
        self, generations: list[Generation], timeout_s: float, one_process: bool = True
    ) -> list[Record]:
        """Records of completions that are run; ``scores`` holds the verdict of one process (1 passed), if asked for,
        and a 1 for ``shared`` where the tests allow no other."""
        codes = [extract_code(g.completion) for g in generations]
        programs = []
        for g, code in zip(generations, codes):
            e = self.examples[g.id]
            parts = split(e.meta["program_prefix"], e.meta["program_suffix"], e.meta["continues"])
            programs.append(TestedProgram(solution(e, code), parts))
        verdicts = judge_programs(programs, timeout_s=timeout_s, workers=self._workers(), one_process=one_process)
        records = []
        for g, code, v in zip(generations, codes, verdicts, strict=True):
            scores = {} if v.one_process is None else {"one_process": float(v.one_process.passed)}
            scores |= {"shared": 1.0} if v.shared else {}
            records.append(self._record(g, code, v.result.passed, v.result.reason) | {"scores": scores})
        return records

    def _workers(self) -> int:
        """Programs that this process runs at once, beside those of the machine's other processes."""
        neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", self.world_size))
        return max(1, (os.cpu_count() or 1) // neighbours)

    def _record(self, g: Generation, answer: str | None, correct: bool, reason: str) -> Record:
        return _row(self.examples[g.id], g.sample, g.completion, answer, correct, reason, {})


def correct_completions(
    benchmark: Benchmark, records: Sequence[Mapping[str, Any]], allow: bool | None = None, timeout_s: float = 5.0
) -> list[bool]:
    """For each record of a corpus whether its completion agrees with the gold answer, for the method ``filtered``.

    Args:
        benchmark: Its examples are the training prompts; it says how a completion is read.
        records: Rows of ``generations.jsonl``.
        allow: Consent to run programs; see `may_execute`.
        timeout_s: Limit of one program, seconds.

    Raises:
        UserError: If programs would have to be run and there is no consent for it.
    """
    check_consent(benchmark.answer_type, allow)
    worker = BenchmarkWorker(None, None, benchmark, 1, None, 0, 0, 1, None)
    generations = [Generation(**{**r, "token_ids": tuple(r["token_ids"])}) for r in records]
    if benchmark.answer_type == "program":
        return [bool(row["correct"]) for row in worker._program_records(generations, timeout_s, one_process=False)]
    return [bool(worker._judge(g)[1]) for g in generations]


def check_consent(answer_type: str, allow: bool | None) -> None:
    """Refuse the method ``filtered`` on a task of code where its programs may not be run.

    Raises:
        UserError: Naming the option.
    """
    if answer_type == "program" and not may_execute(allow):
        raise UserError(
            f"data.method=filtered runs programs of the model, which evaluation.allow_code_execution={allow!r} does "
            "not allow here (without a sandbox it must be true, or HF_ALLOW_CODE_EVAL=1). Set it, or choose "
            "--data.method=ssd."
        )


def _row(
    e: Example,
    sample: int,
    completion: str,
    answer: str | None,
    correct: bool,
    reason: str,
    scores: dict[str, float],
) -> Record:
    """A record; its prompt is the question without the solved examples before it."""
    values = (e.id, sample, e.prompt, completion, answer, e.expected, correct, reason, scores)
    return dict(zip(RECORD_KEYS, values, strict=True))
