"""``python -m tests.integration.counting COMMAND ...``: the command line, with every collective counted.

Each rank writes ``<SPD_TEST_COUNTS>-<rank>.json``: rows of stage, collective, bytes. DDP's own exchange of gradients,
which does not pass through Python, is not among them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch.strategies.ddp as lightning_ddp
import torch
from torch import distributed

from spd_lightning.pipeline.stages import Pipeline

rows: list[tuple[str, str, int]] = []
stage = ["start"]


def size(value: Any) -> int:
    """Bytes of a tensor, a module's weights, or an object as it is sent."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, torch.nn.Module):
        return sum(t.nbytes for t in (*value.parameters(), *value.buffers()))
    return len(pickle.dumps(value))


def count(owner: Any, name: str, argument: int | None) -> None:
    """Record calls of ``owner.name`` with the size of the argument at that place."""
    real: Callable[..., Any] = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        rows.append((stage[0], name, 0 if argument is None else size(args[argument])))
        return real(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    from spd_lightning.cli.program import main

    for collective, place in {
        "all_reduce": 0,
        "broadcast": 0,
        "broadcast_object_list": 0,
        "all_gather_object": 1,
        "all_gather": 1,
        "barrier": None,
    }.items():
        count(distributed, collective, place)
    count(lightning_ddp, "_sync_module_states", 0)
    real_stage = Pipeline._stage

    @contextlib.contextmanager
    def named(self: Pipeline, name: str, what: str) -> Iterator[Any]:
        """The stage, and its name for what is counted in it."""
        with real_stage(self, name, what) as row:
            stage[0] = name
            yield row
        stage[0] = "between"

    Pipeline._stage = named  # type: ignore[method-assign]
    status = main()
    Path(f"{os.environ['SPD_TEST_COUNTS']}-{os.environ.get('LOCAL_RANK', '0')}.json").write_text(json.dumps(rows))
    sys.exit(status)
