"""Stage 3, texts: the rows of a raw corpus as token ids, nothing filtered but empty completions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.seeds import seed_of


@dataclass(frozen=True)
class TrainingText:
    """One text of the corpus as token ids.

    Attributes:
        id: Id of the example and, behind a colon, the index of the sample.
        prompt_ids: Tokens of the prompt as they were fed when the completion was sampled.
        completion_ids: The sampled tokens, the end-of-sequence token included where the model stopped.
    """

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


def texts_from_corpus(
    records: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    vocab_size: int | None = None,
    prompt_ids: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[list[TrainingText], dict[str, int]]:
    """Turn rows of ``generations.jsonl`` into training texts; empty completions are dropped and counted.

    Args:
        records: Rows with ``id``, ``sample``, ``prompt``, ``token_ids`` and ``completion``.
        tokenizer: Tokenises the prompts, as generation did.
        vocab_size: Rows of the model's embedding; a larger token id is refused. None checks nothing.
        prompt_ids: Prompt tokens by example id, where they are not simply the tokenised prompt (chat format, a
            prompt that was cut).

    Returns:
        The texts in the order of the records, and the counts ``texts`` and ``empty``.

    Raises:
        UserError: If no text is left, or a token id lies outside the vocabulary.
    """
    texts, empty = [], 0
    for record in records:
        completion = tuple(record["token_ids"])
        if not completion or not str(record["completion"]).strip():
            empty += 1
            continue
        known = (prompt_ids or {}).get(record["id"])
        prompt = tuple(tokenizer(record["prompt"])["input_ids"]) if known is None else tuple(known)
        text = TrainingText(f"{record['id']}:{record['sample']}", prompt, completion)
        largest = max(text.prompt_ids + text.completion_ids)
        if vocab_size is not None and largest >= vocab_size:
            raise UserError(
                f"Token id {largest} of training text {text.id!r} lies outside the model's vocabulary of {vocab_size}: "
                "corpus or tokenizer belong to another model. Set --subspace.model_name_or_path to the model that "
                "generated the corpus, or generate it again."
            )
        texts.append(text)
    if not texts:
        raise UserError(
            "The corpus is empty: there is no generation to train on. Set --data.num_prompts above 0."
            if not empty
            else f"All {empty} completions of the corpus are empty, so there is nothing to train on. Look at "
            "generations.jsonl; raise --data.max_new_tokens or --subspace.rank, or set --data.method=ssd."
        )
    return texts, {"texts": len(texts), "empty": empty}


def split_validation(
    texts: list[TrainingText], fraction: float, seed: int
) -> tuple[list[TrainingText], list[TrainingText]]:
    """Hold out ``fraction`` of the texts for the validation loss, drawn by the seed; at least one is left to train on.

    Raises:
        UserError: If the fraction is not within [0, 1).
    """
    if not 0 <= fraction < 1:
        raise UserError(f"val_fraction={fraction} is not a share. Set --data.val_fraction to at least 0 and below 1.")
    held = min(round(fraction * len(texts)), len(texts) - 1)
    generator = torch.Generator().manual_seed(seed_of("validation split", seed))
    order = torch.randperm(len(texts), generator=generator).tolist()
    chosen = set(order[:held])
    return [t for i, t in enumerate(texts) if i not in chosen], [t for i, t in enumerate(texts) if i in chosen]
