"""Stage 2: a key-value cache whose memory is taken once, and from which rows can leave.

transformers' own growing cache copies everything at every step; here a step writes one column in place. A row that is
done is overwritten by the last one, so leaving costs the copy of one row. Shapes: b rows, h key/value heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

MIN_SHARED = 64  # a prefix of fewer tokens is not worth a forward of its own


class _Layer(CacheLayerMixin):
    """Keys and values of one decoder layer, ``[b, h, capacity, head_dim]``; ``length`` positions are filled."""

    is_sliding = False  # every position is kept; a sliding window is the mask's matter

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys: Any = None
        self.values: Any = None
        self.capacity = capacity
        self.length = 0
        self.rows = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        b, h, _, head_dim = key_states.shape
        self.keys = key_states.new_empty(b, h, self.capacity, head_dim)
        self.values = value_states.new_empty(b, h, self.capacity, value_states.shape[-1])
        self.rows = b
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self.length, self.length + key_states.shape[-2]
        keys, values = self.keys[: self.rows], self.values[: self.rows]
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.capacity


class PreallocatedCache(Cache):
    """Key-value cache of a batch whose rows may leave.

    Args:
        num_layers: Decoder layers.
        capacity: Positions a row can hold: padded prompt and new tokens.
    """

    def __init__(self, num_layers: int, capacity: int) -> None:
        self.own_layers = [_Layer(capacity) for _ in range(num_layers)]
        super().__init__(layers=list(self.own_layers))

    def keep_rows(self, moves: list[tuple[int, int]], rows: int) -> None:
        """Copy row ``a`` over row ``b`` for every ``(a, b)`` of ``moves``, then keep the first ``rows`` rows."""
        for layer in self.own_layers:
            if not layer.is_initialized:
                continue
            for states in (layer.keys, layer.values):
                for source, target in moves:
                    states[target, :, : layer.length] = states[source, :, : layer.length]
            layer.rows = rows


def leaving_moves(alive: list[bool]) -> tuple[list[tuple[int, int]], list[int]]:
    """How rows close ranks: moves ``(from, to)`` and the old index of each row that stays, in its new order.

    >>> leaving_moves([True, False, True, True])
    ([(3, 1)], [0, 3, 2])
    """
    order = [i for i, a in enumerate(alive) if a]
    rows = len(order)
    movers = [i for i in order if i >= rows]
    holes = [i for i in range(rows) if not alive[i]]
    moves = list(zip(movers, holes))
    source = {hole: mover for mover, hole in moves}
    return moves, [source.get(i, i) for i in range(rows)]


def empty_cache(model: torch.nn.Module, capacity: int) -> PreallocatedCache:
    """A cache that fits a model."""
    config: Any = model.config
    return PreallocatedCache(config.get_text_config().num_hidden_layers, capacity)


def shared_length(rows: Sequence[tuple[int, ...]]) -> int:
    """How many first tokens all rows have in common, at least one of each row not counted; 0 below `MIN_SHARED`.

    >>> shared_length([(7,) * 80 + (1, 2), (7,) * 80 + (1, 3), (7,) * 81 + (4,)])
    80
    """
    if len(rows) < 2:
        return 0
    first, last = min(rows), max(rows)  # in the order of a dictionary these two differ the earliest
    shortest = min(len(row) for row in rows)
    length = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), shortest)
    return length if (length := min(length, shortest - 1)) >= MIN_SHARED else 0


def last_position(model: torch.nn.Module, ids: Tensor) -> Tensor | int:
    """The last position of token ids ``[b, s]`` as a model's ``logits_to_keep``.

    An index; but a count where the model is spread over devices, of which an index could only be on one.
    """
    return 1 if hasattr(model, "hf_device_map") else torch.tensor([ids.shape[1] - 1], device=ids.device)


def prefix_states(model: torch.nn.Module, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of a text ``[1, s]``, per layer, each ``[1, h, s, head_dim]``."""
    cache = empty_cache(model, ids.shape[1])
    last = last_position(model, ids)  # its logits are not used; the others not even computed
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=last)
    return [(layer.keys, layer.values) for layer in cache.own_layers]


def cache_after(
    model: torch.nn.Module, shared: list[tuple[Tensor, Tensor]], starts: Sequence[int], capacity: int
) -> PreallocatedCache:
    """A cache whose first s positions are filled: row i holds the shared text from position ``starts[i]`` on.

    What is before a row's start is padding; what no longer fits behind it is left for the next forward to run again.

    Args:
        model: The model.
        shared: Keys and values of `prefix_states`, s positions.
        starts: Padding of each row, in positions.
        capacity: Positions a row can hold.
    """
    cache = empty_cache(model, capacity)
    for layer, states in zip(cache.own_layers, shared, strict=True):
        layer.update(*(part.expand(len(starts), -1, -1, -1) for part in states))
        for own, part in zip((layer.keys, layer.values), states):
            for row, start in enumerate(starts):
                if 0 < start < layer.length:
                    own[row, :, start : layer.length] = part[0, :, : layer.length - start]
    return cache
