"""The order of the stages for each command, and the rounds of ``fit``.

    extract      stage 1
    generate     stages 1 and 2
    fit          stages 1 to 3 as often as ``model.rounds`` says, then 4 and 5
    test         stages 4 and 5

The command line makes a `Run` of its options; a stage itself is in `pipeline.stages`. Every round has objects and a
folder of its own, and nothing of the run's is changed meanwhile.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.artifacts.expressions import marked
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.runs import showing
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.cost.plan import Plan
from spd_lightning.errors import UserError
from spd_lightning.evaluation.context import RunContext
from spd_lightning.finetuning.student import write_merged
from spd_lightning.model.adapter_beside import read_record
from spd_lightning.model.written import damage_of
from spd_lightning.pipeline.adding import earlier_results, with_earlier
from spd_lightning.pipeline.agreement import Check, Reference, agreement_table, conclusion
from spd_lightning.pipeline.duration import say_if_long
from spd_lightning.pipeline.formats import formats_said
from spd_lightning.pipeline.holding import hold
from spd_lightning.pipeline.parts import Parts
from spd_lightning.pipeline.preflight import preflight
from spd_lightning.pipeline.resume import (
    check_checkpoint,
    format_of_student,
    origin_of_student,
    write_student_of_checkpoint,
)
from spd_lightning.pipeline.run_log import RunLogger
from spd_lightning.pipeline.stages import Pipeline
from spd_lightning.pipeline.tracking import describe_environment
from spd_lightning.pipeline.trainers import main_trainer
from spd_lightning.processes import barrier, is_rank_zero
from spd_lightning.report.render import text_table
from spd_lightning.tasks.mix import Tasks, label


@dataclass(frozen=True)
class Run:
    """What a command works on.

    Attributes:
        options: Of the command, as they were parsed.
        config: The same as plain values, for files: what came from the environment stands as its expression.
        hashes: Of the values that expressions stand for, by dotted name.
        content: What the run is made from beside its options: fingerprints of model and task file.
        fingerprint: Of options and content.
        model_commit: Of a hub model.
        folder: The run folder.
        store: The artifact store.
        parts: The objects of the stages.
        trainer: Of stage 3.
        make: Makes the objects of other options, for a later round.
        added: Where benchmarks are added to a run: in what their options differ from its own; else None.
        command: What was typed.
    """

    options: Any
    config: Mapping[str, Any]
    hashes: Mapping[str, str]
    content: Mapping[str, Any]
    fingerprint: str
    model_commit: str | None
    folder: RunFolder
    store: ArtifactStore
    parts: Parts
    trainer: Trainer
    make: Callable[[Any], Parts]
    added: list[str] | None = None
    command: Sequence[str] = ()

    @property
    def keyed(self) -> dict[str, Any]:
        """The configuration for keys: beside an expression stands the hash of its value."""
        return marked(self.config, self.hashes)


@contextlib.contextmanager
def claimed(run: Run) -> Iterator[None]:
    """Hold the run folder while the context lasts; a mistake found before any work gives it back.

    Ranks:
        Rank 0 holds it; the others only work.
    """
    if not is_rank_zero():
        yield
        return
    environment = {**describe_environment(run.fingerprint, run.command), "content": run.content}
    if run.model_commit is not None:
        environment["revisions"] = {"model": run.model_commit}
    if run.hashes:
        environment["values"] = dict(run.hashes)
    with hold(run.folder, run.store, run.config, environment):
        yield


def attach_benchmarks(options: Any, parts: Parts, method: str | None, **place: Any) -> None:
    """Tell stage 4 what the run knows; ``method`` is None where nothing is trained."""
    place = {"model_name_or_path": options.subspace.model_name_or_path, **place}
    parts.benchmarks.suite.enter(
        RunContext(
            data_dir=options.data_dir,
            task_file=parts.data.recipe.questions.task_file,
            calibrated_task=options.subspace.task,
            trained_task=options.subspace.task if method else None,
            method=method or "base",
            seed=options.seed_everything,
            dtype=options.data.dtype,
            prompt_format=options.data.prompt_format,
            adapter=options.evaluation.adapter,
            has_stage=True,
            **place,
        )
    )


def check(run: Run, command: str, stages: Collection[str]) -> None:
    """See `preflight`; a benchmark's task is that of the run, or of the student that the command test names."""
    parts, options = run.parts, run.options
    task, method = options.subspace.task, str(parts.data.recipe.method)
    if command == "test":
        task, method = _origin(run, options.get("ckpt_path") or options.evaluation.adapter or run.folder.student())
    attach_benchmarks(options, parts, method)
    parts.benchmarks.suite.enter(replace(parts.benchmarks.suite.context, trained_task=task))
    preflight(run, command, stages, lambda: Plan(*vars(parts).values()).disk(stages))


