"""What the trainer's options make of stage 3: refused before stage 1 where that is no training, or one that Lightning
ends in its midst; and what of a finished training its health line has to say."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer

from spd_lightning.errors import UserError
from spd_lightning.pipeline.parts import Parts

LOGGED = ("train/loss", "train/grad_norm", "train/lr", "train/tokens_per_second", "train/padding_share")
COUNTED = ("epoch", "step")  # what Lightning itself counts


def check_training(trainer: Mapping[str, Any], parts: Parts) -> None:
    """Refuse a training of no step or without an end, one that Lightning ends at its start, and a trial's few batches.

    Args:
        trainer: The trainer's options.
        parts: The objects of the stages.
    """
    check_some_training(trainer)
    val_fraction, batches = parts.data.val_fraction, batches_of(trainer, parts)
    for name in ("limit_train_batches", "overfit_batches"):
        share = trainer[name]
        if isinstance(share, float) and 0 < share < 1 and int(batches * share) < 1:
            raise UserError(
                f"trainer.{name}={share} of the {batches} batches of an epoch is none. Set --trainer.{name} to a "
                "number of batches, such as 1, or leave it out."
            )
        if share is not None and share > 0:
            batches = min(batches, share) if isinstance(share, int) else int(batches * share)
    every, interval = trainer["check_val_every_n_epoch"], trainer["val_check_interval"]
    if isinstance(interval, int) and every is not None and interval > batches:
        raise UserError(
            f"trainer.val_check_interval={interval} is more than the {batches} batches of an epoch. Set "
            f"--trainer.val_check_interval to at most {batches}, or --trainer.check_val_every_n_epoch null to count "
            "over epochs."
        )
    epochs = trainer["max_epochs"] or -1
    if val_fraction > 0 and (trainer["limit_val_batches"] == 0 or (every or 0) > epochs > 0):
        option = "limit_val_batches" if trainer["limit_val_batches"] == 0 else "check_val_every_n_epoch"
        raise UserError(
            f"data.val_fraction={val_fraction} holds prompts out, and trainer.{option}={trainer[option]} never "
            f"validates on them (trainer.max_epochs is {trainer['max_epochs']}). Leave --trainer.{option} out, or set "
            "--data.val_fraction 0."
        )
    _check_monitors(trainer["callbacks"], val_fraction > 0, parts.benchmarks)


def check_some_training(trainer: Mapping[str, Any]) -> None:
    """Refuse a training of no step, whose student would be the base under another name, or of a trial's few; and one
    without an end."""
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if trainer[name] == 0:
            raise UserError(
                f"trainer.{name}=0 trains nothing, so the student would be the base. Set --trainer.{name} to 1 or "
                "more, or take the command generate, which ends before fine-tuning."
            )
    if trainer["fast_dev_run"]:
        raise UserError(
            f"trainer.fast_dev_run={trainer['fast_dev_run']} trains on a batch or a few, and the scores would stand as "
            "those of this run's student. Type --dry_run instead: every stage on two examples, in a folder of its own."
        )
    if trainer["max_epochs"] in (None, -1) and trainer["max_steps"] in (None, -1):
        shown = "null" if trainer["max_epochs"] is None else trainer["max_epochs"]
        raise UserError(
            f"trainer.max_epochs={shown} without trainer.max_steps is a training without an end, and the cosine "
            "schedule needs one. Set --trainer.max_epochs or --trainer.max_steps to 1 or more."
        )
    if _no_time(trainer["max_time"]):
        raise UserError(
            f"trainer.max_time={trainer['max_time']!r} is no time, so nothing would be trained. Set --trainer.max_time "
            "00:01:00:00 for an hour, say, or leave it out."
        )


def _no_time(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"[0:\s]+", value) is not None
    return value is not None and (timedelta(**value) if isinstance(value, Mapping) else value) <= timedelta()


def batches_of(trainer: Mapping[str, Any], parts: Parts) -> int:
    """Most micro-batches that an epoch can have: fewer where prompts are held out or left out."""
    questions = parts.data.recipe.questions
    texts = len(questions.requests)
    if parts.data.keep == "majority":  # trains on one of a prompt's samples
        texts = -(-texts // questions.num_generations)
    return -(-texts // parts.student.hparams["batch_size"]) * int(trainer["accumulate_grad_batches"] or 1)


def _check_monitors(callbacks: Any, validates: bool, benchmarks: Any) -> None:
    """Refuse a callback that watches what the training does not log: Lightning says so after an epoch."""
    found = callbacks if isinstance(callbacks, list | tuple) else [] if callbacks is None else [callbacks]
    if any(not type(callback).__module__.startswith("lightning.") for callback in found):
        return  # one of the user's own may log more
    known = [*LOGGED, *(["val/loss"] if validates else [])]
    midway = benchmarks.every_n_steps or benchmarks.every_n_epochs
    for callback in found:
        name = getattr(callback, "monitor", None)
        if name is None or name in (*known, *COUNTED) or (midway and str(name).startswith("eval/")):
            continue
        near = difflib.get_close_matches(str(name), [*LOGGED, "val/loss"], n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        needs = "" if validates else " val/loss needs --data.val_fraction."
        raise UserError(
            f"trainer.callbacks: {type(callback).__name__} monitors {name!r}, which the training does not log.{hint}"
            f"{needs} Known: {', '.join(known)}, and eval/TASK/METRIC with --evaluation.every_n_epochs. Set its "
            "monitor to one of them."
        )


@contextlib.contextmanager
def refusals_told() -> Iterator[None]:
    """Have what Lightning refuses at the start of a training told as a mistake of the user."""
    try:
        yield
    except MisconfigurationException as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"Lightning cannot train with these options of the trainer: {reason} Change or leave out what it names."
        ) from error


def end_of_training(trainer: Trainer, module: LightningModule) -> dict[str, int]:
    """What cut a training short or kept its learning rate low, for `training_health`.

    Raises:
        UserError: If it made no step.
    """
    total, step = trainer.estimated_stepping_batches, trainer.global_step
    if step == 0:
        raise UserError(
            "The training ended before its first optimiser step, so the student would be the base. Raise "
            "trainer.max_time (--trainer.max_time), or leave out the callback that ended it."
        )
    per_epoch = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
    warmup = round(module.hparams["warmup_epochs"] * per_epoch)
    return {
        **({"steps": step, "of_steps": int(total)} if step < total else {}),
        **({"warmup": warmup, "in_steps": int(total)} if warmup >= total else {}),
    }
