"""Stage 3, from a corpus to the texts of a training: what is kept, turned into tokens, held out, and repeated.

One budget for every arm: what a rule of ``data.keep`` drops is made up for by repeating what it keeps, so that all arms
take as many optimiser steps, and learn as many tokens of completions as the corpus lets them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from spd_lightning.finetuning.keep import Keep, Records, keep_records
from spd_lightning.finetuning.texts import TrainingText, split_validation, texts_from_corpus
from spd_lightning.generation.questions import Questions
from spd_lightning.model.load import load_tokenizer
from spd_lightning.seeds import seed_of


@dataclass
class TrainingSet:
    """The texts of a training.

    Attributes:
        train: Texts that are learned, repeats included.
        val: Texts held out.
        facts: What was seen: counts of the prompts and texts, what was kept, and the budget.
    """

    train: list[TrainingText]
    val: list[TrainingText]
    facts: dict[str, Any] = field(default_factory=dict)


def training_set(
    records: Records,
    questions: Questions,
    keep: Keep = "all",
    *,
    cut_at_stops: bool = False,
    val_fraction: float = 0.0,
    seed: int = 42,
    allow: bool | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> TrainingSet:
    """Make a training of a finished corpus.

    Args:
        records: Of the corpus.
        questions: What was asked.
        keep: See `keep_records`.
        cut_at_stops: See `texts_from_corpus`.
        val_fraction: Share of the prompts whose texts are held out.
        seed: Of what is drawn.
        allow: Consent to run programs.
        say: Is told of repeats.

    Raises:
        UserError: If nothing is left to train on.

    Ranks:
        Collective for a gold filter.
    """
    tokenizer = load_tokenizer(questions.model_name_or_path)
    facts: dict[str, Any] = {"prompts": questions.counts}
    kept = keep_records(records, keep, questions, tokenizer, seed, allow)
    if keep != "all":
        facts["kept"] = {"rule": keep, "kept": len(kept), "of": len(records)}
    texts, facts["texts"] = texts_from_corpus(
        kept,
        tokenizer,
        prompt_ids={request.id: request.prompt_ids for request in questions.requests},
        cut_at_stops=cut_at_stops,
        solved=questions.solved_tokens(),
    )
    train, val = split_validation(texts, val_fraction, seed)
    all_records = questions.by_task(records, lambda record: str(record["id"]))
    all_texts, train_texts = (questions.by_task(some, _example_of) for some in (texts, train))
    train, wanted = [], 0
    for task, own in train_texts.items():
        # majority chooses one of several samples, so its budget is that of one a prompt
        made = all_records[task]
        budget = len({record["id"] for record in made}) if keep == "majority" else len(made)
        share = len(own) / len(all_texts[task])
        mean = statistics.fmean(record["num_tokens"] for record in made)
        train += repeated(own, round(budget * share), round(mean * budget * share), seed)
        wanted += budget
    if wanted > len(texts):
        say(f"[fine_tune] keep={keep} leaves {len(texts)} texts; they repeat up to {wanted}, the budget of all")
    facts["budget"] = {
        "generated_tokens": sum(record["num_tokens"] for record in records),
        "texts": len(train),
        "repeats": max(0, len(train) + len(val) - len(texts)),
        "completion_tokens": sum(len(text.completion_ids) for text in train),
    }
    return TrainingSet(train, val, facts)


def _example_of(text: TrainingText) -> str:
    return text.id.rpartition(":")[0]


def repeated(texts: list[TrainingText], count: int, tokens: int, seed: int) -> list[TrainingText]:
    """Texts repeated up to a number of them, with a number of completion tokens as near as they allow.

    All repeat equally often; for the places that are left then, each takes the text, in an order drawn by the seed,
    whose length brings the sum nearest to what is wanted.

    Args:
        texts: What is repeated; at least one.
        count: How many there shall be; no more than there are leaves them as they are.
        tokens: Tokens of completions that all of them together shall have.
        seed: Of the order.
    """
    if count <= len(texts):
        return texts
    whole = texts * (count // len(texts))
    left = count - len(whole)
    gap = tokens - sum(len(text.completion_ids) for text in whole)
    generator = torch.Generator().manual_seed(seed_of("repeats", seed))
    pool = torch.randperm(len(texts), generator=generator).tolist()
    for places in range(left, 0, -1):
        wanted = gap / places
        chosen = min(pool, key=lambda i: abs(len(texts[i].completion_ids) - wanted))
        pool.remove(chosen)
        whole.append(texts[chosen])
        gap -= len(texts[chosen].completion_ids)
    return whole
