"""Lightning's Trainer, for stage 3 and for the stages beside it, with its refusals as mistakes of the user."""

from __future__ import annotations

import copy
import difflib
import math
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy, Strategy, StrategyRegistry
from lightning.pytorch.utilities import rank_zero_info
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError
from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.finetuning.checkpoint_file import read_checkpoint
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.strategy import ShardedStrategy
from spd_lightning.finetuning.trained_model import PRECISIONS
from spd_lightning.pipeline.bars import StageBar
from spd_lightning.pipeline.children import end_with
from spd_lightning.pipeline.interruption import StopAtStep
from spd_lightning.pipeline.lightning_names import ends_with_a_stage, keep_signals, take_children, wait_for_others
from spd_lightning.pipeline.run_log import log_step
from spd_lightning.pipeline.tracking import default_loggers
from spd_lightning.pipeline.training_checks import end_of_training
from spd_lightning.pipeline.whole_checkpoint import write_whole_checkpoints

# How long processes wait for each other, where the user says nothing: one may have hours of decoding left when another
# is done. A process that dies ends the others at once, so nothing hangs for so long.
WAIT_FOR_OTHERS = timedelta(hours=12)


class NoTraining(LightningModule):
    """A module without weights, under which `BenchmarkCallback` runs in ``Trainer.test``."""

    def test_dataloader(self) -> list[int]:
        """One step, so that Lightning does not skip the hooks."""
        return [0]

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing; the callback works in ``on_test_start``."""


class StepCheckpoint(ModelCheckpoint):
    """Saves by the clock, but only after an optimiser step: no checkpoint holds gradients that are still summed up."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            log_step(trainer)
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


STRATEGIES = {
    "auto": "one process",
    "ddp": "several, each with a whole model",
    "fsdp": "several, the model of fine-tuning spread over them",
}


def check_strategy(strategy: Any) -> None:
    """Refuse the name of a strategy that Lightning does not have; what it has beside ours is its own affair."""
    if not isinstance(strategy, str) or strategy in {*StrategyRegistry.available_strategies(), "auto"}:
        return
    sharded = strategy.lower().startswith(("zero", "deepspeed", "fsdp", "shard"))
    near = ["fsdp"] if sharded else difflib.get_close_matches(strategy, STRATEGIES, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    known = ", ".join(f"{name} ({what})" for name, what in STRATEGIES.items())
    raise UserError(f"trainer.strategy={strategy!r} is not known.{hint} Known: {known}. Set --trainer.strategy.")


def check_max_time(value: Any) -> None:
    """Refuse a time limit that Lightning's Timer does not read, with the way to write it."""
    if not isinstance(value, str) or re.fullmatch(r"\d+:\d\d:\d\d:\d\d", value.strip()):
        return
    units = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "": 1}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
    seconds = round(float(found[1]) * units[found[2]]) if found and found[2] in units else 3600
    shown = f"{seconds // 86400:02d}:{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    raise UserError(
        f"trainer.max_time={value!r} is not a time as DD:HH:MM:SS (days, hours, minutes, seconds). Set "
        f"--trainer.max_time {shown}."
    )


def check_numbers(settings: Mapping[str, Any]) -> None:
    """Refuse what Lightning takes and makes nothing of, ends at hours later, or replaces (half precision on a CPU)."""
    if str(precision := settings.get("precision")) in ("16", "16-mixed"):
        raise UserError(
            f"trainer.precision={precision!r} is not supported. Set --trainer.precision to {', '.join(PRECISIONS)}."
        )
    if (steps := settings.get("accumulate_grad_batches", 1)) < 1:
        raise UserError(
            f"trainer.accumulate_grad_batches={steps} makes no step. Set "
            "--trainer.accumulate_grad_batches to 1 or more."
        )
    if not 0 <= (norm := settings.get("gradient_clip_val") or 0) < math.inf:
        raise UserError(
            f"trainer.gradient_clip_val={norm} is no norm to clip at. Set --trainer.gradient_clip_val above 0, or to "
            "null for no clipping."
        )
    if settings.get("barebones"):
        raise UserError(
            "trainer.barebones=True switches off the log and the checkpoints that a run consists of. Leave "
            "--trainer.barebones out."
        )


