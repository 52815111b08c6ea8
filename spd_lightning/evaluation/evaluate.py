"""Stage 4: one model on several benchmarks; what was computed before comes from the artifact store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.artifacts.files import read_jsonl, write_jsonl
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.evaluation.benchmark import Gather, complete_result, exchange, run_benchmark
from spd_lightning.evaluation.keys import benchmark_key
from spd_lightning.evaluation.rounding import rounding_noise
from spd_lightning.evaluation.scores import BenchmarkResult, domain_split
from spd_lightning.tasks.task import Benchmark

log = logging.getLogger(__name__)


def evaluate_model(
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
    benchmarks: list[Benchmark],
    *,
    method: str,
    trained: Mapping[str, str] | None = None,
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
        trained: Domain of every task that was trained on, for the scores' ``split``.
        store: Where records are kept and looked up; None computes everything.
        key: What the records depend on beside the benchmark and the settings below: the model's content and dtype.
        rank: This process.
        gather: See `run_benchmark`.
        tokens: Gives `keys.prompt_tokens` of a benchmark, for the store's keys.
        notes: Facts of the model, complete once ``load`` has been called; they are kept with the scores.
        settings: Further arguments of `run_benchmark`.

    Ranks:
        Every process calls it alike. Rank 0 alone reads and writes the store; its answer is gathered.
    """
    results, loaded = [], None
    for benchmark in benchmarks:
        split = domain_split(trained or {}, benchmark.task, benchmark.domain)
        full_key = None if store is None or key is None else {**key, **benchmark_key(benchmark, settings)}
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
                facts = {k: result.facts[k] for k in result.facts if not k.startswith("by_") and k != "reasons"}
                with store.writing(folder) as wanted:
                    if wanted:
                        write_jsonl(folder / "records.jsonl", result.records)
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
    exchange({}, failure, gather, f"loading {method}")
    assert loaded is not None
    return loaded


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
    if rank == 0 and (known := store.take(folder)) is not None:
        found = [list(read_jsonl(folder / "records.jsonl")), known["facts"]]
    if gather is not None:
        found = gather(found)[0]
    if not found:
        return None
    records, facts = found
    facts = {**facts, "from_store": True}
    return BenchmarkResult(benchmark.task, method, benchmark.protocol, benchmark.answer_type, records, [], facts)
