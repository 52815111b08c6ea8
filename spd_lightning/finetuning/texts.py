"""Stage 3, texts: the rows of a raw corpus as token ids, as they were sampled and without exception."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.generation.requests import encode_prompts
from spd_lightning.generation.text import completion_ids, completion_text


@dataclass(frozen=True)
class TrainingText:
    """One text of the corpus as token ids.

    Attributes:
        id: Id of the example and, behind a colon, the index of the sample.
        prompt_ids: Tokens of the prompt as they were fed when the completion was sampled.
        completion_ids: The sampled tokens, the end-of-sequence token included where the model stopped.
        solved: So many of the prompt's first tokens are solved examples, and what stands before them.
    """

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    solved: int = 0


def texts_from_corpus(
    records: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    vocab_size: int | None = None,
    prompt_ids: Mapping[str, tuple[int, ...]] | None = None,
    cut_at_stops: bool = False,
    solved: Mapping[str, int] | None = None,
) -> tuple[list[TrainingText], dict[str, int]]:
    """Turn rows of ``generations.jsonl`` into training texts, every one of them: an empty completion is its end alone.

    Args:
        records: Rows with ``id``, ``sample``, ``prompt``, ``token_ids``, ``completion`` and ``finish_reason``.
        tokenizer: Tokenises the prompts, as generation did.
        vocab_size: Rows of the model's embedding; a larger token id is refused. None checks nothing.
        prompt_ids: Prompt tokens by example id, where they are not simply the tokenised prompt (chat format, a
            prompt that was cut).
        cut_at_stops: Put an end of sequence in place of the stop string where a completion ended at one; else its
            tokens stay as they were sampled.
        solved: Tokens of solved examples at the beginning of the prompt, by example id; None for none anywhere.

    Returns:
        The texts in the order of the records, and counts: ``texts``, ``empty`` (completions without text) and, where
        asked, ``cut_at_stops``.

    Raises:
        UserError: If there is no record, a token id lies outside the vocabulary, or the tokenizer has no end of
            sequence to put in place.
    """
    eos = tokenizer.eos_token_id
    if cut_at_stops and eos is None:
        raise UserError(
            "The tokenizer has no end-of-sequence token to train in place of a stop string. Set stop_eos "
            "(--data.stop_eos) false."
        )
    texts, counts = [], {"texts": 0, "empty": 0, **({"cut_at_stops": 0} if cut_at_stops else {})}
    for record in records:
        completion = tuple(record["token_ids"])
        stopped = record.get("finish_reason") == "stop"
        counts["empty"] += not str(record["completion"]).strip()
        known = (prompt_ids or {}).get(record["id"])
        prompt = encode_prompts(tokenizer, [record["prompt"]])[0] if known is None else tuple(known)
        if not completion and stopped and eos is not None:  # an engine that keeps its last token to itself
            completion = (eos,)
        if cut_at_stops and stopped and eos is not None:
            before = _before_stop(tokenizer, prompt, completion, str(record["completion"]))
            if before is not None:
                completion = (*before, eos)
                counts["cut_at_stops"] += 1
        text = TrainingText(
            f"{record['id']}:{record['sample']}", prompt, completion, (solved or {}).get(record["id"], 0)
        )
        largest = max(text.prompt_ids + text.completion_ids)
        if vocab_size is not None and largest >= vocab_size:
            raise UserError(
                f"Token id {largest} of training text {text.id!r} lies outside the model's vocabulary of {vocab_size}: "
                "corpus or tokenizer belong to another model. Set model_name_or_path (--subspace.model_name_or_path) "
                "to the model that "
                "generated the corpus, or generate it again."
            )
        texts.append(text)
    if not texts:
        raise UserError(
            "The corpus is empty: there is no generation to train on. Set num_prompts (--data.num_prompts) above 0."
        )
    counts["texts"] = len(texts)
    return texts, counts


def _before_stop(
    tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...], ids: tuple[int, ...], completion: str
) -> tuple[int, ...] | None:
    """The tokens of a completion without the stop string behind it; None if no stop string ended it.

    A token that holds the end of the text and the beginning of the string (``".\\n"``) gives way to the tokens of its
    first part; where those do not read the same, it stays whole.
    """
    whole = completion_text(tokenizer, prompt, ids)
    if whole == completion or not whole.startswith(completion):
        return None
    last = len(ids)
    while last and not completion.startswith(completion_text(tokenizer, prompt, ids[:last])):
        last -= 1
    rest = completion[len(completion_text(tokenizer, prompt, ids[:last])) :]
    if not rest:
        return ids[:last]
    parted = (*ids[:last], *completion_ids(tokenizer, (*prompt, *ids[:last]), rest))
    return parted if completion_text(tokenizer, prompt, parted) == completion else ids[: last + 1]


def split_validation(
    texts: list[TrainingText], fraction: float, seed: int
) -> tuple[list[TrainingText], list[TrainingText]]:
    """Hold out the texts of ``fraction`` of the prompts for the validation loss, drawn by the seed.

    All texts of a prompt go together, examples with the same tokens too, so training sees no held-out prompt. At least
    one prompt is held out unless the fraction is 0, and at least one is left to train on.

    Raises:
        UserError: If the fraction is not within [0, 1), or a single prompt cannot be parted.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"val_fraction={fraction} is not a share. Set --data.val_fraction to at least 0 and below 1.")
    prompts = list(dict.fromkeys(t.prompt_ids for t in texts))
    if fraction > 0 and len(prompts) < 2:
        raise UserError(
            f"val_fraction={fraction} holds out prompts, but all {len(texts)} texts have the same one. Raise "
            "num_prompts (--data.num_prompts), or set --data.val_fraction 0."
        )
    held = min(max(round(fraction * len(prompts)), int(fraction > 0)), len(prompts) - 1)
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {prompts[i] for i in order[:held]}
    return [t for t in texts if t.prompt_ids not in chosen], [t for t in texts if t.prompt_ids in chosen]
