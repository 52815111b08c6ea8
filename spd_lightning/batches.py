"""A loader of ready-made batches that Lightning neither reshuffles nor deals out again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Batches(Generic[Batch]):
    """Batches of one process, in order.

    Not a DataLoader, for which Lightning would insert a distributed sampler; not a list, which Lightning would take for
    several loaders.

    Args:
        batches: Formed from the whole list of examples before they were dealt to processes.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
