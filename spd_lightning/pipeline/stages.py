"""The order of the stages: each reads the artifact before it, writes one of its own, and is skipped if that exists.

    extract -> generate -> fine_tune -> evaluate -> report

Every stage is a run of a Lightning Trainer with the main trainer's devices and strategy, so one configuration serves
one core or many GPUs.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from spd_lightning.artifacts.checksums import file_sha256, weights_sha256
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.settings import differences
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.cost.plan import Plan
from spd_lightning.errors import UserError
from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.recipe import StudentStore, recipe_of_checkpoint, same_student, student_key
from spd_lightning.finetuning.sharding import is_sharded, trained_weights
from spd_lightning.finetuning.student import save_student
from spd_lightning.generation.corpus import Corpus
from spd_lightning.generation.corpus import statistics as corpus_statistics
from spd_lightning.generation.datamodule import SelfGenerationDataModule
from spd_lightning.generation.engine import Generation
from spd_lightning.model.adapter_beside import is_adapter
from spd_lightning.model.source import model_fingerprint
from spd_lightning.pipeline.tracking import log_corpus
from spd_lightning.processes import agree, barrier, is_rank_zero
from spd_lightning.scoring.verdicts import allowed_letters, holds_answer
from spd_lightning.subspace.module import SubspaceExtractionModule
from spd_lightning.subspace.moments import Moments

log = logging.getLogger(__name__)


class NoTraining(LightningModule):
    """A module without weights, under which `BenchmarkCallback` runs in ``Trainer.test``."""

    def test_dataloader(self) -> list[int]:
        """One step, so that Lightning does not skip the hooks."""
        return [0]

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing; the callback works in ``on_test_start``."""


