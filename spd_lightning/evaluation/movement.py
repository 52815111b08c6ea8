"""Stage 4: whether the student moved at all, which a difference of two scores does not tell.

Beside the changed answers (`changes`), the student is held against its base on two sets of texts: what it answers to
held-out prompts, and what it was trained on (`divergence`). A score that stays with a divergence of 0 says that nothing
was trained; one that stays with a large divergence says that something else was learned.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from spd_lightning.artifacts.files import weights_sha256
from spd_lightning.errors import counted
from spd_lightning.evaluation.changes import answer_changes
from spd_lightning.evaluation.context import Occasion
from spd_lightning.evaluation.continuations import Work, tokenise, work_of_tokens
from spd_lightning.evaluation.divergence import summary, text_divergences
from spd_lightning.evaluation.models import Base
from spd_lightning.evaluation.portion import Way, ask
from spd_lightning.evaluation.scores import BenchmarkResult
from spd_lightning.evaluation.suite import BenchmarkSuite
from spd_lightning.finetuning.texts import TrainingText
from spd_lightning.generation.text import completion_ids
from spd_lightning.model.adapter_beside import all_weights_trained, read_record
from spd_lightning.model.anatomy import context_of
from spd_lightning.model.load import load_config, load_student, load_tokenizer
from spd_lightning.tasks.task import Benchmark

HELD_OUT, CORPUS = 32, 32
"""Texts of either set; the intervals say what so many leave open."""


def measure_movement(
    suite: BenchmarkSuite, now: Occasion, corpus: Sequence[TrainingText] = (), max_length: int | None = None
) -> dict[str, Any] | None:
    """Student against base, JSON values: ``moved`` of ``results.json``.

    Args:
        suite: What was scored; its context names the student's folder.
        now: Where models are loaded.
        corpus: What the student was trained on; none where that is not at hand.
        max_length: Training texts were cut to this many tokens.

    Returns:
        ``answers``: a row for each benchmark that both answered (`answer_changes`); ``held_out`` and ``corpus``:
        `divergence.summary` with what the texts are (``of``), or None; ``seconds``. None without a student in a folder.

    Ranks:
        Rank 0 alone. Issues no collective.
    """
    adapter = suite.context.adapter
    if adapter is None:
        return None
    start = time.perf_counter()
    base = suite.base(now)
    tokenizer = load_tokenizer(base.name)
    scored = {(r.task, r.method): r for r in suite.final() if r.not_run is None}
    students = [r for (_, method), r in scored.items() if method == suite.context.method]

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    pairs = [(before, r) for r in students if (before := scored.get((r.task, "base"))) is not None]
    answers = [row for before, after in pairs if (row := answer_changes(before, after, encode)) is not None]
    context = context_of(load_config(base.name))
    held_out, task = _held_out(suite, students, tokenizer, context)
    corpus = list({text.id: text for text in corpus}.values())  # a repeat is no further text
    trained = _trained_on(corpus, max_length, context)
    found = _divergences(base, adapter, {"held_out": held_out, "corpus": trained}, suite)
    if found["held_out"] is not None:
        found["held_out"]["of"] = f"answers of the student to {task}"
    if found["corpus"] is not None:
        found["corpus"]["of"] = f"{counted(len(corpus), 'completion')} that it was trained on"
    return {"answers": answers, **found, "seconds": round(time.perf_counter() - start, 3)}


def _held_out(
    suite: BenchmarkSuite, students: Sequence[BenchmarkResult], tokenizer: PreTrainedTokenizerBase, context: int | None
) -> tuple[list[Work], str | None]:
    """The student's own answers to the first prompts of one benchmark: the one trained on if it was scored, one that is
    answered in writing before one that is not; and its name."""
    benchmarks = {b.task: b for b in suite.benchmarks()}

    def order(result: BenchmarkResult) -> tuple[bool, bool]:
        split = result.scores[0].split if result.scores else None
        return split != "in", benchmarks[result.task].output_type == "choices"

    for result in sorted(students, key=order):
        work = answered_texts(
            benchmarks[result.task], result.records, tokenizer, context, suite.settings["prompt_format"]
        )
        if work:
            return work, result.task
    return [], None


def answered_texts(
    benchmark: Benchmark,
    records: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    context: int | None,
    prompt_format: Any = "plain",
) -> list[Work]:
    """Prompts of a benchmark as they were asked, followed by what was answered; the gold letter where letters are
    compared. The first `HELD_OUT` that are not empty."""
    written = {r["id"]: r["completion"] for r in records if r["sample"] == 0}
    letters = benchmark.output_type == "choices"
    examples = tuple(e for e in benchmark.examples if letters or written.get(e.id))[:HELD_OUT]
    if not examples:
        return []
    questions = ask(
        replace(benchmark, examples=examples), tokenizer, context, Way(rank=1, prompt_format=prompt_format)
    )  # as a rank that says nothing: what is cut was told when it was scored
    if letters:
        gold = {e.id: e.target for e in examples}
        return tokenise(tokenizer, [replace(item, choices=(gold[item.id],)) for item in questions.items], context)
    work = []
    for request in questions.requests:
        ids = completion_ids(tokenizer, request.prompt_ids, written[request.id])
        work.append(work_of_tokens(request.id, request.prompt_ids, ids, benchmark.task, context))
    return work


def _trained_on(corpus: Sequence[TrainingText], max_length: int | None, context: int | None) -> list[Work]:
    """The completions of training texts spread evenly over the corpus, as far as they were trained."""
    chosen = [corpus[i * len(corpus) // CORPUS] for i in range(CORPUS)] if len(corpus) > CORPUS else list(corpus)
    work = []
    for text in chosen:
        room = None if max_length is None else max(0, max_length - len(text.prompt_ids))
        if completion := text.completion_ids[:room]:
            work.append(work_of_tokens(text.id, text.prompt_ids, completion, "corpus", context))
    return work


def _divergences(base: Base, adapter: str | Path, sets: dict[str, list[Work]], suite: BenchmarkSuite) -> dict[str, Any]:
    """`divergence.summary` of each set, None for an empty one; from the store where it was computed before."""
    tokens = {  # a row's ids are what is read; its last token, and a letter, stand in its lookups alone
        name: [[row.ids.tolist(), row.positions, row.lookups] for w in work for row in w.rows]
        for name, work in sets.items()
    }
    digest = hashlib.sha256(json.dumps(tokens).encode()).hexdigest()
    key = base.key(adapter=weights_sha256(Path(adapter)), texts=digest)
    store = suite.context.store
    folder = None if store is None else store.folder("movement", key)
    known = None if store is None or folder is None else store.take(folder)
    if known is not None:
        return known["found"]
    student = load_student(base.name, adapter, base.dtype, base.device, base.device_map)
    apart = all_weights_trained(adapter) or read_record(base.name) is not None
    other = base.load() if apart else None
    found = {name: summary(text_divergences(student, work, other)) if work else None for name, work in sets.items()}
    if store is not None and folder is not None:
        store.complete(folder, key, found=found)
    return found
