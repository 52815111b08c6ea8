"""The stages: each reads the artifact before it, writes one of its own, and is skipped if that exists.

    extract -> generate -> fine_tune -> evaluate

What a command runs of them, and how often, is in `pipeline.fit`, and so is the report. Every stage is a run of a
Lightning Trainer with the main trainer's devices and strategy, so one configuration serves one core or many GPUs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.artifacts.files import add_file, add_folder, file_sha256
from spd_lightning.artifacts.reading import missing
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.cost.plan import Plan
from spd_lightning.errors import UserError, counted
from spd_lightning.evaluation.callback import occasion
from spd_lightning.evaluation.health import suite_health
from spd_lightning.evaluation.movement import measure_movement
from spd_lightning.evaluation.passes import pass_rows
from spd_lightning.finetuning.health import training_health
from spd_lightning.finetuning.sharding import is_sharded, trained_weights
from spd_lightning.finetuning.student import save_student
from spd_lightning.finetuning.student_key import StudentStore
from spd_lightning.generation.corpus import Corpus, sole_writer
from spd_lightning.generation.figures import corpus_figures
from spd_lightning.generation.health import corpus_lines
from spd_lightning.generation.module import SelfGenerationModule
from spd_lightning.generation.recipe import finish, finished, generate_with_vllm, open_corpus
from spd_lightning.generation.requests import Generation
from spd_lightning.health import Health
from spd_lightning.pipeline.interruption import held, in_stage
from spd_lightning.pipeline.parts import Parts
from spd_lightning.pipeline.resume import checkpoint_to_continue, foreign_student, key_of_student, set_damaged_aside
from spd_lightning.pipeline.tracking import log_corpus
from spd_lightning.pipeline.trainers import NoTraining, stage_trainer, start_processes, take_best
from spd_lightning.pipeline.training_checks import refusals_told
from spd_lightning.processes import agree, barrier, is_rank_zero
from spd_lightning.subspace.calibration import calibration_health
from spd_lightning.subspace.kept import KeptMoments
from spd_lightning.subspace.module import SubspaceExtractionModule
from spd_lightning.subspace.stability import overlap_of_halves
from spd_lightning.tasks.mix import label, of_each


class Pipeline:
    """One run of all stages, or of the first few.

    Args:
        parts: The objects of the stages.
        trainer: Runs stage 3; the other stages run under trainers with the same devices and strategy.
        run: The run folder.
        store: The artifact store.
        config: The run's configuration as keys hold it; the trainer's part of it is in the student's.

    Ranks:
        Every process calls every method in the same order; files are written by rank 0.
    """

    def __init__(
        self, parts: Parts, trainer: Trainer, run: RunFolder, store: ArtifactStore, config: Mapping[str, Any]
    ) -> None:
        self.extraction, self.data = parts.extraction, parts.data
        self.student, self.benchmarks = parts.student, parts.benchmarks
        self.trainer, self.trainer_options = trainer, parts.trainer
        self.run, self.store, self.config = run, store, config
        self.plan = Plan(parts.extraction, parts.data, parts.student, parts.benchmarks, parts.trainer)
        self.stages: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {"health": []}
        self.student_step: int | None = None
        self.recipe = parts.data.recipe.on(trainer.strategy.root_device)

    def _stage_trainer(self, *what: Any, **how: Any) -> Trainer:
        return stage_trainer(self.trainer_options, self.run, *what, **how)

    @contextlib.contextmanager
    def _stage(self, name: str, what: str) -> Iterator[dict[str, Any]]:
        """Announce a stage, time it, and record its row for the results."""
        start_processes(self.trainer, self.trainer_options, self.run)
        self.run.check_there()
        row: dict[str, Any] = {"stage": name, "seconds": 0.0, "tokens": None, "skipped": False}
        rank_zero_info(f"[{name}] {what}")
        start = time.perf_counter()
        in_stage(name)
        yield row
        row["seconds"] = round(time.perf_counter() - start, 3)
        self.stages.append(row)
        speed = f", {row['tokens'] / row['seconds']:.0f} tokens/s" if row["tokens"] and not row["skipped"] else ""
        done = "already there, skipped" if row["skipped"] else f"{row['seconds']:.1f} s{speed}"
        rank_zero_info(f"[{name}] {done}")

    def _say_cost(self, stage: str) -> None:
        """Estimated time, memory and disk of a stage that is about to run; what cannot be counted ends no run."""
        if not is_rank_zero():
            return
        try:
            line = self.plan.stage(stage).line()
        except Exception as error:
            line = f"no estimate: {type(error).__name__}: {error}"
        rank_zero_info(f"[{stage}] {line}")

    def _tell(self, *lines: Health) -> None:
        """Tell how a stage's result looks, and keep it for the results."""
        self.facts["health"] += [health.told(rank_zero_info) for health in lines]

    def _refuse(self, problem: str | None) -> None:
        """Raise what rank 0 found, on every process."""
        if (message := agree(problem)) is not None:
            raise UserError(message)

    # Stage 1

    def extract(self) -> Path:
        """Moments from the store or from one pass over the calibration set; then the subspace, in milliseconds."""
        module = self.extraction
        module.check_options()
        what = f"{label(module.calibrated_task)}: gradients of K and V on the correctness tokens"
        with self._stage("extract", what) as row:
            self._refuse(self.run.changed_inputs("subspace", module.subspace_key()))
            kept = KeptMoments(self.store, module.moments_keys())
            there = agree(kept.there())
            row["skipped"] = len(there) == len(kept.keys)
            module.found, facts = kept.load(there)
            if not row["skipped"]:
                self._say_cost("extract")
                self._stage_trainer(doing="Extracting gradients").predict(module, return_predictions=False)
                for task in sorted(set(kept.keys) - set(there)):
                    facts[task] = module.pairs[task].encoded[1].as_dict()
                    kept.keep(task, module.found[task], facts[task])
                barrier()
            row["tokens"] = sum(own["num_tokens"] for t, own in facts.items() if row["skipped"] or t not in there)
            facts = {task: {**own, "split": module.pairs[task].task.train_split_name} for task, own in facts.items()}
            self.facts["calibration"] = {"tasks": facts} if len(facts) > 1 else next(iter(facts.values()))
            path = self._save_subspace(module)
        self._tell(*(calibration_health(module.num_examples, own, name) for name, own in of_each("", facts).items()))
        module.model = None  # its memory is wanted by the next stage
        if self.recipe.subspace is None:
            self.recipe = self.recipe.under(path)
        self._take(subspace=path)
        return path

    def _save_subspace(self, module: SubspaceExtractionModule) -> Path:
        key = module.subspace_key()
        path = (folder := self.store.folder("subspace", key)) / self.run.subspace.name
        if is_rank_zero():
            with self.store.writing(folder) as wanted:
                if wanted:
                    module.subspace.save(path)
                    self.store.complete(folder, key)
            add_file(path, self.run.subspace)
            self.run.record("subspace", key)
        barrier()
        return path

    def use_subspace(self, path: Path) -> None:
        """Take a subspace that the user named instead of extracting one."""
        if not path.is_file():
            raise UserError(f"data.subspace={path}: {missing(path)}. Give a subspace.safetensors, or none.")
        self._take(subspace=path)
        self.recipe = self.recipe.under(path)
        key = {"file": file_sha256(path)}
        self._refuse(self.run.changed_inputs("subspace", key))
        if is_rank_zero():
            add_file(path, self.run.subspace)
            self.run.record("subspace", key)

    # Stage 2

    def generate(self) -> Path:
        """The corpus, continued where it stopped; batches that are there are not decoded again."""
        recipe, questions = self.recipe, self.recipe.questions
        what = f"{counted(len(questions.prompts), 'prompt')} of {label(questions.tasks)}, method {recipe.method}"
        with self._stage("generate", what) as row:
            self._refuse(self.run.changed_inputs("corpus", recipe.key()))
            corpus = open_corpus(recipe, self.store, self.data.corpus_dir)
            made, row["skipped"] = finished(corpus, self.store), True
            if made is None:
                with sole_writer(corpus, rank_zero_info):
                    if (made := finished(corpus, self.store)) is None:  # nor by the run that was waited for
                        made, row["skipped"] = self._decode(corpus), False
            records = corpus.read()
            figures = corpus_figures(records, questions)
            row["tokens"] = figures["tokens_total"]
            seen = {"torn_lines": made["torn_lines"], "prompts": questions.counts, "split": questions.split}
            self.facts["corpus"] = {**figures, **seen}
            self.facts["corpus_samples"] = made["samples"]
            if is_rank_zero():
                add_file(corpus.path, self.run.corpus)
                self.run.record("corpus", recipe.key())
                if not self.run.adapter.is_dir():  # a run that only repeats keeps its logs
                    lengths = [record["num_tokens"] for record in records]
                    log_corpus(self.trainer.loggers, figures, lengths, self.facts["corpus_samples"])
        self._tell(*corpus_lines(records, questions))
        return corpus.path

    def _decode(self, corpus: Corpus) -> dict[str, Any]:
        recipe = self.recipe
        rank_zero_info(
            f"[generate] {len(corpus.finished())} of {len(recipe.questions.requests)} completions are there already"
        )
        self._say_cost("generate")
        unprojected: list[Generation] = []
        if recipe.engine == "transformers":
            module = SelfGenerationModule(recipe, corpus, self.data.device_map)
            self._stage_trainer(doing="Generating").predict(module, return_predictions=False)
            unprojected = module.unprojected
        elif is_rank_zero():
            generate_with_vllm(recipe, corpus)
        barrier()
        if is_rank_zero():
            finish(recipe, corpus, self.store, unprojected)
        barrier()
        return self.store.facts(corpus.folder)

    # Stage 3

    def fine_tune(self, ckpt_path: str | None = None) -> Path:
        """Train the student, or take it from the run or the store where it is the same.

        Args:
            ckpt_path: Checkpoint of another run to start from. The run's own last checkpoint goes before it, if that
                was made from it.

        Raises:
            UserError: If the run holds a student or a checkpoint that was made from other inputs.
        """
        with self._stage("fine_tune", f"{self.recipe.method} student of {self.recipe.model_name_or_path}") as row:
            self.data.settle(self.recipe, self.store, told=True)
            self.data.setup("fit")
            key = agree(
                key_of_student(self.data, self.student, self.config, self.trainer.world_size, self.run, ckpt_path)
            )
            self._refuse(foreign_student(self.run, key) if is_rank_zero() else None)
            stored = StudentStore(self.store, key)
            there = agree(self.run.adapter.is_dir())
            row["skipped"] = there or agree(stored.has() if is_rank_zero() else False)
            if not row["skipped"]:
                set_damaged_aside(self.run)
                resume = agree(checkpoint_to_continue(self.run, key, ckpt_path))
                self._train(key, stored, resume)
                row["tokens"] = self.student.trained_tokens  # of this fit: what stood in a checkpoint took no time
            if not there and is_rank_zero():
                add_folder(stored.path, self.run.adapter)
                self.run.record("student", {"key": key, **stored.facts()})
            barrier()
            made: Any = agree(self.run.keys()["student"] if is_rank_zero() else None)
            self.student_step = made["step"]
            self.facts["corpus"] = {**self.facts.get("corpus", {}), **self.data.facts}
        if made.get("read"):  # students made before this was kept have none
            self._tell(training_health(made["read"]))
        self.student.model = None
        return self.run.adapter

    def _train(self, key: dict[str, Any], stored: StudentStore, resume: str | None) -> None:
        """Run stage 3's trainer and put the student into the store."""
        self._say_cost("fine_tune")
        self.student.key = key
        with held(), refusals_told():
            self.trainer.fit(self.student, datamodule=self.data, ckpt_path=resume, weights_only=True)
        self.student_step = take_best(self.trainer, self.student)
        model = self.student.model
        assert model is not None
        weights = trained_weights(model) if is_sharded(model) else None
        if is_rank_zero():
            base = self.recipe.model_name_or_path
            stored.keep(lambda to: save_student(model, to, base, weights), self.student_step, self.student.read)
        barrier()

    # Stage 4

    def _take(self, **known: Any) -> None:
        """Hand stage 4 what the run knows by now."""
        suite = self.benchmarks.suite
        suite.enter(replace(suite.context, **known))

    def evaluate(self, adapter: str | None) -> None:
        """Score base, student and projected base, as ``evaluation.methods`` says, all in the same dtype."""
        bench = self.benchmarks.suite
        with self._stage("evaluate", ", ".join(b.task for b in bench.benchmarks())) as row:
            self._take(adapter=adapter if "student" in bench.options.methods else None, student_step=self.student_step)
            trainer = self._stage_trainer(self.benchmarks, self.trainer.loggers or False)
            self._say_cost("evaluate")
            trainer.test(NoTraining(), verbose=False)
            row["skipped"] = bench.all_from_store
        self._tell(*suite_health(bench.final(), bench.options.limit, bench.options.best_decoding_rows))
        self.facts |= {"benchmarks": bench.facts, "not_run": bench.not_run}
        if passes := pass_rows(bench.final()):
            self.facts["passes"] = passes
        if adapter is not None:
            module, cut = self.extraction, self.student.hparams["max_length"]
            texts, now = self.data.train_texts, occasion(trainer, None)
            moved = measure_movement(bench, now, texts, cut) if is_rank_zero() else None
            if moved is not None:
                moved["subspace"] = overlap_of_halves(module.moments, module.rank, module.center, module.basis)
            self.facts["moved"] = agree(moved)
            asked, pairs = self.recipe.questions.asked, self.extraction.pairs
            sets = of_each("training prompts", {task: part.prompts for task, part in asked.items()})
            if self.extraction.moments is not None:
                sets |= of_each("calibration", {task: part.examples for task, part in pairs.items()})
            self.facts["overlap"] = bench.overlap_rows(sets)
