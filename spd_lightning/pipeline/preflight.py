"""What every stage of a command asks of its options, asked before the first begins: within seconds, without weights.

Each stage keeps its own checks; here they are asked one after another, and everything that is wrong is told at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.artifacts.reading import missing
from spd_lightning.cost.formulas import size
from spd_lightning.errors import UserError
from spd_lightning.evaluation.portion import Way, ask
from spd_lightning.evaluation.shots import all_with_shots
from spd_lightning.finetuning.trained_model import check_student
from spd_lightning.model.anatomy import context_of
from spd_lightning.model.load import load_config, load_tokenizer, resolve_dtype
from spd_lightning.model.source import model_fingerprint
from spd_lightning.model.student_base import check_base_of
from spd_lightning.pipeline.agreement import Reference
from spd_lightning.pipeline.parts import Parts
from spd_lightning.pipeline.resume import check_checkpoint
from spd_lightning.pipeline.tracking import check_login
from spd_lightning.pipeline.training_checks import check_training
from spd_lightning.scoring.isolation import consent_message, may_execute
from spd_lightning.subspace.subspace import CapabilitySubspace


def preflight(run: Any, command: str, stages: Collection[str], needed: Callable[[], float]) -> None:
    """Refuse what would end any of the stages, before the first of them.

    Args:
        run: A `pipeline.fit.Run`; its benchmarks know the run already.
        command: The command.
        stages: Those that it runs, by the names of ``results.json``.
        needed: Bytes that they are going to write; asked last.

    Raises:
        UserError: With everything that is wrong, one a line.

    Ranks:
        Every process may ask; issues no collective.
    """
    problems = refused(_run_checks(run, command, stages))
    problems = problems or refused([lambda: _check_disk(run, needed())])
    if problems:
        raise UserError("\n".join(problems))


def refused(checks: Iterable[Callable[[], None]]) -> list[str]:
    """What checks find wrong, each once."""
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems += str(error).splitlines()
    return list(dict.fromkeys(problems))


def _run_checks(run: Any, command: str, stages: Collection[str]) -> Iterator[Callable[[], None]]:
    """What a run asks of its places, and then of its stages."""
    check_against = run.options.get("check_against")
    yield run.folder.check_owned
    yield lambda: _check_places(run, stages)
    if check_against:
        yield lambda: _ignore(Reference(Path(check_against), run.folder, run.store, run.keyed))
    if command == "test":
        own = run.folder.subspace if run.folder.subspace.is_file() else None
        run.parts.benchmarks.suite.enter(replace(run.parts.benchmarks.suite.context, subspace=own))
    where = (str(run.trainer.precision), run.trainer.strategy.root_device)
    yield from stage_checks(run.options, run.parts, command, stages, *where)


def stage_checks(
    options: Any, parts: Parts, command: str, stages: Collection[str], precision: str, device: torch.device
) -> Iterator[Callable[[], None]]:
    """What the stages ask, in their order.

    Args:
        options: Of the command, as they were parsed.
        parts: The objects of the stages; the benchmarks know the run already.
        command: The command.
        stages: Those that it runs.
        precision: The trainer's, by its whole name.
        device: That the stages run on.
    """
    name, ckpt_path = options.subspace.model_name_or_path, options.get("ckpt_path")
    if ckpt_path is not None:
        yield lambda: check_checkpoint_of(ckpt_path, name)
    if options.trainer.logger in (None, True):
        yield check_login
    if "extract" in stages:
        yield parts.extraction.check_options
        yield lambda: _ignore([pairs.encoded for pairs in parts.extraction.pairs.values()])
    if "generate" in stages:
        yield lambda: parts.data.check_options(trains="fine_tune" in stages)
    if "fine_tune" in stages:
        yield lambda: check_training(parts.trainer, parts)
        yield lambda: check_student(parts.student.hparams, precision)
        yield lambda: check_rounds(parts, device)
    yield lambda: check_subspace(options.data.subspace, name)
    yield lambda: check_subspace(options.evaluation.subspace, name)
    if "evaluate" in stages:
        if command == "test" and options.evaluation.adapter is not None:
            yield lambda: check_adapter(options.evaluation.adapter, name)
        if command == "test" and "projected" in parts.benchmarks.suite.options.methods:
            yield lambda: _ignore(parts.benchmarks.suite.subspace())
        yield lambda: check_some_model(parts, command)
        yield lambda: check_benchmarks(parts, name)


def _ignore(value: Any) -> None:
    """A check that gives something, as one that gives nothing."""


def check_checkpoint_of(ckpt_path: str, name: str) -> None:
    """Refuse a checkpoint that is not there, or of another model."""
    if not Path(ckpt_path).is_file():
        raise UserError(f"ckpt_path={ckpt_path}: {missing(ckpt_path)}. Give a checkpoint that fit wrote.")
    check_checkpoint(ckpt_path, name)


def check_subspace(file: str | None, name: str) -> None:
    """Refuse a subspace that is not there, or of another model."""
    if file is None:
        return
    if not Path(file).is_file():
        raise UserError(f"subspace={file}: {missing(file)}. Give a subspace.safetensors, or none.")
    CapabilitySubspace.load(file).check_model(model_fingerprint(name))


def check_adapter(folder: str, name: str) -> None:
    """Refuse a student that is not there, or of another model."""
    if not Path(folder).is_dir():
        raise UserError(f"adapter={folder!r}: {missing(folder, 'folder')}. Set --evaluation.adapter to one.")
    check_base_of(folder, name)


def check_some_model(parts: Parts, command: str) -> None:
    """Refuse to score nothing, a student that is not there say; a training may go without scores."""
    options, student = parts.benchmarks.suite.options, parts.benchmarks.suite.context.method != "base"
    named = (
        {"base", "projected"} & {*options.methods} or options.subspace or options.base_shots or options.best_decoding
    )
    if not named and not (student and (command != "test" or "student" in options.methods)):
        raise UserError(
            f"methods={list(options.methods)} leaves nothing to score. Set methods (--evaluation.methods) to [base], "
            "say: a student is scored where one is trained, or named to `test` (--evaluation.adapter)."
        )


def check_benchmarks(parts: Parts, name: str) -> None:
    """Refuse benchmarks without data, that the model's context is too short for, or of which none may be run."""
    suite = parts.benchmarks.suite
    chosen = suite.options
    found = suite.benchmarks()
    if chosen.base_shots:
        all_with_shots(suite.shots_benchmarks(), chosen.base_shots, suite.context)
    for task, why in suite.missing.items():
        rank_zero_info(f"{task} will be reported as not run. {why}")
    if not found:
        raise UserError(f"None of the tasks can be scored. {' '.join(dict.fromkeys(suite.missing.values()))}")
    settings = suite.settings
    forbidden = [b.task for b in found if b.answer_type == "program"]
    if forbidden and not may_execute(settings["allow_code_execution"]):
        why = (
            "evaluation.allow_code_execution=false forbids to run programs. Set it to true, or leave these tasks out."
            if settings["allow_code_execution"] is False
            else consent_message()
        )
        if len(forbidden) == len(found):
            raise UserError(f"None of the tasks can be scored ({', '.join(forbidden)}). {why}")
        rank_zero_info(f"{', '.join(forbidden)} will be reported as not run. {why}")
    tokenizer, context = load_tokenizer(name), context_of(load_config(name))
    way = Way(rank=1, prompt_format=settings["prompt_format"], short_context=settings["short_context"])
    for benchmark in found:
        longest = sorted(benchmark.examples, key=lambda e: len(e.full_prompt()), reverse=True)[:3]
        ask(replace(benchmark, examples=tuple(longest)), tokenizer, context, way)