def _origin(run: Run, student: Path | str | None) -> tuple[Tasks | None, str]:
    """Task and method of the student that the command test scores; of none, where there is none."""
    if student is None:
        return None, "base"
    options, method = run.options.subspace, run.parts.data.recipe.method
    return origin_of_student(Path(student), options.task, method, options.task_file is not None)


def _pipeline(run: Run, method: str | None) -> Pipeline:
    attach_benchmarks(run.options, run.parts, method, samples=run.folder.samples, store=run.store)
    for line in formats_said(run.parts, run.options.data.prompt_format):
        rank_zero_info(line)
    return Pipeline(run.parts, run.trainer, run.folder, run.store, run.keyed)


def extract(run: Run) -> None:
    """Stage 1."""
    _pipeline(run, None).extract()
    if is_rank_zero():
        print(f"Subspace: {run.folder.subspace}")


def generate(run: Run) -> None:
    """Stages 1 and 2.

    Raises:
        UserError: If the method generates nothing.
    """
    data = run.parts.data
    if data.recipe.method == "base":
        raise UserError("data.method=base generates nothing. Set --data.method to psr, ssd, spd or filtered.")
    pipeline = _pipeline(run, None)
    if data.recipe.method == "spd" and data.recipe.subspace is None:
        pipeline.extract()
    pipeline.generate()
    if is_rank_zero():
        print(f"Corpus: {run.folder.corpus}")


def test(run: Run, ckpt_path: str | None = None) -> None:
    """Stage 4 alone: base, and a student or a projected base where one is named or already in the run folder."""
    suite, options = run.parts.benchmarks.suite, run.options
    adapter = options.evaluation.adapter or run.folder.student()
    if ckpt_path is not None:
        check_checkpoint(ckpt_path, options.subspace.model_name_or_path)
        adapter = write_student_of_checkpoint(ckpt_path, run.parts.student, run.folder)
    task, method = _origin(run, ckpt_path or adapter)
    if adapter is not None and options.data.prompt_format == "plain":  # not typed: it is asked as it was trained
        options.data.prompt_format = format_of_student(Path(ckpt_path or adapter))
    pipeline = _pipeline(run, method if adapter else None)
    subspace = run.folder.subspace if run.folder.subspace.is_file() else None
    suite.enter(replace(suite.context, trained_task=task, subspace=subspace))  # the student's task, not the command's
    pipeline.evaluate(str(adapter) if adapter is not None else None)
    _report(run, pipeline, method, task)


def fit(run: Run, ckpt_path: str | None = None, check_against: str | None = None) -> bool:
    """All stages; a later round starts from the student before it.

    Args:
        run: The run.
        ckpt_path: Checkpoint to start the first round's training from.
        check_against: Finished run of the same settings to compare with.

    Returns:
        Whether every bound of that comparison holds; True without one.
    """
    parts, data = run.parts, run.parts.data
    method, rounds = data.recipe.method, int(parts.student.hparams["rounds"])
    trains = method != "base"
    if ckpt_path is not None:
        check_checkpoint(ckpt_path, run.options.subspace.model_name_or_path)
    pipeline = _pipeline(run, method if trains else None)
    parts.benchmarks.suite.benchmarks()  # a wrong name is told now, not after hours
    if parts.benchmarks.suite.options.base_shots:
        parts.benchmarks.suite.shots_benchmarks()
    say_if_long(pipeline.plan, run.folder, method, rounds)
    device = run.trainer.strategy.root_device
    checks: list[Check] = []
    reference = Reference(Path(check_against), run.folder, run.store, run.keyed) if check_against else None
    if data.recipe.subspace is not None:
        pipeline.use_subspace(Path(data.recipe.subspace))
    elif method == "spd" or "projected" in parts.benchmarks.suite.options.methods:
        own = pipeline.extract()
        if reference is not None:
            module = parts.extraction
            checks = reference.check_extraction(module.moments_keys(), module.found, module.weights, own, device)
            pipeline.use_subspace(reference.folder.subspace)
    student = None
    if trains:
        pipeline.generate()
        student = pipeline.fine_tune(ckpt_path)
        for number in range(2, rounds + 1):
            student = _next_round(run, number, student, pipeline)
    pipeline.evaluate(str(student) if student is not None else None)
    _report(run, pipeline, method, run.options.subspace.task if trains else None)
    return reference is None or not is_rank_zero() or _verdict(reference, checks + reference.check_run(run.folder))


