"""Stage 4: log-likelihoods of given continuations: the four letters of a question, or a whole target.

Prompt and continuation are tokenised as one text, and the tokens that reach into the continuation are scored, so
nothing depends on whether " A" is one token. Where all continuations of a question are single tokens after the same
context, one forward scores them all. A prefix that the questions of a group share (solved examples) is computed once
and kept as keys and values. The vocabulary projection runs at the scored positions alone, in float32.

Batches are formed from the whole list in a canonical order (group, length, id) before they are dealt to processes.
Shapes: b rows, s positions, p scored positions of a batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.generation.cache import cache_after, prefix_states
from spd_lightning.generation.requests import truncate
from spd_lightning.model.adapter_beside import LinearBeside
from spd_lightning.model.anatomy import head_at, input_device
from spd_lightning.model.packed_linear import packed_linears

TOKEN_BUDGET = 4096  # padded positions of a batch: enough to keep the matrix products large, small enough for a laptop
_LOGIT_BUDGET = 1 << 26  # logits of a batch (256 MB in float32)
_HEAD_ROWS = 1 << 15  # rows of the vocabulary projection that are cast to float32 at a time
_MIN_SHARED = 16  # a shared prefix below this many tokens is not worth a forward of its own


@dataclass(frozen=True)
class LikelihoodItem:
    """A question with continuations to compare; prompt and continuation are joined with nothing between.

    Items of one ``group`` (the text of their solved examples) share the longest token prefix they have in common.
    """

    id: str
    prompt: str
    choices: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True)
class LikelihoodScore:
    """Summed log-likelihood (nats) and number of tokens of each continuation; whether the prompt lost tokens."""

    id: str
    log_likelihoods: tuple[float, ...]
    num_tokens: tuple[int, ...]
    truncated: bool = False


@dataclass(frozen=True)
class _Sequence:
    """Tokens of a prompt and a continuation: the first of the continuation, and how many special ones stand before."""

    ids: np.ndarray
    first: int
    prefix: int


@dataclass(frozen=True)
class _Row:
    """One sequence to run. ``lookups``: (which of ``positions``, token, choice) whose log-probabilities are summed."""

    ids: np.ndarray
    positions: tuple[int, ...]
    lookups: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class _Work:
    """The rows of one item: one if its continuations are single tokens after one context, else one a continuation."""

    item: LikelihoodItem
    rows: tuple[_Row, ...]
    num_tokens: tuple[int, ...]
    truncated: bool

    @property
    def length(self) -> int:
        return max(len(row.ids) for row in self.rows)


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
    work = _tokenise(tokenizer, items, max_length)
    vocabulary = model.config.get_text_config().vocab_size
    batches = list(_form_batches(work, batch_size, token_budget, vocabulary))
    scores: list[LikelihoodScore] = []
    shared: list[tuple[Tensor, Tensor]] = []
    shared_ids: np.ndarray | None = None
    with torch.inference_mode(), packed_linears(model):
        for prefix, batch in batches[rank::world_size]:
            if len(prefix) and (shared_ids is None or not np.array_equal(prefix, shared_ids)):
                ids = torch.from_numpy(prefix.astype(np.int64))[None].to(input_device(model))
                shared, shared_ids = prefix_states(model, ids), prefix
            found = _score_batch(model, batch, shared if len(prefix) else [], len(prefix))
            scores += found
            if on_batch is not None:
                on_batch(found)
    return scores


def _tokenise(
    tokenizer: PreTrainedTokenizerBase, items: list[LikelihoodItem], max_length: int | None, step: int = 64
) -> list[_Work]:
    work = []
    for start in range(0, len(items), step):
        part = items[start : start + step]
        texts = [item.prompt + choice for item in part for choice in item.choices]
        options = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "verbose": False}
        encoded = tokenizer(texts, **options) if texts else {}
        at = 0
        for item in part:
            sequences: list[_Sequence] = []
            for choice in item.choices:
                ids, offsets = encoded["input_ids"][at], encoded["offset_mapping"][at]
                sequence = _sequence(ids, offsets, encoded["special_tokens_mask"][at], len(item.prompt))
                if sequence.first >= len(sequence.ids):
                    raise ValueError(f"Item {item.id!r}: the continuation {choice!r} has no tokens.")
                sequences.append(sequence)
                at += 1
            work.append(_make_work(item, sequences, max_length))
    return work


def _sequence(ids: list[int], offsets: list[tuple[int, int]], special: list[int], prompt_length: int) -> _Sequence:
    """Prompt and continuation without the special tokens behind them; the continuation reaches past the prompt."""
    end = len(ids) - (special[::-1].index(0) if 0 in special else len(ids))
    first = end
    while first and offsets[first - 1][1] > prompt_length:
        first -= 1
    prefix = special.index(0) if 0 in special else 0
    return _Sequence(np.asarray(ids[:end], dtype=np.int32), max(first, 1), prefix)  # nothing predicts the very first


def _make_work(item: LikelihoodItem, sequences: list[_Sequence], max_length: int | None) -> _Work:
    truncated = False
    kept = []
    for s in sequences:  # the last token is predicted, never read: max_length + 1 fit
        limit = len(s.ids) if max_length is None else max_length + 1
        truncated |= len(s.ids) > limit
        scored = len(s.ids) - s.first
        if s.prefix + scored < limit:
            ids = truncate(s.ids.tolist(), limit, "middle", s.prefix, scored)
        else:  # a continuation that is too long by itself loses its first tokens
            ids = truncate(s.ids.tolist(), limit, "start", min(s.prefix, limit - 1))
        kept.append((np.asarray(ids, dtype=np.int32), max(len(ids) - scored, 1, s.prefix)))
    num_tokens = tuple(len(ids) - first for ids, first in kept)
    context = kept[0][0][: kept[0][1]]
    if all(n == 1 and np.array_equal(ids[:first], context) for n, (ids, first) in zip(num_tokens, kept)):
        lookups = tuple((0, int(ids[-1]), choice) for choice, (ids, _) in enumerate(kept))
        rows: tuple[_Row, ...] = (_Row(context, (len(context) - 1,), lookups),)
    else:
        rows = tuple(
            _Row(
                ids[:-1],
                tuple(range(first - 1, len(ids) - 1)),
                tuple((i, int(token), choice) for i, token in enumerate(ids[first:])),
            )
            for choice, (ids, first) in enumerate(kept)
        )
    return _Work(item, rows, num_tokens, truncated)


def _form_batches(
    work: list[_Work], batch_size: int | None, token_budget: int, vocabulary: int
) -> Iterator[tuple[np.ndarray, list[_Work]]]:
    """Pairs of (shared prefix, items), in an order that depends on the whole list alone."""
    groups: dict[str, list[_Work]] = {}
    for w in work:
        groups.setdefault("" if w.truncated else w.item.group, []).append(w)
    for name, members in groups.items():
        prefix = _shared_prefix(members) if name and len(members) > 1 else np.empty(0, np.int32)
        batch: list[_Work] = []
        rows = logits = 0
        for w in sorted(members, key=lambda w: (w.length, w.item.id)):  # the newest is the longest of its batch
            more_rows = rows + len(w.rows)
            more_logits = logits + sum(len(row.positions) for row in w.rows)
            full = batch and (
                (batch_size is not None and len(batch) >= batch_size)
                or more_rows * (w.length - len(prefix)) > token_budget
                or more_logits * vocabulary > _LOGIT_BUDGET
            )
            if full:
                yield prefix, batch
                batch, more_rows, more_logits = [], len(w.rows), sum(len(row.positions) for row in w.rows)
            batch.append(w)
            rows, logits = more_rows, more_logits
        if batch:
            yield prefix, batch


def _shared_prefix(members: list[_Work]) -> np.ndarray:
    """The tokens that every row of a group begins with, up to the token before the first scored position."""
    first = members[0].rows[0].ids
    length = min(row.positions[0] for w in members for row in w.rows)
    for w in members:
        for row in w.rows:
            differs = np.flatnonzero(row.ids[:length] != first[:length])
            length = int(differs[0]) if len(differs) else length
    return first[: length if length >= _MIN_SHARED else 0]


def _score_batch(
    model: PreTrainedModel, batch: list[_Work], shared: list[tuple[Tensor, Tensor]], skip: int
) -> list[LikelihoodScore]:
    """Scores of a batch whose rows all begin with the ``skip`` tokens that ``shared`` holds."""
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
    logits = output.logits[0].float()  # [p, vocab]
    normaliser = logits.logsumexp(-1)
    starts = np.cumsum([0, *(len(row.positions) for row in rows)])
    flat = [(int(starts[i]) + p, token) for i, row in enumerate(rows) for p, token, _ in row.lookups]
    at, tokens = torch.tensor(flat, device=device).T
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
