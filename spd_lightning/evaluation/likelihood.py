"""Stage 4: log-likelihoods of given continuations: the four letters of a question, or a whole target.

What is run is made in ``continuations.py``. A prefix that the questions of a group share (solved examples) is computed
once and kept as keys and values. The vocabulary projection runs at the scored positions alone, in float32.
Shapes: b rows, s positions, p scored positions of a batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.evaluation.continuations import TOKEN_BUDGET, LikelihoodItem, Work, form_batches, tokenise
from spd_lightning.generation.cache import cache_after, prefix_states, shares_beginning
from spd_lightning.model.adapter_beside import LinearBeside
from spd_lightning.model.anatomy import head_at, input_device
from spd_lightning.model.packed_linear import packed_linears

_HEAD_ROWS = 1 << 15  # rows of the vocabulary projection that are cast to float32 at a time


@dataclass(frozen=True)
class LikelihoodScore:
    """Summed log-likelihood (nats) and number of tokens of each continuation; whether the prompt lost tokens."""

    id: str
    log_likelihoods: tuple[float, ...]
    num_tokens: tuple[int, ...]
    truncated: bool = False


def score_choices(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: list[LikelihoodItem],
    *,
    batch_size: int | None = None,
    token_budget: int = TOKEN_BUDGET,
    max_length: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    on_batch: Callable[[list[LikelihoodScore]], None] | None = None,
) -> list[LikelihoodScore]:
    """Log-likelihood of every continuation of this process's items.

    Args:
        model: A causal language model in eval mode.
        tokenizer: The model's, with character offsets.
        items: All items, the same list on every process.
        batch_size: Most items of a batch; None for as many as the budget holds.
        token_budget: Most padded positions of a batch, those of a shared prefix not counted.
        max_length: Context of the model in tokens; a longer text loses the middle of its prompt, never the special
            tokens before it. None for no limit.
        rank: This process, 0-based.
        world_size: Number of processes.
        on_batch: Called with the scores of each batch, e.g. for a progress bar.

    Returns:
        The scores of this process, batch by batch.

    Raises:
        ValueError: If a continuation has no tokens.

    Ranks:
        Batch i goes to rank ``i % world_size``. Issues no collective.
    """
    work = tokenise(tokenizer, items, max_length)
    vocabulary = model.config.get_text_config().vocab_size
    batches = list(form_batches(work, batch_size, token_budget, vocabulary, shares_beginning(model)))
    scores: list[LikelihoodScore] = []
    shared: dict[int, tuple[Tensor, Tensor]] = {}
    shared_ids: np.ndarray | None = None
    with torch.inference_mode(), packed_linears(model):
        for prefix, batch in batches[rank::world_size]:
            if len(prefix) and (shared_ids is None or not np.array_equal(prefix, shared_ids)):
                ids = torch.from_numpy(prefix.astype(np.int64))[None].to(input_device(model))
                shared, shared_ids = prefix_states(model, ids), prefix
            found = _score_batch(model, batch, shared if len(prefix) else {}, len(prefix))
            scores += found
            if on_batch is not None:
                on_batch(found)
    return scores


def batch_logits(
    model: PreTrainedModel, batch: list[Work], shared: Mapping[int, tuple[Tensor, Tensor]], skip: int
) -> Tensor:
    """Logits ``[p, vocab]``, float32, at the positions of every row, row by row.

    Args:
        model: A causal language model in eval mode.
        batch: Its rows all begin with the same ``skip`` tokens.
        shared: `prefix_states` of these.
        skip: Their number.
    """
    rows = [row for w in batch for row in w.rows]
    width = max(len(row.ids) for row in rows) - skip
    device = input_device(model)
    ids = torch.zeros(len(rows), width, dtype=torch.long)  # right padding: no real token ever sees it
    for i, row in enumerate(rows):
        ids[i, : len(row.ids) - skip] = torch.from_numpy(row.ids[skip:].astype(np.int64))
    where = [(i, p - skip) for i, row in enumerate(rows) for p in row.positions]
    row_of, position_of = torch.tensor(where, device=device).T
    cache = cache_after(model, shared, [0] * len(rows), skip + width) if skip else None
    with head_at(model, row_of, position_of), _head_in_float32(model):
        output = model(input_ids=ids.to(device), past_key_values=cache, use_cache=cache is not None)
    logits: Tensor = output.logits[0].float()
    return logits


def lookups(batch: list[Work]) -> list[tuple[int, int]]:
    """Which row of `batch_logits` predicts which token, in the order of items, rows and tokens."""
    rows = [row for w in batch for row in w.rows]
    starts = np.cumsum([0, *(len(row.positions) for row in rows)])
    return [(int(starts[i]) + p, token) for i, row in enumerate(rows) for p, token, _ in row.lookups]


def _score_batch(
    model: PreTrainedModel, batch: list[Work], shared: Mapping[int, tuple[Tensor, Tensor]], skip: int
) -> list[LikelihoodScore]:
    """Scores of a batch whose rows all begin with the ``skip`` tokens that ``shared`` holds."""
    logits = batch_logits(model, batch, shared, skip)
    normaliser = logits.logsumexp(-1)
    at, tokens = torch.tensor(lookups(batch), device=logits.device).T
    values = iter((logits[at, tokens] - normaliser[at]).double().tolist())
    scores = []
    for w in batch:
        sums = [0.0] * len(w.item.choices)
        for row in w.rows:
            for _, _, choice in row.lookups:
                sums[choice] += next(values)
        scores.append(LikelihoodScore(w.item.id, tuple(sums), w.num_tokens, w.truncated))
    return scores


@contextlib.contextmanager
def _head_in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Let the vocabulary projection's product be float32 whatever the model's dtype.

    bf16 logits stand in steps of 1/16 or 1/8, so that the two best letters of a question are often equal.
    """

    def precise(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if type(module) not in (torch.nn.Linear, LinearBeside) or output.dtype == torch.float32:
            return None
        hidden = (module.widen(args[0]) if isinstance(module, LinearBeside) else args[0]).float()
        bias = None if module.bias is None else module.bias.float()
        parts = [F.linear(hidden, weight.float()) for weight in module.weight.split(_HEAD_ROWS)]
        return torch.cat(parts, -1) if bias is None else torch.cat(parts, -1) + bias

    handle = model.get_output_embeddings().register_forward_hook(precise)
    try:
        yield
    finally:
        handle.remove()
