"""Stage 4: what scoring is told: what the user chose, what the run knows, and the moment at which models are scored.

All three are frozen and handed over as they are; `suite.BenchmarkSuite` works on them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError, unknown_name
from spd_lightning.evaluation.decoding import Decoding, chosen_decoding
from spd_lightning.model.chat_template import PromptFormat
from spd_lightning.model.load import Dtype
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks import TASKS
from spd_lightning.tasks.mix import Tasks
from spd_lightning.tasks.task import Protocol

SCORED_MODELS = ("base", "projected", "student")
DRAWN: dict[str, Any] = {"num_samples": 1, "temperature": None, "top_p": None, "top_k": None}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SuiteOptions:
    """What the user chose; each is explained at `BenchmarkCallback`.

    Attributes:
        settings: Arguments of `run_benchmark`.
    """

    tasks: Sequence[str] | None
    protocol: Protocol
    limit: int | Mapping[str, int] | None
    methods: Sequence[str]
    base_shots: Sequence[int]
    best_decoding: Sequence[Decoding]
    best_decoding_rows: int
    subspace: str | None
    dtype: Dtype | None
    skip_missing_data: bool
    device_map: Literal["auto"] | None
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse what is not possible, before anything costs time."""
        check_names("methods", self.methods, SCORED_MODELS)
        limits = list(self.limit.values()) if isinstance(self.limit, Mapping) else [self.limit]
        for number in limits:
            check_count("limit", number)
        for number in self.base_shots:
            check_count("base_shots", number)
        check_count("best_decoding_rows", self.best_decoding_rows)
        check_count("batch_size", self.settings["batch_size"])
        chosen_decoding(**{name: self.settings.get(name, default) for name, default in DRAWN.items()})
        timeout_s = self.settings["timeout_s"]
        if not timeout_s > 0:
            raise UserError(
                f"timeout_s={timeout_s} would fail every program. Set --evaluation.timeout_s to seconds above 0."
            )
        penalty = self.settings["repetition_penalty"]
        if not 0 < penalty < math.inf:
            raise UserError(
                f"repetition_penalty={penalty} is not possible. Set --evaluation.repetition_penalty to a "
                "number above 0 (1 penalises nothing), or null."
            )
        for name in self.limit if isinstance(self.limit, Mapping) else ():
            if name.split(":")[0] not in TASKS:
                raise unknown_name("task in limit", name, TASKS, "--evaluation.limit")


def check_names(kind: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    """Refuse an entry of a list of names that is not one of those known."""
    for name in chosen:
        if name not in known:
            raise unknown_name(f"entry of {kind}", name, known, f"--evaluation.{kind}")


def check_count(option: str, number: int | None) -> None:
    """Refuse a count below 1; null is none."""
    if number is not None and number < 1:
        raise UserError(f"{option}={number} is not possible. Set --evaluation.{option} to at least 1, or null.")


@dataclass(frozen=True)
class RunContext:
    """What a run knows; everything may be left out.

    Attributes:
        model_name_or_path: Base model; None takes that of the module.
        calibrated_task: Task, or tasks, that stage 1 reads, and that ``base_shots`` takes answers of.
        trained_task: Task, or tasks, trained on; decides the scores' split, and what is scored where none are named.
        method: Name of the trained method in the scores, e.g. ``spd``; ``base`` where nothing is trained.
        data_dir: Data folder.
        task_file: File of the task ``custom``.
        samples: Folder that samples are written to; None writes none.
        store: Where scores are kept and looked up.
        subspace: The run's subspace, for projected, unless the user named one.
        adapter: Folder of the student; None takes the live model of a training.
        student_step: Optimiser step of the student; None asks the trainer.
        dtype: Of the models, unless the user named one.
        prompt_format: Of generated answers, unless the user named one.
        seed: Of the samples' noise, and of the rows of generated tasks.
        has_stage: Whether a stage of its own scores before and after, so that a training scores midway alone.
    """

    model_name_or_path: str | None = None
    calibrated_task: Tasks | None = None
    trained_task: Tasks | None = None
    method: str = "student"
    data_dir: str | None = None
    task_file: str | dict[str, Any] | None = None
    samples: Path | None = None
    store: ArtifactStore | None = None
    subspace: str | Path | CapabilitySubspace | None = None
    adapter: str | Path | None = None
    student_step: int | None = None
    dtype: Dtype = "auto"
    prompt_format: PromptFormat = "plain"
    seed: int = 42
    has_stage: bool = False


@dataclass(frozen=True)
class Occasion:
    """The moment at which models are scored.

    Attributes:
        device: Where.
        world_size: Number of processes.
        step: Optimiser step to log at.
        loggers: Of the trainer.
        live: The model that is trained.
        hparams: Of the module that trains it; None without one.
        say: Tells the user what was decided.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    world_size: int = 1
    step: int = 0
    loggers: Sequence[Any] = ()
    live: Any = None
    hparams: Mapping[str, Any] | None = None
    say: Callable[[str], None] = log.info