def _next_round(run: Run, number: int, student: Path, first: Pipeline) -> Path:
    """Extract, generate and train once more from ``student``; returns the new one as an ordinary checkpoint.

    The student before is written to ``round-<n>/base``, the new one to ``round-<n>/student``: float32 checkpoints
    that hold base and adapters beside the merged weights.
    """
    folder = run.folder.round(number)
    base = folder.round_base
    options = run.options.clone()
    _write_whole(options.subspace.model_name_or_path, student, base)
    for section in ("subspace", "data", "model"):
        options[section].model_name_or_path = str(base)
    parts = run.make(options)
    attach_benchmarks(options, parts, parts.data.recipe.method, samples=folder.samples, store=run.store)
    logger = RunLogger(folder.logs, name="", version="")
    trainer = main_trainer(parts.trainer, folder, run.config, parts.benchmarks, logger=[logger])
    pipeline = Pipeline(parts, trainer, folder, run.store, run.keyed)
    if parts.data.recipe.method == "spd":
        pipeline.extract()
    pipeline.generate()
    adapter = pipeline.fine_tune()
    _write_whole(str(base), adapter, folder.round_student)
    if first.student_step is not None and pipeline.student_step is not None:
        first.student_step += pipeline.student_step  # scores are logged after the steps of all rounds
    first.facts["health"] += [{**row, "stage": f"{row['stage']} (round {number})"} for row in pipeline.facts["health"]]
    first.stages += [{**row, "stage": f"{row['stage']} (round {number})"} for row in pipeline.stages]
    return folder.round_student


def _write_whole(name: str, student: Path, folder: Path) -> None:
    """Write a student as an ordinary checkpoint, unless it is there whole (rank 0 does; the others wait)."""
    if is_rank_zero():
        if why := damage_of(folder):
            print(f"{folder} is damaged ({'; '.join(why)}): it is written anew.", file=sys.stderr)
        if why or read_record(folder) is None:
            write_merged(name, student, folder)
    barrier()


def _report(run: Run, pipeline: Pipeline, method: str, trained_on: Tasks | None) -> None:
    """Write ``results.json`` and the report, print the one table, and where the page is."""
    from spd_lightning.report.page import write_report
    from spd_lightning.report.runs import read_run
    from spd_lightning.report.schema import write_results
    from spd_lightning.report.tables import render_table

    if not is_rank_zero():
        return
    scored = pipeline.benchmarks.suite
    rows = {"scores": scored.score_rows, "comparisons": scored.comparison_rows, "stages": pipeline.stages}
    found = {"fingerprint": run.fingerprint, "trained_on": label(trained_on) if trained_on else None, "method": method}
    earlier = earlier_results(run.folder, run.fingerprint)
    write_results(run.folder.path, **with_earlier(earlier, {**found, **rows, **pipeline.facts}, run.added))
    with showing([run.folder]) if earlier else contextlib.nullcontext():  # some files may not be of this command
        page = write_report([run.folder.path], run.folder.path)
        print(f"\n{render_table(read_run(run.folder.path))}\n\nReport: {page}", flush=True)


def _verdict(reference: Reference, checks: list[Check]) -> bool:
    """Print what was compared; whether every bound holds."""
    table = text_table(agreement_table(checks))
    print(f"\nAgainst {reference.folder.path}:\n{table}\n{conclusion(checks)}", flush=True)
    return all(check.holds for check in checks)