class Pipeline:
    """One run of all stages, or of the first few.

    Args:
        extraction: Stage 1.
        data: Stage 2; also the training batches of stage 3.
        student: Stage 3.
        benchmarks: Stage 4.
        trainer: Runs stage 3; the other stages run under trainers that ``stage_trainer`` makes.
        stage_trainer: Makes a trainer for a stage with the devices and strategy of the main one.
        run: The run folder.
        store: The artifact store.
        plan: Says before each stage what it is going to cost; None says nothing.
        options: The run's configuration; the trainer's part of it is in the student's key.

    Ranks:
        Every process calls every method in the same order; files are written by rank 0.
    """

    def __init__(
        self,
        extraction: SubspaceExtractionModule,
        data: SelfGenerationDataModule,
        student: SPDFineTuningModule,
        benchmarks: BenchmarkCallback,
        trainer: Trainer,
        stage_trainer: Callable[..., Trainer],
        run: RunFolder,
        store: ArtifactStore,
        plan: Plan | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.extraction, self.data, self.student, self.benchmarks = extraction, data, student, benchmarks
        self.trainer, self.stage_trainer = trainer, stage_trainer
        self.run, self.store, self.plan, self.options = run, store, plan, options or {}
        self.stages: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.student_step: int | None = None
        data.store, data.trainer = store, trainer  # the dtype of generation is asked of its device

    def _connect(self) -> None:
        """Start the other processes before anything is decided; once, and nothing with one process.

        The stage trainer's strategy is asked: that of FSDP has no launcher in a process that was started by another.
        """
        several = self.trainer.num_devices * self.trainer.num_nodes > 1 or self.trainer.strategy.launcher is not None
        if several and not distributed.is_initialized():
            strategy = (trainer := self.stage_trainer()).strategy
            assert strategy.launcher is not None
            strategy.launcher.launch(strategy.setup_environment, trainer=trainer)

    @contextlib.contextmanager
    def _stage(self, name: str, what: str) -> Any:
        """Announce a stage, time it, and record its row for the results."""
        self._connect()
        row: dict[str, Any] = {"stage": name, "seconds": 0.0, "tokens": None, "skipped": False}
        rank_zero_info(f"[{name}] {what}")
        start = time.perf_counter()
        yield row
        row["seconds"] = round(time.perf_counter() - start, 3)
        self.stages.append(row)
        speed = f", {row['tokens'] / row['seconds']:.0f} tokens/s" if row["tokens"] and not row["skipped"] else ""
        done = "already there, skipped" if row["skipped"] else f"{row['seconds']:.1f} s{speed}"
        rank_zero_info(f"[{name}] {done}")

    def _say_cost(self, stage: str) -> None:
        """Estimated time, memory and disk of a stage that is about to run; what cannot be counted ends no run."""
        if self.plan is None or not is_rank_zero():
            return
        try:
            line = self.plan.stage(stage).line()
        except Exception as error:
            line = f"no estimate: {type(error).__name__}: {error}"
        rank_zero_info(f"[{stage}] {line}")

    def _refuse(self, problem: str | None) -> None:
        """Raise what rank 0 found, on every process."""
        if (message := agree(problem)) is not None:
            raise UserError(message)

    # Stage 1

    def extract(self) -> Path:
        """Moments from the store or from one pass over the calibration set; then the subspace, in milliseconds."""
        module = self.extraction
        module.check_options()
        with self._stage("extract", f"{module.task}: gradients of K and V on the correctness tokens") as row:
            self._refuse(self.run.changed_inputs("subspace", module.subspace_key()))
            folder = self.store.folder("moments", module.moments_key())
            file = folder / "moments.safetensors"
            row["skipped"] = agree(self.store.is_complete(folder))
            if row["skipped"]:
                module.moments = Moments.load(file)
                facts = self.store.facts(folder)["statistics"]
            else:
                self._say_cost("extract")
                self.stage_trainer().predict(module, return_predictions=False)
                facts = module.statistics.as_dict()
                if is_rank_zero() and module.moments is not None:
                    module.moments.save(file)
                    self.store.complete(folder, module.moments_key(), statistics=facts)
                barrier()
            row["tokens"] = facts.get("num_tokens")
            self.facts["calibration"] = facts
            path = self._save_subspace(module)
        module.model = None  # its memory is wanted by the next stage
        if self.data.subspace_path is None:
            self.data.subspace_path = str(path)
        self.benchmarks.run_subspace = path
        return path

    def _save_subspace(self, module: SubspaceExtractionModule) -> Path:
        key = module.subspace_key()
        folder = self.store.folder("subspace", key)
        path = folder / "subspace.safetensors"
        if is_rank_zero():
            if not self.store.is_complete(folder):
                module.subspace.save(path)
                self.store.complete(folder, key)
            self.run.add(path, "subspace/subspace.safetensors")
            self.run.record("subspace", key)
        barrier()
        return path

    def use_subspace(self, path: Path) -> None:
        """Take a subspace that the user named instead of extracting one."""
        if not path.is_file():
            raise UserError(f"data.subspace={path}: there is no such file. Give a subspace.safetensors, or none.")
        self.benchmarks.run_subspace = path
        key = {"file": file_sha256(path)}
        self._refuse(self.run.changed_inputs("subspace", key))
        if is_rank_zero():
            self.run.add(path, "subspace/subspace.safetensors")
            self.run.record("subspace", key)

    # Stage 2

    def generate(self) -> Path:
        """The corpus, continued where it stopped; batches that are there are not decoded again."""
        data = self.data
        with self._stage("generate", f"{len(data.prompts)} prompts of {data.task_name}, method {data.method}") as row:
            self._refuse(self.run.changed_inputs("corpus", data.key()))
            corpus, requests = data.corpus(), data.requests
            row["skipped"] = agree(corpus.is_final())
            if not row["skipped"]:
                with data.sole_writer(corpus):
                    row["skipped"] = agree(corpus.is_final())  # by the run that was waited for
                    if not row["skipped"]:
                        self._decode(corpus, len(requests))
            records = corpus.read()
            answer_type = data.task.answer_type
            letters = allowed_letters(answer_type, data.prompts)
            statistics = corpus_statistics(
                records, lambda r: holds_answer(data.judged_part(r["completion"]), answer_type, letters, ())
            )
            row["tokens"] = statistics["tokens_total"]
            made = self.store.facts(corpus.folder) if self.store.is_complete(corpus.folder) else {}
            self.facts["corpus"] = {**statistics, "torn_lines": made.get("torn_lines", 0), **data.facts}
            self.facts["corpus_samples"] = made.get("samples", [])
            if is_rank_zero():
                self.run.add(corpus.path, "corpus/generations.jsonl")
                self.run.record("corpus", data.key())
                if not self.adapter.is_dir():  # a run that only repeats keeps its logs
                    lengths = [record["num_tokens"] for record in records]
                    log_corpus(self.trainer.loggers, statistics, lengths, self.facts["corpus_samples"])
        return corpus.path

    def _decode(self, corpus: Corpus, wanted: int) -> None:
        data = self.data
        rank_zero_info(f"[generate] {len(corpus.finished())} of {wanted} completions are there already")
        self._say_cost("generate")
        unprojected: list[Generation] = []
        if data.engine == "transformers":
            module = data.generation_module(corpus)
            self.stage_trainer().predict(module, datamodule=data, return_predictions=False)
            unprojected = module.unprojected
        elif is_rank_zero():
            data.generate_with_vllm(corpus)
        barrier()
        if is_rank_zero():
            data.finish(corpus, unprojected)
        barrier()

    # Stage 3

    @property
    def adapter(self) -> Path:
        """Folder of the student: a PEFT adapter, or a checkpoint after full fine-tuning. It exists once complete."""
        return self.run.path / "adapter"

    def fine_tune(self, ckpt_path: str | None = None) -> Path:
        """Train the student, or take it from the run or the store where it is the same.

        Args:
            ckpt_path: Checkpoint of another run to start from. The run's own last checkpoint goes before it, if that
                was made from it.

        Raises:
            UserError: If the run holds a student or a checkpoint that was made from other inputs.
        """
        with self._stage("fine_tune", f"{self.data.method} student of {self.data.model_name_or_path}") as row:
            self.data.setup("fit")
            own = self.run.path / "checkpoints" / "last.ckpt"
            key = agree(self._student_key(ckpt_path, own))
            self._refuse(self._foreign_student(key))
            stored = StudentStore(self.store, key)
            there = agree(self.adapter.is_dir())
            row["skipped"] = there or agree(stored.has() if is_rank_zero() else False)
            if not row["skipped"]:
                resume = agree(self._checkpoint(key, ckpt_path, own))
                self._train(key, stored, resume)
                row["tokens"] = self.student.trained_tokens  # of this fit: what stood in a checkpoint took no time
            if not there and is_rank_zero():
                self.run.add_folder(stored.path, "adapter")
                self.run.record("student", {"key": key, **stored.facts()})
            barrier()
            self.student_step = agree(self.run.keys()["student"]["step"] if is_rank_zero() else None)
            self.facts["corpus"] = {**self.facts.get("corpus", {}), **self.data.facts}
        self.student.model = None
        return self.adapter

    def _student_key(self, ckpt_path: str | None, own: Path) -> dict[str, Any]:
        foreign = ckpt_path is not None and Path(ckpt_path).resolve() != own.resolve()
        return student_key(
            model_fingerprint(self.data.model_name_or_path),
            file_sha256(self.data.corpus().path),
            self.data.train_texts,
            self.data.val_texts,
            self.student.hparams,
            self.options,
            self.trainer.world_size,
            file_sha256(ckpt_path) if foreign and ckpt_path is not None else None,
        )

    def _foreign_student(self, key: dict[str, Any]) -> str | None:
        """Why the run's student is not the one of these options and inputs; None if it is, or there is none."""
        if not is_rank_zero() or not self.adapter.is_dir():
            return None
        record = self.run.keys().get("student")
        if record is None:
            return (
                f"{self.adapter} holds a student without a record of what it was made from. Set --run_dir to a new "
                "folder."
            )
        if differ := differences(same_student(record["key"]), same_student(key)):
            return (
                f"{self.adapter} holds a student that was made otherwise ({'; '.join(differ)}). Set --run_dir to a new "
                "folder; the old one keeps what it has."
            )
        if weights_sha256(self.adapter) != record["weights_sha256"]:
            return (
                f"The weights in {self.adapter} are not those that were trained: they were changed since. Put the old "
                "ones back, or remove that folder to have the student made again."
            )
        return None

    def _checkpoint(self, key: dict[str, Any], ckpt_path: str | None, own: Path) -> str | None:
        """The checkpoint to continue from: the run's own if it is of this student, else the one that was named.

        Raises:
            UserError: If the run's own is of another student, and none was named.
        """
        if not own.is_file():
            return ckpt_path
        there = recipe_of_checkpoint(own)
        differ = differences(same_student(there), same_student(key))
        if not differ:
            return str(own)
        if ckpt_path is not None:
            return ckpt_path
        what = "; ".join(differ) if there else "it has no record of what it was made from"
        raise UserError(
            f"{own} is a checkpoint of another student ({what}). Remove it to start anew, set --run_dir to a new "
            "folder, or name a checkpoint by --ckpt_path."
        )

    def _train(self, key: dict[str, Any], stored: StudentStore, resume: str | None) -> None:
        """Run stage 3's trainer and put the student into the store."""
        self._say_cost("fine_tune")
        self.student.recipe = key
        self.trainer.fit(self.student, datamodule=self.data, ckpt_path=resume, weights_only=True)
        if self.trainer.interrupted:
            raise KeyboardInterrupt
        self.student_step = self.trainer.global_step
        self._take_best()
        model = self.student.model
        assert model is not None
        weights = trained_weights(model) if is_sharded(model) else None
        if is_rank_zero():
            stored.keep(
                lambda folder: save_student(model, folder, self.data.model_name_or_path, weights), self.student_step
            )
        barrier()

    def _take_best(self) -> None:
        """Go back to the best checkpoint, where the user asked for one by a ModelCheckpoint that monitors a loss."""
        for saver in self.trainer.checkpoint_callbacks:
            if isinstance(saver, ModelCheckpoint) and saver.monitor and saver.best_model_score is not None:
                checkpoint = torch.load(saver.best_model_path, map_location="cpu", weights_only=True)
                options = StateDictOptions(full_state_dict=True, strict=False)
                set_model_state_dict(self.student, checkpoint["state_dict"], options=options)
                self.student_step = checkpoint["global_step"]
                rank_zero_info(
                    f"[fine_tune] the student is that of optimiser step {checkpoint['global_step']}, the best by "
                    f"{saver.monitor} ({float(saver.best_model_score):.4f})"
                )
                return

    # Stage 4

    def evaluate(self, adapter: str | None) -> None:
        """Score base, student and projected base, as ``evaluation.methods`` says, all in the same dtype."""
        bench = self.benchmarks
        with self._stage("evaluate", ", ".join(b.task for b in bench.benchmarks())) as row:
            bench.adapter = adapter if "student" in bench.methods else None
            bench.student_step = self.student_step
            trainer = self.stage_trainer(bench, self.trainer.loggers or False)
            self._say_cost("evaluate")
            trainer.test(NoTraining(), verbose=False)
            row["skipped"] = bench.all_from_store
        self.facts |= {"benchmarks": bench.facts, "not_run": bench.not_run}
        if adapter is not None:
            sets = {"training prompts": self.data.prompts}
            if self.extraction.moments is not None:
                sets["calibration"] = self.extraction.examples
            self.facts["overlap"] = bench.overlap_rows(sets)

    # Stage 5

    def report(self, method: str, trained_on: str | None, fingerprint: str) -> None:
        """Write ``results.json`` and the report, print the one table, and where the page is."""
        from spd_lightning.report.page import write_report
        from spd_lightning.report.runs import read_run
        from spd_lightning.report.schema import write_results
        from spd_lightning.report.tables import render_table

        if not is_rank_zero():
            return
        write_results(
            self.run.path,
            fingerprint,
            trained_on,
            method,
            self.benchmarks.score_rows,
            self.benchmarks.comparison_rows,
            self.stages,
            **self.facts,
        )
        page = write_report([self.run.path], self.run.path)
        print(f"\n{render_table(read_run(self.run.path))}\n\nReport: {page}", file=sys.stdout, flush=True)


def student_folder(run_dir: Path) -> str | None:
    """The run's finished student, if there is one: that of its last round, the one that ``fit`` scored."""
    rounds = sorted(run_dir.glob("round-*/student"), key=lambda p: int(p.parent.name.removeprefix("round-")))
    folder = rounds[-1] if rounds else run_dir / "adapter"
    return str(folder) if is_adapter(folder) or (folder / "config.json").is_file() else None
