"""What libraries say of our own, deliberate choices, left out by its words: another message of the same level stays.

With ``--quiet`` what a run says of its stages is left out as well; warnings, errors and results stay.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import warnings
from typing import Any

from spd_lightning import progress

WARNINGS = (
    ".*args parameter is intended to run from within Python",
    ".*is_gradient_checkpointing",
    ".*LeafSpec",
    ".*across ranks is zero",
    ".*Experiment logs directory .* exists and is not empty",
    ".*does not have many workers",
)
LIGHTNING = (
    "litlogger",
    "GPU available:",
    "TPU available:",
    "HPU available:",
    "Seed set to",
    "Loading `train_dataloader` to estimate number of stepping batches",
    "`Trainer.fit` stopped: `max_epochs=",
    "Restoring states from the checkpoint path",
    "Restored all states from the checkpoint",
    "LOCAL_RANK: ",
    "Missing logger folder:",
)
WANDB = (
    "The anonymous setting has no effect",
    "Tracking run with wandb version",
    "W&B syncing is set to `offline`",
    "Run data is saved locally in",
    "View this run in the terminal",
    "You can sync this run to the cloud by running",
    "Find logs at:",
    "Run history:",
    "Run summary:",
)
STARTED: list[Any] = []  # W&B's runs of this command
LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
)


class Said(logging.Filter):
    """Lets through what a run says and what went wrong."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if any(words in text for words in LIGHTNING):
            return False
        return not progress.is_quiet() or record.levelno >= logging.WARNING or " warning: " in text


def leave_out_chatter() -> None:
    """Filter warnings, Lightning's log and the bars of libraries that load and save models; may be called again."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(found, Said) for found in logger.filters):
            logger.addFilter(Said())
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if progress.is_quiet() or not progress.on_terminal(sys.stderr):  # downloads, Parquet files
        import datasets
        from huggingface_hub import utils as hub

        hub.disable_progress_bars()  # type: ignore[attr-defined]
        datasets.disable_progress_bars()


def leave_out_wandb() -> None:
    """Filter what W&B prints, by its two public functions for it; errors are not among them.

    What its service says, a process of its own, goes to standard error instead of the output.
    """
    import wandb

    if not hasattr(wandb.init, "filtered"):
        wandb.init = _beside_output(wandb.init)
    for name in ("termlog", "termwarn"):
        said = getattr(wandb, name)
        if not hasattr(said, "filtered"):
            setattr(wandb, name, _filtered(said))


def finish_wandb_at_exit(status: int) -> None:
    """Finish W&B's runs of this command with its status when the program ends; its service tells of those that are not.

    Registered behind the service's own end, so called before it.
    """
    for run in STARTED:
        atexit.register(run.finish, exit_code=status)
    STARTED.clear()


def _beside_output(begin: Any) -> Any:
    @functools.wraps(begin)
    def started(*args: Any, **kwargs: Any) -> Any:
        sys.stdout.flush()
        output = os.dup(1)
        other = os.open(os.devnull, os.O_WRONLY) if progress.is_quiet() else os.dup(2)
        try:
            os.dup2(other, 1)
            run = begin(*args, **kwargs)
            STARTED.append(run)
            return run
        finally:
            os.dup2(output, 1)
            os.close(output)
            os.close(other)

    started.filtered = True  # type: ignore[attr-defined]
    return started


def _filtered(said: Any) -> Any:
    @functools.wraps(said)
    def say(string: str = "", *args: Any, **kwargs: Any) -> None:
        if not any(words in string for words in WANDB) and not (progress.is_quiet() and said.__name__ == "termlog"):
            said(string, *args, **kwargs)

    say.filtered = True  # type: ignore[attr-defined]
    return say
