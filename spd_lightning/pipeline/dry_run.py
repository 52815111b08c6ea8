"""Every stage on two examples, end to end: ``--dry_run``. What it makes is removed again; its scores say nothing."""

from __future__ import annotations

import contextlib
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.processes import is_rank_zero
from spd_lightning.tasks.mix import names_of

EXAMPLES = 2  # calibration pairs, training prompts, rows of every benchmark
NEW_TOKENS = 16


def shorten(options: Any) -> None:
    """Change options so that every stage has two examples; what filters completions by quality is off.

    Args:
        options: Of a stage command, as they were parsed; changed in place.
    """
    options.subspace.num_examples = EXAMPLES
    data, names = options.data, names_of(options.subspace.task)
    if len(names) > 1:  # two of each, whatever their weights
        options.subspace.task = data.task = names
    data.num_prompts, data.num_generations, data.min_completions, data.keep = EXAMPLES * len(names), 1, 0.0, "all"
    data.max_new_tokens = min(data.max_new_tokens or NEW_TOKENS, NEW_TOKENS)
    data.method = "ssd" if data.method == "filtered" else data.method
    options.evaluation.limit, options.evaluation.num_samples = EXAMPLES, 1
    options.evaluation.every_n_steps = options.evaluation.every_n_epochs = None
    options.trainer.max_epochs, options.trainer.max_steps, options.trainer.logger = 1, -1, False
    if "check_against" in options:
        options.check_against = None


@contextlib.contextmanager
def removed(folder: Path) -> Iterator[None]:
    """Remove a dry run's folder before and after (rank 0 does), with the folders above it that are empty then."""
    above = [parent for parent in folder.parents if not parent.exists()]
    if is_rank_zero():
        shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    try:
        with warnings.catch_warnings():
            # so few examples never span half of the directions; that is no word on the run as it is meant
            warnings.filterwarnings("ignore", "rank=.* exceeds the numerical rank")
            yield
    finally:
        if is_rank_zero():
            shutil.rmtree(folder, ignore_errors=True)
            for parent in above:
                with contextlib.suppress(OSError):
                    parent.rmdir()
    rank_zero_info(
        f"Dry run: every stage worked on {EXAMPLES} examples, in {time.monotonic() - start:.0f} s; nothing is kept."
    )