def make_trainer(**settings: Any) -> Trainer:
    """A trainer that can do what the stages need.

    Raises:
        UserError: If devices are not there, processes would not outlive a stage, or torchrun started another number of
            processes than the trainer has.
    """
    check_strategy(settings["strategy"])
    check_max_time(settings.get("max_time"))
    check_numbers(settings)
    try:
        trainer = Trainer(**settings)
    except (MisconfigurationException, TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        places = ("accelerator", "devices", "strategy")
        words = re.findall(r"`(?:Trainer\()?(\w+)", reason) or re.findall(r"\w+_\w+", reason)
        named = [name for name in words if name in settings]
        if named and named[0] not in places:
            raise UserError(
                f"trainer.{named[0]}={settings[named[0]]!r} is not possible: {reason} Set --trainer.{named[0]} to "
                "another value, or leave it out."
            ) from error
        chosen = ", ".join(f"trainer.{name}={settings[name]!r}" for name in places)
        raise UserError(
            f"{chosen} cannot be had here: {reason} Set --trainer.accelerator to cpu or auto, or --trainer.devices to "
            "those that this machine has."
        ) from error
    keep_signals(trainer)
    if ends_with_a_stage(trainer.strategy):
        raise UserError(
            f"trainer.strategy={settings['strategy']!r} starts processes that end with each stage, and what they found "
            "with them. Set --trainer.strategy=ddp."
        )
    wait_for_others(trainer.strategy, WAIT_FOR_OTHERS)
    started = int(os.environ.get("WORLD_SIZE", trainer.world_size))
    if "LOCAL_RANK" in os.environ and started != trainer.world_size:
        raise UserError(
            f"{started} processes were started from outside (WORLD_SIZE), but trainer.devices={settings['devices']!r} "
            f"and trainer.strategy={settings['strategy']!r} make {trainer.world_size}. Set --trainer.strategy=ddp and "
            "--trainer.devices to the processes of a machine."
        )
    return trainer


def main_trainer(
    options: Mapping[str, Any],
    run: RunFolder,
    config: Mapping[str, Any],
    benchmarks: BenchmarkCallback,
    **instead: Any,
) -> Trainer:
    """The trainer of stage 3; files of the run go into its folder.

    Args:
        options: The trainer's.
        run: The run folder.
        config: The run's configuration, for its loggers.
        benchmarks: Scores amid training, if it is told to.
        instead: Options that take the place of those in ``options``.
    """
    settings = {**options, **instead}
    if settings["logger"] in (None, True):
        settings["logger"] = default_loggers(run.path, dict(config))
    # The same file at the end of every epoch and, in long ones, every ten minutes.
    place: dict[str, Any] = {
        "dirpath": run.checkpoint.parent,
        "filename": run.checkpoint.stem,
        "enable_version_counter": False,
    }
    savers = [ModelCheckpoint(**place), StepCheckpoint(**place, train_time_interval=timedelta(minutes=10))]
    callbacks = copy.deepcopy(settings["callbacks"]) or []  # they hold state, and every round starts anew
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    bar = [StageBar()] if settings["enable_progress_bar"] in (None, True) else []
    saves = settings["enable_checkpointing"] is not False
    stop = StopAtStep(run.checkpoint if saves else None)
    settings["callbacks"] = [*callbacks, stop, *(savers if saves else []), *bar]
    if benchmarks.every_n_steps or benchmarks.every_n_epochs:
        settings["callbacks"].append(benchmarks)
    settings["default_root_dir"] = settings["default_root_dir"] or str(run.logs)
    if settings["strategy"] == "fsdp":
        settings["strategy"] = ShardedStrategy()
    elif isinstance(settings["strategy"], FSDPStrategy) or str(settings["strategy"]).startswith("fsdp"):
        raise UserError(
            f"trainer.strategy={settings['strategy']!r} cannot hold a frozen base and its adapter in one unit. "
            "Set --trainer.strategy fsdp (FSDP2, each weight by itself)."
        )
    trainer = make_trainer(**settings)
    write_whole_checkpoints(trainer)
    return trainer


def stage_trainer(
    options: Mapping[str, Any],
    run: RunFolder,
    benchmarks: BenchmarkCallback | None = None,
    logger: Any = False,
    doing: str = "",
) -> Trainer:
    """A trainer for another stage: the same devices and strategy, float weights as loaded, no checkpoints.

    Args:
        options: The trainer's.
        run: The run folder.
        benchmarks: For stage 4, which shows bars of its own.
        logger: Of the stage.
        doing: What the stage does, for its bar.
    """
    shared = ("accelerator", "strategy", "devices", "num_nodes", "plugins")
    strategy = options["strategy"]
    if isinstance(strategy, str) and strategy.startswith(("fsdp", "deepspeed")):
        strategy = "ddp"  # stages without an optimizer keep whole models
    show = benchmarks is None and options["enable_progress_bar"] in (None, True)
    return make_trainer(
        **{k: options[k] for k in shared} | {"strategy": strategy},
        callbacks=[benchmarks] if benchmarks is not None else [StageBar(doing)] if show else [],
        enable_progress_bar=show,
        logger=logger,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        default_root_dir=str(run.logs),
    )


def start_processes(main: Trainer, options: Mapping[str, Any], run: RunFolder) -> None:
    """Start the other processes before anything is decided; once, and nothing with one process.

    The stage trainer's strategy is asked: that of FSDP has no launcher in a process that was started by another.

    Args:
        main: The trainer of stage 3.
        options: The trainer's.
        run: The run folder.
    """
    several = main.num_devices * main.num_nodes > 1 or main.strategy.launcher is not None
    if several and not distributed.is_initialized():
        strategy = (trainer := stage_trainer(options, run)).strategy
        assert strategy.launcher is not None
        strategy.launcher.launch(lambda: _with_children(strategy), trainer=trainer)


def _with_children(strategy: Strategy) -> None:
    """Watch over the processes that were started, and meet them."""
    if children := take_children(strategy):
        end_with(children)
    strategy.setup_environment()


def take_best(trainer: Trainer, module: SPDFineTuningModule) -> int:
    """Go back to the best checkpoint, where the user asked for one by a ModelCheckpoint that monitors a loss.

    Returns:
        The optimiser step of the weights that the module holds now.

    Raises:
        UserError: If no step was made.
    """
    module.read |= end_of_training(trainer, module)
    for saver in trainer.checkpoint_callbacks:
        if isinstance(saver, ModelCheckpoint) and saver.monitor and saver.best_model_score is not None:
            checkpoint = read_checkpoint(saver.best_model_path, "Give the same command again to train it anew.")
            options = StateDictOptions(full_state_dict=True, strict=False)
            set_model_state_dict(module, checkpoint["state_dict"], options=options)
            rank_zero_info(
                f"[fine_tune] the student is that of optimiser step {checkpoint['global_step']}, the best by "
                f"{saver.monitor} ({float(saver.best_model_score):.4f})"
            )
            return checkpoint["global_step"]
    return trainer.global_step
