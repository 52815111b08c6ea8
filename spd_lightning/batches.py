"""A loader of ready-made batches that Lightning neither reshuffles nor deals out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any


class Batches:
    """Batches of one process, in order.

    Not a DataLoader, for which Lightning would insert a distributed sampler; not a list, which Lightning would take for
    several loaders.

    Args:
        batches: Formed from the whole list of examples before they were dealt to processes.
        make: Makes of each what a step is given (padded tensors, say), when it is asked for.
    """

    def __init__(self, batches: Sequence[Any], make: Callable[[Any], Any] = lambda batch: batch) -> None:
        self.batches, self.make = batches, make

    def __iter__(self) -> Iterator[Any]:
        return map(self.make, self.batches)

    def __len__(self) -> int:
        return len(self.batches)
