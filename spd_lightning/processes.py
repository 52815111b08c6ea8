"""The processes of a run: which one writes, how they take one decision, and how each is given its portion.

Nothing in here needs Lightning, and PyTorch is not loaded for a command that needs none of it. How processes end, and
that they end together, is in `cli.lifetime`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from lightning_utilities.core.rank_zero import rank_zero_only

T = TypeVar("T")
PARENT = "SPD_END_WITH_PARENT"  # variable: the process id with which a program ends (`cli.lifetime.end_with_parent`)


def rank() -> int:
    """This process's rank; known before any process group is made."""
    return int(getattr(rank_zero_only, "rank", None) or 0)


def is_rank_zero() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def several() -> bool:
    """Whether there is a process group to talk in."""
    if "torch" not in sys.modules:
        return False
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def world_size() -> int:
    """How many take part; 1 where there is no process group."""
    if not several():
        return 1
    from torch import distributed

    return distributed.get_world_size()


def barrier() -> None:
    """Wait for all processes; nothing with one."""
    if several():
        from torch import distributed

        distributed.barrier()


def agree(value: T) -> T:
    """Rank 0's value, on every process.

    What stands on the disk may change between two looks (another run shares the store), so only one process looks.

    Ranks:
        Collective; every process calls it, with any value.
    """
    if not several():
        return value
    from torch import distributed

    box: list[Any] = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather(part: list[T]) -> list[list[T]]:
    """Every process's list, in order of rank.

    Ranks:
        Collective; every process calls it, with its own part.
    """
    if not several():
        return [part]
    from torch import distributed

    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, part)
    return parts


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