def check_rounds(parts: Parts, device: torch.device) -> None:
    """Refuse what a later round could not take over from the first."""
    data, rounds = parts.data, int(parts.student.hparams["rounds"])
    if rounds == 1:
        return
    if data.recipe.method == "spd" and data.recipe.subspace is not None:
        raise UserError(
            f"data.subspace={data.recipe.subspace} is one of the first round's model alone, and "
            f"model.rounds={rounds}. Leave --data.subspace out, or set --model.rounds 1."
        )
    dtype = resolve_dtype(data.recipe.dtype, device)
    if data.recipe.engine == "vllm" and dtype != torch.float32:
        raise UserError(
            f"model.rounds={rounds} with data.engine=vllm in {str(dtype).removeprefix('torch.')} would round away "
            "what earlier rounds learned. Set --data.engine transformers, or --data.dtype float32."
        )


def _check_places(run: Any, stages: Collection[str]) -> None:
    """Refuse a run folder, a store or a folder for the corpus that cannot be made."""
    places = [("run_dir", run.folder.path), ("artifact_dir", run.store.root)]
    if run.options.data.corpus_dir is not None and "generate" in stages:
        places.append(("data.corpus_dir", Path(run.options.data.corpus_dir)))
    for option, path in places:
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            what = "can be written by others only" if there.is_dir() else "is no folder"
            raise UserError(f"{option}={path} cannot be used: {there} {what}. Set --{option} to another folder.")


def _check_disk(run: Any, needed: float) -> None:
    """Refuse a run that the disk has no room for."""
    folder = next(p for p in (run.store.root.resolve(), *run.store.root.resolve().parents) if p.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The run writes about {size(needed)}, and {folder} has {size(free)} free. Free space, or set --run_dir "
            "and --artifact_dir to folders on another disk."
        )
