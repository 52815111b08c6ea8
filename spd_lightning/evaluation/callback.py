"""Stage 4 under Lightning: when base, projected and student are scored; what is scored is the suite's part.

In a notebook: ``Trainer(callbacks=[BenchmarkCallback(["gsm8k"], limit=20)])`` with an `SPDFineTuningModule`. The
command line hands the suite what the run knows: ``callback.suite.enter(RunContext(..))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.artifacts.reading import missing
from spd_lightning.errors import UserError
from spd_lightning.evaluation.best_decoding import read_grid
from spd_lightning.evaluation.context import Occasion, RunContext, SuiteOptions, check_count, check_names
from spd_lightning.evaluation.portion import ShortContext
from spd_lightning.evaluation.scores import BenchmarkResult, logged_metrics
from spd_lightning.evaluation.suite import BenchmarkSuite
from spd_lightning.model.chat_template import PromptFormat
from spd_lightning.model.load import Dtype
from spd_lightning.model.student_base import check_base_of
from spd_lightning.notebook import Shown
from spd_lightning.options import check_options
from spd_lightning.tasks.task import Protocol

ScoredModel = Literal["base", "student", "projected"]
Moment = Literal["before", "after"]


class BenchmarkCallback(Shown, Callback):
    """Score models on benchmarks.

    Args:
        tasks: Benchmarks, e.g. [gsm8k, svamp, mmlu, humaneval, bbh:paper]; null scores the task trained on.
        protocol: standard (the field's convention) or paper (the published settings). Named in every score.
        limit: Examples per benchmark, the first ones (in mmlu and bbh subjects take turns, but bbh under paper is task
            after task, as published): one number, or a number for each task named ({humaneval: 20}, others whole);
            null for all.
        num_samples: Completions per example where answers are generated, for pass@k (up to 64) and the mean over them.
        temperature: Of generated answers, 0 for greedy; null is greedy for one completion, and 0.8 with top-p 0.95 for
            several (the convention of pass@k).
        top_p: Of drawn answers, as data.top_p; null keeps all, but see temperature.
        top_k: Of drawn answers, as data.top_k; null keeps all.
        methods: Any of base, student and projected (the base under the projection, untrained); null: base, student.
        base_shots: Score the base also with so many of the calibration answers as solved examples before each prompt,
            on the task calibrated on, which must be among tasks: [3, 8]; null for none.
        best_decoding: Grid of decodings: [{temperature: 0}, {temperature: 0.7, top_p: 0.9, top_k: 50}]. The base is
            also scored at the one that is best on training rows, task by task, one answer an example; null for not.
        best_decoding_rows: Training rows of each task that it is chosen on.
        when: before, after or both (null) around a training that you start in Python; commands score after it. Base and
            projected are scored at the first of these moments, the student after.
        every_n_steps: Score the student every so many optimiser steps as well; null for never.
        every_n_epochs: Score the student every so many epochs as well; null for never.
        adapter: For the command test: a PEFT folder or a checkpoint folder to score as the student.
        subspace: A subspace file, for projected; null takes the run's own.
        batch_size: Completions, or questions, run together; null for the defaults (64 completions).
        dtype: auto, float32 or bfloat16, the same for every method; null takes that of the run, else auto, which means
            float32 where all weights were trained. float32 for small effects: its rounding is that of bf16 by 65,536;
            on a CPU with fast bf16 it takes about 1.5 times as long, on a GPU twice as long and more, with twice the
            memory.
        prompt_format: plain, or chat to put generated answers through the chat template; null takes data.prompt_format,
            for a student that of its run. Likelihoods are read on the plain text.
        repetition_penalty: Of generated answers, as data.repetition_penalty; null or 1 for none.
        skip_missing_data: Report a benchmark whose data cannot be had as not run, instead of ending the run.
        short_context: Where the context is too short for the solved examples: fewer_shots (said and counted) or error.
        allow_code_execution: true lets programs that a model wrote run where no sandbox works; null asks
            HF_ALLOW_CODE_EVAL. Without consent such a task is reported as not run.
        timeout_s: Processor time of one program with its tests, seconds; four times as much on the clock.
        device_map: auto spreads a model that is too large for one device over all devices of the one process.
    """

    def __init__(
        self,
        tasks: list[str] | None = None,
        protocol: Protocol = "standard",
        limit: int | dict[str, int] | None = None,
        num_samples: int = 1,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        methods: list[ScoredModel] | None = None,
        base_shots: list[int] | None = None,
        best_decoding: list[dict[str, float]] | None = None,
        best_decoding_rows: int = 200,
        when: list[Moment] | None = None,
        every_n_steps: int | None = None,
        every_n_epochs: int | None = None,
        adapter: str | None = None,
        subspace: str | None = None,
        batch_size: int | None = None,
        dtype: Dtype | None = None,
        prompt_format: PromptFormat | None = None,
        repetition_penalty: float | None = None,
        skip_missing_data: bool = False,
        short_context: ShortContext = "fewer_shots",
        allow_code_execution: bool | None = None,
        timeout_s: float = 5.0,
        device_map: Literal["auto"] | None = None,
    ) -> None:
        check_options(BenchmarkCallback, locals(), "evaluation")
        self.when: list[Moment] = when if when is not None else ["before", "after"]
        check_names("when", self.when, ("before", "after"))
        check_count("every_n_steps", every_n_steps)
        check_count("every_n_epochs", every_n_epochs)
        self.every_n_steps, self.every_n_epochs = every_n_steps, every_n_epochs
        options = SuiteOptions(
            tasks=tasks,
            protocol=protocol,
            limit=limit,
            methods=methods if methods is not None else ["base", "student"],
            base_shots=base_shots or (),
            best_decoding=read_grid(best_decoding or ()),
            best_decoding_rows=best_decoding_rows,
            subspace=subspace,
            dtype=dtype,
            skip_missing_data=skip_missing_data,
            device_map=device_map,
            settings={
                "num_samples": num_samples,
                "temperature": temperature,
                "top_p": top_p,
                "top_k": top_k,
                "batch_size": batch_size,
                "prompt_format": prompt_format,
                "repetition_penalty": 1.0 if repetition_penalty is None else float(repetition_penalty),
                "short_context": short_context,
                "allow_code_execution": allow_code_execution,
                "timeout_s": timeout_s,
            },
        )
        self.suite = BenchmarkSuite(options, RunContext(adapter=adapter))
        self._step_scored = 0

    def shown_facts(self) -> dict[str, Any]:
        tasks = self.suite.options.tasks
        named = "the one trained on" if tasks is None else list(tasks)
        return {"tasks": named, "methods": list(self.suite.options.methods), "results": len(self.results)}

    def shown_rows(self) -> list[dict[str, Any]]:
        return [dict(score.shown_facts()) for result in self.suite.final() for score in result.scores]

    # -- what was found, for a notebook ----------------------------------------------------------------------------

    @property
    def results(self) -> list[BenchmarkResult]:
        """Everything scored so far, in order."""
        return self.suite.results

    @property
    def score_rows(self) -> list[dict[str, Any]]:
        """See `BenchmarkSuite.score_rows`."""
        return self.suite.score_rows

    @property
    def comparison_rows(self) -> list[dict[str, Any]]:
        """See `BenchmarkSuite.comparison_rows`."""
        return self.suite.comparison_rows

    @property
    def not_run(self) -> list[dict[str, str]]:
        """See `BenchmarkSuite.not_run`."""
        return self.suite.not_run

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """See `BenchmarkSuite.facts`."""
        return self.suite.facts

    # -- when ------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.suite.benchmarks()
        refers = stage != "fit" or (self.when and not self.suite.context.has_stage)
        if refers and ("projected" in self.suite.options.methods or self.suite.options.subspace is not None):
            self.suite.subspace()  # told now, not after the base was scored or the student trained
        adapter = self.suite.context.adapter
        if adapter is not None and not Path(adapter).is_dir():
            raise UserError(f"adapter={str(adapter)!r}: {missing(adapter, 'folder')}. Set --evaluation.adapter to one.")
        name = self.suite.context.model_name_or_path or pl_module.hparams.get("model_name_or_path")
        if adapter is not None and name is not None:
            check_base_of(adapter, name)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "before" in self._moments():
            self.suite.score_references(occasion(trainer, pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self.every_n_steps and step > self._step_scored and step % self.every_n_steps == 0:
            self._score_midway(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and trainer.global_step > self._step_scored:
            self._score_midway(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "after" not in self._moments():
            return
        now = occasion(trainer, pl_module)
        if "before" not in self._moments():
            self.suite.score_references(now)
        if "student" in self.suite.options.methods and self.suite.context.method != "base":
            self.suite.score_student(now)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.score_all(pl_module, trainer)

    def score_all(self, pl_module: LightningModule | None = None, trainer: Trainer | None = None) -> None:
        """What the command test scores: base and projected as ``methods`` says (a subspace given by name is always
        scored), and the student of an adapter folder or of the trainer's checkpoint."""
        suite, now = self.suite, occasion(trainer, pl_module)
        suite.score_references(now)
        if suite.options.subspace is not None and "projected" not in suite.options.methods:
            suite.score_projected(now)
        if suite.context.adapter is not None or (trainer is not None and trainer.ckpt_path is not None):
            suite.score_student(now)

    def _moments(self) -> Sequence[Moment]:
        """When base and student are scored around a training; never where a stage of its own does that."""
        return () if self.suite.context.has_stage else self.when

    def _score_midway(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the student in training; the same numbers on every process, so checkpoints may monitor them."""
        self._step_scored = trainer.global_step
        results = self.suite.score_student(occasion(trainer, pl_module))
        for name, value in logged_metrics(results).items():
            pl_module.log(name, value, logger=False, rank_zero_only=False)


def occasion(trainer: Trainer | None, pl_module: LightningModule | None) -> Occasion:
    """This moment of a training, as plain values."""
    module: dict[str, Any] = (
        {} if pl_module is None else {"live": getattr(pl_module, "model", None), "hparams": pl_module.hparams}
    )
    if trainer is None:
        return Occasion(say=rank_zero_info, **module)
    return Occasion(
        device=trainer.strategy.root_device,
        world_size=trainer.world_size,
        step=trainer.global_step,
        loggers=trainer.loggers,
        say=rank_zero_info,
        **module,
    )
