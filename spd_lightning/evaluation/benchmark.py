"""Stage 4: run one benchmark on all processes, gather its records once, and score them.

Batches are formed from all examples and dealt to processes, so any number of processes does the same arithmetic. The
one exchange of a benchmark carries the records and whether a process failed: an error on one process ends all of them.

Every decoding setting is explicit. Greedy, one completion an example; programs with ``num_samples`` above 1 are drawn
at temperature 0.8, top-p 0.95 (arXiv:2107.03374), since pass@k needs different samples.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.artifacts.files import read_jsonl, write_jsonl
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.evaluation.rounding import rounding_noise
from spd_lightning.evaluation.scores import (
    BenchmarkResult,
    domain_split,
    group_table,
    program_facts,
    reasons,
    score_records,
    unique_records,
)
from spd_lightning.evaluation.worker import BenchmarkWorker, Progress, PromptFormat, ShortContext
from spd_lightning.generation.requests import encode_prompts
from spd_lightning.model.anatomy import dtype_name, eval_mode
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
        num_samples: Completions per program task (for pass@k); other tasks are greedy and take one.
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
    if num_samples < 1:
        raise UserError(f"num_samples={num_samples} scores nothing. Set --evaluation.num_samples to at least 1.")
    if world_size > 1 and gather is None:
        raise ValueError(f"world_size={world_size} needs a gather function.")
    samples = num_samples if benchmark.answer_type == "program" else 1
    start = time.perf_counter()
    share: dict[str, Any] = {"records": [], "nll": {}, "not_run": None, "isolation": None}
    share["facts"] = {"new_tokens": 0, "truncated": 0, "cue_lost": 0, "fewer_shots": 0}
    failure: Exception | None = None
    try:
        if benchmark.answer_type == "program":
            share["isolation"], share["not_run"] = _isolation(allow_code_execution)
        if share["not_run"] is None:
            worker = BenchmarkWorker(
                *(model, tokenizer, benchmark, samples, batch_size, seed, rank, world_size, progress),
                repetition_penalty=repetition_penalty,
            )
            with eval_mode(model):
                share["records"] = worker.run(prompt_format, timeout_s, short_context)
            share.update(nll=worker.nll, facts=worker.facts)
    except Exception as error:  # told to the other processes before it is raised
        failure = error
    share["seconds"] = time.perf_counter() - start
    shares = _exchange(share, failure, gather, benchmark.task)
    result = BenchmarkResult(benchmark.task, method, benchmark.protocol, benchmark.answer_type)
    result.not_run = next((s["not_run"] for s in shares if s["not_run"] is not None), None)
    if result.not_run is not None:
        log.warning("%s is not run: %s", benchmark.task, result.not_run)
        return result
    result.records = unique_records((r for s in shares for r in s["records"]), [e.id for e in benchmark.examples])
    nll = {key: value for s in shares for key, value in s["nll"].items()}
    for record in result.records:
        record["scores"] = nll.get(record["id"], record["scores"])
    likelihood = benchmark.output_type == "choices"
    result.facts = {
        "new_tokens": sum(s["facts"]["new_tokens"] for s in shares),
        "truncated": sum(s["facts"]["truncated"] for s in shares),
        "cue_lost": shares[0]["facts"]["cue_lost"],
        "fewer_shots": shares[0]["facts"]["fewer_shots"],
        "seconds": max(s["seconds"] for s in shares),
        "isolation": shares[0]["isolation"],
        "dtype": dtype_name(model.dtype),
        "batch_size": batch_size,
        "prompt_format": "plain" if likelihood else prompt_format,
        "decoding": "likelihood" if likelihood else "greedy" if samples == 1 else "temperature 0.8, top-p 0.95",
        "repetition_penalty": None if likelihood else repetition_penalty,
        "timeout_s": timeout_s if benchmark.answer_type == "program" else None,
    }
    complete_result(result, benchmark, seed, split)
    return result


def _exchange(
    share: dict[str, Any], failure: Exception | None, gather: Gather | None, what: str
) -> list[dict[str, Any]]:
    """What every process found, in order of rank; or the failure of one, raised on all of them."""
    share["error"] = None if failure is None else f"{type(failure).__name__}: {failure}"
    shares = [share] if gather is None else [s for part in gather([share]) for s in part]
    if failure is not None:
        raise failure
    for rank, other in enumerate(shares):
        if other["error"] is not None:
            raise RuntimeError(f"{what}: process {rank} failed with {other['error']}")
    return shares


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
            facts[f"by_{key}"] = group_table(result.records, metric_names(benchmark.answer_type, samples)[0], group_of)


def evaluate_model(
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
    benchmarks: list[Benchmark],
    *,
    method: str,
    trained_task: str | None = None,
    trained_domain: str | None = None,
    store: ArtifactStore | None = None,
    key: dict[str, Any] | None = None,
    rank: int = 0,
    gather: Gather | None = None,
    notes: Mapping[str, Any] | None = None,
    tokens: Callable[[Benchmark], str] | None = None,
    **settings: Any,
) -> list[BenchmarkResult]:
    """Score a model on several benchmarks, taking from the store what was computed before.

    Args:
        load: Gives model and tokenizer; called once, and only if some benchmark is not in the store.
        benchmarks: What to score.
        method: Name under which the scores are kept.
        trained_task: Task that was trained on, for the scores' ``split``.
        trained_domain: Its domain.
        store: Where records are kept and looked up; None computes everything.
        key: What the records depend on beside the benchmark and the settings below: the model's content and dtype.
        rank: This process.
        gather: See `run_benchmark`.
        tokens: Gives `prompt_tokens` of a benchmark, for the store's keys.
        notes: Facts of the model, complete once ``load`` has been called; they are kept with the scores.
        settings: Further arguments of `run_benchmark`.

    Ranks:
        Every process calls it alike. Rank 0 alone reads and writes the store; its answer is gathered.
    """
    results, loaded = [], None
    for benchmark in benchmarks:
        split = domain_split(trained_task, trained_domain, benchmark.task, benchmark.domain)
        full_key = None if store is None or key is None else {**key, **_benchmark_key(benchmark, settings)}
        if full_key is not None and tokens is not None and rank == 0:  # which alone looks the key up
            full_key["prompt_tokens"] = tokens(benchmark)
        result = _stored(store, full_key, benchmark, method, rank, gather) if store and full_key else None
        if result is not None:
            log.info("%s: %s scores come from the artifact store", benchmark.task, method)
            complete_result(result, benchmark, settings.get("seed", 42), split)
        else:
            loaded = loaded or _load(load, method, gather)
            result = run_benchmark(*loaded, benchmark, method=method, split=split, rank=rank, gather=gather, **settings)
            result.facts |= notes or {}
            if method == "base" and rank == 0 and result.not_run is None:
                result.facts["rounding"] = rounding_noise(*loaded, benchmark)
            if store and full_key and rank == 0 and result.not_run is None:
                folder = store.folder("scores", full_key)
                write_jsonl(folder / "records.jsonl", result.records)
                facts = {k: result.facts[k] for k in result.facts if not k.startswith("by_") and k != "reasons"}
                store.complete(folder, full_key, facts=facts)
        results.append(result)
    return results


def _load(
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]], method: str, gather: Gather | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    loaded, failure = None, None
    try:
        loaded = load()
    except Exception as error:
        failure = error
    _exchange({}, failure, gather, f"loading {method}")
    assert loaded is not None
    return loaded


def _benchmark_key(benchmark: Benchmark, settings: dict[str, Any]) -> dict[str, Any]:
    """What records depend on: the examples themselves, how they are asked, and the settings that change an answer."""
    names = ("num_samples", "batch_size", "seed", "prompt_format", "timeout_s", "short_context")
    generates = benchmark.output_type != "choices"
    return {
        "task": benchmark.task,
        "version": benchmark.version,
        "protocol": benchmark.protocol,
        "output": [benchmark.output_type, benchmark.answer_type, benchmark.max_new_tokens, list(benchmark.stop)],
        "max_prompt_length": benchmark.max_prompt_length,
        "examples": examples_sha256(benchmark),
        **{name: settings.get(name) for name in names},
        "repetition_penalty": settings.get("repetition_penalty", 1.0) if generates else None,
    }


def examples_sha256(benchmark: Benchmark) -> str:
    """What is asked and what is right, in one number: equal for the same examples, whatever folder they came from."""
    digest = hashlib.sha256()
    for e in benchmark.examples:
        parts = (e.id, e.full_prompt(), e.target, e.expected, e.choices, sorted(e.meta.items()))
        digest.update(json.dumps(parts, default=str).encode())
    return digest.hexdigest()


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark, prompt_format: PromptFormat) -> str:
    """SHA-256 over the token ids of the prompts, solved examples once each: they stand before many of them.

    Their text as a whole is in `examples_sha256`; what is added here is what tokenizer and chat template make of it.
    Likelihoods are read on the plain text.
    """
    form = "plain" if benchmark.output_type == "choices" else prompt_format
    shared = dict.fromkeys(part for e in benchmark.examples for part in (e.header, *e.shots) if part)
    digest = hashlib.sha256()
    parts: list[tuple[list[str], PromptFormat]] = [
        (list(shared), "plain"),
        ([e.prompt for e in benchmark.examples], form),
    ]
    for texts, how in parts:
        for start in range(0, len(texts), 1024):
            digest.update(json.dumps(encode_prompts(tokenizer, texts[start : start + 1024], how)).encode())
    return digest.hexdigest()


def _stored(
    store: ArtifactStore,
    key: dict[str, Any],
    benchmark: Benchmark,
    method: str,
    rank: int,
    gather: Gather | None,
) -> BenchmarkResult | None:
    """The records and facts that rank 0 finds in the store, on every process; None if they are not there."""
    found: list[Any] = []
    folder = store.folder("scores", key)
    if rank == 0 and store.is_complete(folder):
        found = [list(read_jsonl(folder / "records.jsonl")), store.facts(folder)["facts"]]
    if gather is not None:
        found = gather(found)[0]
    if not found:
        return None
    records, facts = found
    facts = {**facts, "from_store": True}
    return BenchmarkResult(benchmark.task, method, benchmark.protocol, benchmark.answer_type, records, [], facts)


def _isolation(allow: bool | None) -> tuple[str | None, str | None]:
    """How programs will be kept apart, and why they may not run (one of the two is None)."""
    isolation = probe_isolation()
    if isolation.name == "none":
        return None, f"programs cannot be run on this machine ({isolation.detail})"
    if not may_execute(allow):
        return None, (
            f"no sandbox works here (tier {isolation.tier}, {isolation.name}) and nobody consented to run programs "
            "that a model wrote without one; set HF_ALLOW_CODE_EVAL=1 or --evaluation.allow_code_execution=true"
        )
    return f"{isolation.tier} {isolation.name}", None
