"""Stage 4: prompts and continuations as rows of tokens, cut to the context and put into batches.

Prompt and continuation are tokenised as one text, and the tokens that reach into the continuation are read, so nothing
depends on whether " A" is one token. Where all continuations of a question are single tokens after the same context,
one row stands for them all.

Batches are formed from the whole list in a canonical order (group, length, id) before they are dealt to processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from spd_lightning.generation.requests import truncate

TOKEN_BUDGET = 4096  # padded positions of a batch: enough to keep the matrix products large, small enough for a laptop
LOGIT_BUDGET = 1 << 26  # logits of a batch (256 MB in float32)
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
class _Sequence:
    """Tokens of a prompt and a continuation: the first of the continuation, and how many special ones stand before."""

    ids: np.ndarray
    first: int
    prefix: int


@dataclass(frozen=True)
class Row:
    """One sequence to run. ``lookups``: (which of ``positions``, token, choice) whose log-probabilities are summed."""

    ids: np.ndarray
    positions: tuple[int, ...]
    lookups: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Work:
    """The rows of one item: one if its continuations are single tokens after one context, else one a continuation."""

    item: LikelihoodItem
    rows: tuple[Row, ...]
    num_tokens: tuple[int, ...]
    truncated: bool

    @property
    def length(self) -> int:
        return max(len(row.ids) for row in self.rows)


def tokenise(
    tokenizer: PreTrainedTokenizerBase, items: list[LikelihoodItem], max_length: int | None, step: int = 64
) -> list[Work]:
    """The rows of every item; see `score_choices`.

    Raises:
        ValueError: If a continuation has no tokens.
    """
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


def work_of_tokens(
    id: str, prompt: Sequence[int], continuation: Sequence[int], group: str = "", max_length: int | None = None
) -> Work:
    """The row of a text whose tokens are known, e.g. as they were sampled.

    Args:
        id: Of the text.
        prompt: Its tokens, special ones included, at least one.
        continuation: The tokens that are read, at least one.
        group: See `LikelihoodItem`.
        max_length: Context of the model; a longer text loses the middle of its prompt.
    """
    ids = np.asarray([*prompt, *continuation], dtype=np.int32)
    sequence = _Sequence(ids, len(prompt), 1)  # what stands first may be special
    return _make_work(LikelihoodItem(id, "", ("",), group), [sequence], max_length)


def _sequence(ids: list[int], offsets: list[tuple[int, int]], special: list[int], prompt_length: int) -> _Sequence:
    """Prompt and continuation without the special tokens behind them; the continuation reaches past the prompt."""
    end = len(ids) - (special[::-1].index(0) if 0 in special else len(ids))
    first = end
    while first and offsets[first - 1][1] > prompt_length:
        first -= 1
    prefix = special.index(0) if 0 in special else 0
    return _Sequence(np.asarray(ids[:end], dtype=np.int32), max(first, 1), prefix)  # nothing predicts the very first


def _make_work(item: LikelihoodItem, sequences: list[_Sequence], max_length: int | None) -> Work:
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
        rows: tuple[Row, ...] = (Row(context, (len(context) - 1,), lookups),)
    else:
        rows = tuple(
            Row(
                ids[:-1],
                tuple(range(first - 1, len(ids) - 1)),
                tuple((i, int(token), choice) for i, token in enumerate(ids[first:])),
            )
            for choice, (ids, first) in enumerate(kept)
        )
    return Work(item, rows, num_tokens, truncated)


def form_batches(
    work: list[Work], batch_size: int | None, token_budget: int, vocabulary: int, share: bool
) -> Iterator[tuple[np.ndarray, list[Work]]]:
    """Pairs of (shared prefix, items), in an order that depends on the whole list alone.

    Args:
        work: Everything, the same list on every process.
        batch_size: Most items of a batch.
        token_budget: Most padded positions of a batch, those of the prefix not counted.
        vocabulary: Logits of a position; at most `LOGIT_BUDGET` of them are in a batch.
        share: Whether the model can go on from a prefix that was run once (`generation.cache.shares_beginning`).
    """
    groups: dict[str, list[Work]] = {}
    for w in work:
        groups.setdefault("" if w.truncated else w.item.group, []).append(w)
    for name, members in groups.items():
        prefix = _shared_prefix(members) if share and name and len(members) > 1 else np.empty(0, np.int32)
        batch: list[Work] = []
        rows = logits = 0
        for w in sorted(members, key=lambda w: (w.length, w.item.id)):  # the newest is the longest of its batch
            more_rows = rows + len(w.rows)
            more_logits = logits + sum(len(row.positions) for row in w.rows)
            full = batch and (
                (batch_size is not None and len(batch) >= batch_size)
                or more_rows * (w.length - len(prefix)) > token_budget
                or more_logits * vocabulary > LOGIT_BUDGET
            )
            if full:
                yield prefix, batch
                batch, more_rows, more_logits = [], len(w.rows), sum(len(row.positions) for row in w.rows)
            batch.append(w)
            rows, logits = more_rows, more_logits
        if batch:
            yield prefix, batch


def _shared_prefix(members: list[Work]) -> np.ndarray:
    """The tokens that every row of a group begins with, up to the token before the first scored position."""
    first = members[0].rows[0].ids
    length = min(row.positions[0] for w in members for row in w.rows)
    for w in members:
        for row in w.rows:
            differs = np.flatnonzero(row.ids[:length] != first[:length])
            length = int(differs[0]) if len(differs) else length
    return first[: length if length >= _MIN_SHARED else 0]
