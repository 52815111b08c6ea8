"""Stage 4: run one benchmark on all processes, gather its records once, and score them.

Batches are formed from all examples and dealt to processes, so any number of processes does the same arithmetic. The
one exchange of a benchmark carries the records and whether a process failed: an error on one process ends all of them.

Every decoding setting is explicit. Greedy, one completion an example; programs with ``num_samples`` above 1 are drawn
at temperature 0.8, top-p 0.95 (arXiv:2107.03374), since pass@k needs different samples.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.evaluation.decoding import GREEDY, chosen_decoding, samples_of
from spd_lightning.evaluation.keys import examples_sha256
from spd_lightning.evaluation.portion import (
    Answers,
    Asked,
    Progress,
    ShortContext,
    Way,
    answer,
    ask,
    judge,
    target_losses,
)
from spd_lightning.evaluation.scores import (
    BenchmarkResult,
    group_scores,
    program_facts,
    reasons,
    score_records,
    unique_records,
)
from spd_lightning.model.anatomy import context_of, dtype_name, eval_mode
from spd_lightning.model.chat_template import PromptFormat
from spd_lightning.model.short_attention import without_plans
from spd_lightning.scoring.isolation import may_execute, probe_isolation
from spd_lightning.scoring.verdicts import metric_names
from spd_lightning.tasks.task import Benchmark

log = logging.getLogger(__name__)

Gather = Callable[[list[Any]], list[list[Any]]]


def run_benchmark(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    *,
    method: str,
    num_samples: int = 1,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    batch_size: int | None = None,
    seed: int = 42,
    rank: int = 0,
    world_size: int = 1,
    gather: Gather | None = None,
    allow_code_execution: bool | None = None,
    prompt_format: PromptFormat = "plain",
    timeout_s: float = 5.0,
    short_context: ShortContext = "fewer_shots",
    repetition_penalty: float = 1.0,
    split: str | None = None,
    progress: Progress | None = None,
) -> BenchmarkResult:
    """Score a model on a benchmark.

    Args:
        model: A causal language model; put into eval mode meanwhile.
        tokenizer: The model's.
        benchmark: What to score, the same on every process.
        method: Name under which the scores are kept.
        num_samples: Completions per example where answers are generated, for pass@k.
        temperature: Of generated answers; None is greedy for one, 0.8 (with top-p 0.95) for several. Code whose
            likelihood is read, too, is always completed greedily, once.
        top_p: Of drawn answers; None keeps all, see above.
        top_k: Of drawn answers; None keeps all.
        batch_size: Completions, or questions, run together; None for the stages' own defaults.
        seed: Of the samples' noise.
        rank: This process, 0-based.
        world_size: Number of processes.
        gather: Collects a list from every process, in order of rank; needed if ``world_size`` is above 1.
        allow_code_execution: Consent to run programs without a sandbox; see `may_execute`.
        prompt_format: ``chat`` puts generated answers through the chat template, and then takes a program from its code
            block instead of cutting at stop strings. Likelihoods are always read on the plain text.
        timeout_s: Time limit of a program, seconds.
        short_context: Where prompt and completion exceed the model's context: drop solved examples, the first ones
            first (counted and said), or raise.
        repetition_penalty: Of generated answers, greedy and drawn, as `SamplingParams` has it; likelihoods know none.
        split: Of the scores; see `domain_split`.
        progress: Called with task, done, total and new tokens of this process after each batch.

    Returns:
        Records, scores and facts, the same on every process; or the reason why the benchmark was not run.

    Raises:
        UserError: If a prompt does not fit and ``short_context`` is error, or a likelihood is not finite.
        RuntimeError: On every process, if another one failed.

    Ranks:
        Every process calls it with the same arguments but ``rank``. One gather.
    """
    decoding = chosen_decoding(num_samples, temperature, top_p, top_k)
    if world_size > 1 and gather is None:
        raise ValueError(f"world_size={world_size} needs a gather function.")
    samples = samples_of(benchmark, num_samples)
    drawn = decoding if benchmark.output_type == "generate" else GREEDY
    start = time.perf_counter()
    way = Way(
        samples=samples,
        decoding=drawn,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        prompt_format=prompt_format,
        short_context=short_context,
        repetition_penalty=repetition_penalty,
        timeout_s=timeout_s,
        progress=progress,
    )
    portion: dict[str, Any] = {"records": [], "nll": {}, "facts": None, "not_run": None, "isolation": None}
    failure: Exception | None = None
    try:
        if benchmark.answer_type == "program":
            portion["isolation"], portion["not_run"] = _isolation(allow_code_execution)
        if portion["not_run"] is None:
            context = context_of(model.config)
            with eval_mode(model), without_plans():
                asked = ask(benchmark, tokenizer, context, way)
                answers = answer(model, tokenizer, benchmark, asked, context, way)
                portion["records"] = judge(benchmark, answers, way)
            portion.update(nll=target_losses(benchmark, answers), facts=_counts(asked, answers, rank))
    except Exception as error:  # told to the other processes before it is raised
        failure = error
    portion["seconds"] = time.perf_counter() - start
    portions = exchange(portion, failure, gather, benchmark.task)
    result = BenchmarkResult(benchmark.task, method, benchmark.protocol, benchmark.answer_type)
    result.not_run = next((s["not_run"] for s in portions if s["not_run"] is not None), None)
    if result.not_run is not None:
        log.warning("%s is not run: %s", benchmark.task, result.not_run)
        return result
    result.records = unique_records((r for s in portions for r in s["records"]), [e.id for e in benchmark.examples])
    nll = {key: value for s in portions for key, value in s["nll"].items()}
    for record in result.records:
        record["scores"] = nll.get(record["id"], record["scores"])
    likelihood = benchmark.output_type == "choices"
    result.facts = {
        "new_tokens": sum(s["facts"]["new_tokens"] for s in portions),
        "truncated": sum(s["facts"]["truncated"] for s in portions),
        "cue_lost": portions[0]["facts"]["cue_lost"],
        "fewer_shots": portions[0]["facts"]["fewer_shots"],
        "seconds": max(s["seconds"] for s in portions),
        "isolation": portions[0]["isolation"],
        "dtype": dtype_name(model.dtype),
        "batch_size": batch_size,
        "prompt_format": "plain" if likelihood else prompt_format,
        "decoding": "likelihood" if likelihood else str(drawn),
        "repetition_penalty": None if likelihood else repetition_penalty,
        "timeout_s": timeout_s if benchmark.answer_type == "program" else None,
    }
    complete_result(result, benchmark, seed, split)
    return result


def _counts(asked: Asked, answers: Answers, rank: int) -> dict[str, int]:
    """What was seen in asking and answering; what is known of the whole list is counted by rank 0."""
    return {
        "new_tokens": answers.new_tokens,
        "truncated": sum(s.truncated for s in answers.likelihoods) + (asked.truncated if rank == 0 else 0),
        "cue_lost": asked.cue_lost,
        "fewer_shots": asked.fewer_shots,
    }


def exchange(
    portion: dict[str, Any], failure: Exception | None, gather: Gather | None, what: str
) -> list[dict[str, Any]]:
    """What every process found, in order of rank; or the failure of one, raised on all of them."""
    portion["error"] = None if failure is None else f"{type(failure).__name__}: {failure}"
    portions = [portion] if gather is None else [s for part in gather([portion]) for s in part]
    if failure is not None:
        raise failure
    for rank, other in enumerate(portions):
        if other["error"] is not None:
            raise RuntimeError(f"{what}: process {rank} failed with {other['error']}")
    return portions


def complete_result(result: BenchmarkResult, benchmark: Benchmark, seed: int, split: str | None) -> None:
    """Compute scores and tables from a result's records and facts, in place."""
    samples = 1 + max((r["sample"] for r in result.records), default=0)
    facts = result.facts
    result.scores = score_records(
        result.records,
        benchmark.answer_type,
        method=result.method,
        task=benchmark.task,
        protocol=benchmark.protocol,
        split=split,
        num_samples=samples,
        seed=seed,
        isolation=facts["isolation"],
        seconds=facts["seconds"],
    )
    facts.update(
        num_fewshot=benchmark.num_fewshot,
        num_dropped=benchmark.num_dropped,
        num_samples=samples,
        max_new_tokens=benchmark.max_new_tokens,
        max_prompt_length=benchmark.max_prompt_length,
        task_version=benchmark.version,
        examples=examples_sha256(benchmark),
        reasons=reasons(result.records),
    )
    if benchmark.answer_type == "program":
        facts["one_process"] = program_facts(result.records)
    for key in ("subject", "category"):
        group_of = {e.id: e.meta[key] for e in benchmark.examples if key in e.meta}
        if group_of:
            facts[f"by_{key}"] = group_scores(result.records, metric_names(benchmark.answer_type, samples)[0], group_of)


def _isolation(allow: bool | None) -> tuple[str | None, str | None]:
    """How programs will be kept apart, and why they may not run (one of the two is None)."""
    isolation = probe_isolation()
    if isolation.name == "none":
        return None, f"programs cannot be run on this machine ({isolation.detail})"
    if not may_execute(allow):
        return None, (
            f"no sandbox works here (tier {isolation.tier}, {isolation.name}) and nobody consented to run programs "
            "that a model wrote without one; set allow_code_execution=true (--evaluation.allow_code_execution), or "
            "HF_ALLOW_CODE_EVAL=1"
        )
    return isolation.label, None
