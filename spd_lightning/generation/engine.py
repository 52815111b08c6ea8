"""Stage 2: batched decoding with transformers models. Rows leave a batch when they are done; none joins.

The result of a batch depends on the batch alone. In float32 it does not depend even on which rows share it: a step so
close that rounding could change its token is decided again from the row alone (see `sampling`). In bf16 the rounding of
a batch is too coarse for that: there, another batch size may give other completions (each a fair draw), so the batch
size is part of what a corpus depends on; processes and interruptions still change nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.generation.cache import (
    PreallocatedCache,
    cache_after,
    empty_cache,
    last_position,
    leaving_moves,
    prefix_states,
    shared_length,
    shares_beginning,
)
from spd_lightning.generation.noise import row_key, step_keys
from spd_lightning.generation.requests import Generation, Request, check_context, form_batches
from spd_lightning.generation.sampling import SamplingParams, choose_tokens
from spd_lightning.generation.text import completion_text, decode
from spd_lightning.model.anatomy import eos_token_ids, eval_mode, input_device
from spd_lightning.model.packed_linear import packed_linears
from spd_lightning.model.short_attention import without_plans
from spd_lightning.scoring.answers_cut import find_stop


@dataclass
class EngineStats:
    """What was done: tokens kept, draws, draws decided again by the row alone, their seconds, forwards, seconds."""

    tokens: int = 0
    draws: int = 0
    redecided: int = 0
    redecided_seconds: float = 0.0
    forwards: int = 0
    seconds: float = 0.0


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[Request],
    params: SamplingParams,
    batch_size: int | None = None,
    token_budget: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    on_batch: Callable[[list[Generation]], None] | None = None,
    finished: Collection[tuple[str, int]] = frozenset(),
    stats: EngineStats | None = None,
) -> list[Generation]:
    """Complete every request of this process's batches.

    Args:
        model: A causal language model; put into eval mode meanwhile.
        tokenizer: The model's.
        requests: All requests, the same list on every process.
        params: Decoding settings.
        batch_size: See `form_batches`.
        token_budget: See `form_batches`.
        rank: This process, 0-based.
        world_size: Number of processes.
        on_batch: Called with the completions of each batch as it ends, e.g. to write them.
        finished: ``(id, sample)`` already done; a batch is skipped if all its rows are, else done again whole.
        stats: Counts are added to it.

    Returns:
        The completions of this process, batch by batch.

    Raises:
        UserError: If a prompt and ``max_new_tokens`` do not fit into the model's context.

    Ranks:
        Batch i goes to rank ``i % world_size``. Issues no collective.
    """
    check_context(model.config, requests, params.max_new_tokens)
    done: list[Generation] = []
    with packed_linears(model):
        for batch in form_batches(requests, batch_size, token_budget, params.max_new_tokens)[rank::world_size]:
            if finished and all((r.id, r.sample) in finished for r in batch):
                continue
            completions = generate_batch(model, tokenizer, batch, params, stats)
            done += completions
            if on_batch is not None:
                on_batch(completions)
    return done


def generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: list[Request],
    params: SamplingParams,
    stats: EngineStats | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """Complete one batch; the result stands in the order of the batch. Arguments and errors as in `generate`.

    ``on_step`` is called after every step with how many there were and the number of rows still open.
    """
    check_context(model.config, batch, params.max_new_tokens)
    start = time.perf_counter()
    stats = stats if stats is not None else EngineStats()
    with torch.inference_mode(), eval_mode(model), packed_linears(model), without_plans():
        decoder = _Decoder(model, tokenizer, batch, params, stats)
        steps = 0
        while decoder.rows:
            decoder.step()
            steps += 1
            if on_step is not None:
                on_step(steps, len(decoder.rows))
    completions = [decoder.generation(i) for i in range(len(batch))]
    stats.tokens += sum(c.num_tokens for c in completions)
    stats.seconds += time.perf_counter() - start
    return completions


class _Decoder:
    """The state of one batch: the rows still open, their cache, and every row's tokens so far."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch: list[Request],
        params: SamplingParams,
        stats: EngineStats,
    ) -> None:
        self.model, self.tokenizer, self.batch, self.params, self.stats = model, tokenizer, batch, params, stats
        self.device: torch.device = input_device(model)
        self.margin = params.margin(model.dtype)
        self.eos = frozenset(eos_token_ids(model, tokenizer))
        # the last tokens that can hold a stop string: a token is at least one byte; a few more against split characters
        self.tail = 4 + max((len(s.encode()) for s in params.stop), default=0)
        self.special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        self.recent = [
            self._visible(r.prompt_ids)[-self.tail :] for r in batch
        ]  # such tokens of each row, prompt first
        self.tokens: list[list[int]] = [[] for _ in batch]
        self.stopped = [False] * len(batch)
        self.rows = list(range(len(batch)))  # index into the batch of each open row, in the order of the cache
        self.row_keys = [row_key(params.seed, r.id, r.sample) for r in batch]

        width = max(len(r.prompt_ids) for r in batch)
        capacity = width + params.max_new_tokens
        padding = [width - len(r.prompt_ids) for r in batch]
        ids = torch.full((len(batch), width), tokenizer.pad_token_id or 0)
        mask = torch.zeros(len(batch), capacity, dtype=torch.bool)
        for i, r in enumerate(batch):  # left padding: every row's next token stands in the same column
            ids[i, padding[i] :] = torch.tensor(r.prompt_ids)
            mask[i, padding[i] :] = True
        # solved examples, say: run once for all rows
        shared = shared_length([r.prompt_ids for r in batch]) if shares_beginning(model) else 0
        self.length = width
        self.mask = mask.to(self.device)
        self.positions = (self.mask[:, :width].cumsum(-1) - 1).clamp(min=0)[:, shared:]
        self.input_ids = ids[:, shared:].to(self.device)
        self.history: Tensor | None = None  # every row's tokens so far; elsewhere the last of its prompt
        if params.repetition_penalty != 1:
            self.history = ids[:, -1:].repeat(1, capacity)
            self.history[:, :width] = torch.where(mask[:, :width], ids, ids[:, -1:])
            self.history = self.history.to(self.device)
        if shared:
            prefix = torch.tensor([batch[0].prompt_ids[:shared]], device=self.device)
            self.cache = cache_after(model, prefix_states(model, prefix), padding, capacity)
        else:
            self.cache = empty_cache(model, capacity)

    def step(self) -> None:
        """One forward of the open rows, one token for each; rows that are done leave."""
        logits = _batched_logits(
            self.model, self.input_ids, self.mask[:, : self.length], self.positions, self.cache
        ).float()
        step = len(self.tokens[self.rows[0]])
        keys = step_keys([self.row_keys[i] for i in self.rows], step, logits.device)
        history = None if self.history is None else self.history[:, : self.length].to(logits.device)
        tokens, close = choose_tokens(logits, self.params, keys, self.margin, history)
        chosen = tokens.tolist()
        if self.margin > 0:
            for slot in close.nonzero().flatten().tolist():
                chosen[slot] = self._decide_alone(self.rows[slot], keys[slot : slot + 1])
        self.stats.draws += len(chosen)
        self.stats.forwards += 1
        alive = [self._append(i, token) for i, token in zip(self.rows, chosen)]
        self.input_ids = torch.tensor(chosen, device=self.device)[:, None]
        self.positions = self.positions[:, -1:] + 1
        if self.history is not None:
            self.history[:, self.length] = self.input_ids[:, 0]
        self.length += 1
        if not all(alive):
            self._leave(alive)

    def generation(self, i: int) -> Generation:
        """The completion of row i of the batch."""
        request, ids = self.batch[i], self.tokens[i]
        text = completion_text(self.tokenizer, request.prompt_ids, ids)
        cut = find_stop(text, self.params.stop)
        reason: Literal["stop", "length"] = "stop" if self.stopped[i] else "length"
        return Generation(
            request.id, request.sample, request.prompt, text[:cut], tuple(ids), len(ids), reason, self.params.seed
        )

    def _append(self, i: int, token: int) -> bool:
        """Add a token to row i; whether the row stays open."""
        ids = self.tokens[i]
        ids.append(token)
        self.stopped[i] = token in self.eos or self._completes_stop(i)
        return not self.stopped[i] and len(ids) < self.params.max_new_tokens

    def _completes_stop(self, i: int) -> bool:
        """Whether row i holds a stop string now. The whole is read only where the last tokens seem to end one."""
        if not self.params.stop:
            return False
        self.recent[i] = (self.recent[i] + self._visible(self.tokens[i][-1:]))[-self.tail :]
        if find_stop(decode(self.tokenizer, self.recent[i]), self.params.stop) is None:
            return False
        text = completion_text(self.tokenizer, self.batch[i].prompt_ids, self.tokens[i])
        return find_stop(text, self.params.stop) is not None

    def _visible(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token not in self.special]

    def _decide_alone(self, i: int, keys: Tensor) -> int:
        """The next token of row i from a forward of that row alone: unpadded, without cache."""
        start = time.perf_counter()
        ids = torch.tensor([[*self.batch[i].prompt_ids, *self.tokens[i]]], device=self.device)
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]
        token, _ = choose_tokens(logits, self.params, keys.to(logits.device), history=ids.to(logits.device))
        self.stats.redecided += 1
        self.stats.redecided_seconds += time.perf_counter() - start
        return int(token)

    def _leave(self, alive: list[bool]) -> None:
        moves, order = leaving_moves(alive)
        self.rows = [self.rows[slot] for slot in order]
        if not self.rows:
            return
        self.cache.keep_rows(moves, len(order))
        index = torch.tensor(order, device=self.device)
        self.mask, self.positions, self.input_ids = self.mask[index], self.positions[index], self.input_ids[index]
        self.history = None if self.history is None else self.history[index]


def _batched_logits(
    model: PreTrainedModel, input_ids: Tensor, mask: Tensor, positions: Tensor, cache: PreallocatedCache
) -> Tensor:
    """Logits of the next token of every row, ``[b, v]``; computed at the last position only.

    That position is given as an index, which makes its hidden states contiguous. A slice of them (``logits_to_keep=1``)
    would make the vocabulary projection copy its weight once for every row.
    """
    last = last_position(model, input_ids)
    output = model(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=last,
    )
    return output.logits[:, -1]
