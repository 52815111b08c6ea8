"""Stage 2: a key-value cache whose memory is taken once, and from which rows can leave.

transformers' own growing cache copies everything at every step; here a step writes one column in place. A row that is
done is overwritten by the last one, so leaving costs the copy of one row. What convolutions and recurrent layers carry
from token to token is kept by transformers' own layers; it is small. Shapes: b rows, h key/value heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

from spd_lightning.errors import UserError
from spd_lightning.model.anatomy import cache_layers, recurrent_layers

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

    def keep_rows(self, moves: list[tuple[int, int]], rows: int) -> None:
        """See `PreallocatedCache.keep_rows`."""
        if not self.is_initialized:
            return
        for states in (self.keys, self.values):
            for source, target in moves:
                states[target, :, : self.length] = states[source, :, : self.length]
        self.rows = rows


class _LayerWithState(LinearAttentionLayer, _Layer):  # type: ignore[override]
    """Keys and values beside the state of a recurrent part (Falcon-H1, Zamba2)."""

    def __init__(self, capacity: int, number_of_states: int) -> None:
        _Layer.__init__(self, capacity)
        LinearAttentionLayer.__init__(self, number_of_states)

    def lazy_initialization(self, *args: Tensor, **states: Any) -> None:  # type: ignore[override]
        """Of keys and values, which come by position, or of a state, which comes by name."""
        if args:
            _Layer.lazy_initialization(self, *args)
        else:
            LinearAttentionLayer.lazy_initialization(self, **states)

    def keep_rows(self, moves: list[tuple[int, int]], rows: int) -> None:
        """See `PreallocatedCache.keep_rows`."""
        _Layer.keep_rows(self, moves, rows)
        _keep_states(self, moves, rows)


def _keep_states(layer: Any, moves: list[tuple[int, int]], rows: int) -> None:
    """Rows of the states of a recurrent layer; it has no row for what it has not met."""
    order = list(range(rows))
    for source, target in moves:
        order[target] = source
    LinearAttentionLayer.reorder_cache(layer, torch.tensor(order))  # type: ignore[arg-type]


class PreallocatedCache(Cache):
    """Cache of a batch whose rows may leave.

    Args:
        kinds: transformers' own cache layers, as `model.anatomy.cache_layers` gives them: what each decoder layer has
            to keep.
        capacity: Positions a row can hold: padded prompt and new tokens.

    Raises:
        UserError: For a kind that rows could not leave.
    """

    def __init__(self, kinds: Sequence[Any], capacity: int) -> None:
        layers = [_own_layer(kind, capacity) for kind in kinds]
        self.attention: list[tuple[int, _Layer]] = [(i, x) for i, x in enumerate(layers) if isinstance(x, _Layer)]
        super().__init__(layers=layers)

    def keep_rows(self, moves: list[tuple[int, int]], rows: int) -> None:
        """Copy row ``a`` over row ``b`` for every ``(a, b)`` of ``moves``, then keep the first ``rows`` rows."""
        for layer in self.layers:
            if isinstance(layer, _Layer):
                layer.keep_rows(moves, rows)
            elif isinstance(layer, LinearAttentionCacheLayerMixin):
                _keep_states(layer, moves, rows)


def _own_layer(kind: Any, capacity: int) -> Any:
    """What keeps a decoder layer's part of the cache: ours for attention, transformers' own for a state alone."""
    if isinstance(kind, LinearAttentionCacheLayerMixin):
        return _LayerWithState(capacity, kind.number_of_states) if isinstance(kind, CacheLayerMixin) else kind
    if isinstance(kind, DummyLayer):  # no attention, or keys and values of an earlier layer
        return kind
    if type(kind) in (DynamicLayer, DynamicSlidingWindowLayer):
        return _Layer(capacity)
    raise UserError(
        f"Layers whose cache is a {type(kind).__name__} cannot generate here: rows cannot leave a batch. Set "
        "model_name_or_path (--subspace.model_name_or_path) to one of another type (see docs/models.md)."
    )


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
    return PreallocatedCache(cache_layers(model.config), capacity)


def shares_beginning(model: torch.nn.Module) -> bool:
    """Whether rows can go on from a text that was run once: not where a layer carries a state from token to token."""
    return not recurrent_layers(model.config)


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


def prefix_states(model: torch.nn.Module, ids: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """Keys and values of a text ``[1, s]``, by layer that has its own, each ``[1, h, s, head_dim]``."""
    cache = empty_cache(model, ids.shape[1])
    last = last_position(model, ids)  # its logits are not used; the others not even computed
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=last)
    return {i: (layer.keys, layer.values) for i, layer in cache.attention if layer.is_initialized}


def cache_after(
    model: torch.nn.Module, shared: Mapping[int, tuple[Tensor, Tensor]], starts: Sequence[int], capacity: int
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
    for i, layer in cache.attention:
        if i not in shared:  # a layer that borrows from another and is not marked so
            continue
        states = shared[i]
        layer.update(*(part.expand(len(starts), -1, -1, -1) for part in states))
        for own, part in zip((layer.keys, layer.values), states):
            for row, start in enumerate(starts):
                if 0 < start < layer.length:
                    own[row, :, start : layer.length] = part[0, :, : layer.length - start]
    return cache
