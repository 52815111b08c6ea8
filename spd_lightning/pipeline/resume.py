"""Students and checkpoints that are there already: what made them, and whether a run may take them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.expressions import value_of
from spd_lightning.artifacts.files import file_sha256, weights_sha256
from spd_lightning.artifacts.reading import missing, or_nothing, part_of, read_yaml
from spd_lightning.artifacts.run_folder import AGAIN, RunFolder
from spd_lightning.artifacts.settings import differences
from spd_lightning.errors import UserError
from spd_lightning.finetuning.checkpoint import refuse_other
from spd_lightning.finetuning.checkpoint_file import checkpoint_damage, last_good, read_checkpoint, set_aside
from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.student import save_student
from spd_lightning.finetuning.student_key import key_of_checkpoint, same_student, student_key
from spd_lightning.model.chat_template import PromptFormat
from spd_lightning.model.source import model_fingerprint
from spd_lightning.processes import barrier, is_rank_zero
from spd_lightning.tasks.mix import Tasks, names_of


def key_of_student(
    data: SelfGenerationDataModule,
    module: SPDFineTuningModule,
    config: Mapping[str, Any],
    processes: int,
    run: RunFolder,
    ckpt_path: str | None,
) -> dict[str, Any]:
    """Stage 3's key, once the training texts are known.

    Args:
        data: Corpus and texts.
        module: Stage 3.
        config: The run's configuration.
        processes: Their number.
        run: The run folder; its own checkpoint is no other run's.
        ckpt_path: Checkpoint to start from.
    """
    foreign = ckpt_path is not None and Path(ckpt_path).resolve() != run.checkpoint.resolve()
    return student_key(
        model_fingerprint(data.recipe.model_name_or_path),
        file_sha256(data.corpus().path),
        data.train_texts,
        data.val_texts,
        module.hparams,
        config,
        processes,
        file_sha256(ckpt_path) if foreign and ckpt_path is not None else None,
    )


def check_checkpoint(path: str, model_name_or_path: str) -> None:
    """Refuse a checkpoint that cannot be taken, before anything costs time; the module compares the rest.

    Raises:
        UserError: If there is no such file, it is none of ours, or it is of another base.
    """
    if not Path(path).is_file():
        raise UserError(f"ckpt_path={path}: {missing(path)}. Set --ckpt_path to a checkpoint, or leave it out.")
    if (what := checkpoint_damage(path)) is not None:
        raise UserError(f"ckpt_path={path} {what}, so it is no checkpoint. Set --ckpt_path to another.")
    saved = read_checkpoint(path, "Set --ckpt_path to another.").get("spd")
    refuse_other(saved, {"base": model_fingerprint(model_name_or_path)}, model_name_or_path)


def foreign_student(run: RunFolder, key: Mapping[str, Any]) -> str | None:
    """Why the run's student is not the one of these options and inputs; None if it is, or there is none.

    Args:
        run: The run folder.
        key: Stage 3's.
    """
    if not run.adapter.is_dir():
        return None
    record = student_record(run)
    if not record:
        return (
            f"{run.adapter} holds a student without a record of what it was made from. Set --run_dir to a new folder."
        )
    there = part_of(run.keys_file, record, "key", dict, AGAIN)
    if differ := differences(same_student(there), same_student(key)):
        return (
            f"{run.adapter} holds a student that was made otherwise ({'; '.join(differ)}). Set --run_dir to a new "
            "folder; the old one keeps what it has."
        )
    return changed_student(run)


def student_record(run: RunFolder) -> dict[str, Any]:
    """What ``keys.json`` says of the student; empty where it says nothing."""
    return part_of(run.keys_file, run.keys(), "student", dict, AGAIN)


def changed_student(run: RunFolder) -> str | None:
    """Why the weights in ``adapter/`` are not those that were trained; None if they are, or nothing tells."""
    record = student_record(run)
    if not record or not run.adapter.is_dir() or weights_sha256(run.adapter) == record.get("weights_sha256"):
        return None
    return (
        f"The weights in {run.adapter} are not those that were trained: they were changed since. Put the old "
        "ones back, or remove that folder to have the student made again."
    )


def checkpoint_to_continue(run: RunFolder, key: Mapping[str, Any], ckpt_path: str | None) -> str | None:
    """The checkpoint to continue from: the run's own if it is of this student, else the one that was named.

    Args:
        run: The run folder.
        key: Stage 3's.
        ckpt_path: The one that was named.

    Raises:
        UserError: If the run's own is of another student, and none was named.
    """
    own: Path | None = run.checkpoint
    if not run.checkpoint.is_file():
        own = last_good(run.checkpoints, run.checkpoint)
    if own is None:
        return ckpt_path
    there = key_of_checkpoint(own)
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


def set_damaged_aside(run: RunFolder) -> None:
    """Rename a run's own checkpoint that is damaged, and say from where the training goes on.

    Ranks:
        Collective; rank 0 does it before the others look.
    """
    path = run.checkpoint
    if is_rank_zero() and path.is_file() and (why := checkpoint_damage(path)) is not None:
        said = set_aside(path, why)
        good = last_good(run.checkpoints, path)
        print(f"{said} The training {f'goes on from {good}' if good else 'starts anew'}.", file=sys.stderr)
    barrier()


def origin_of_student(student: Path, task: Tasks, method: str, custom_task: bool) -> tuple[Tasks, str]:
    """Task, or tasks, and method that a student was trained with: those of its run folder, else those that are given.

    One that method base is given for is called ``student``: that method trains none, and the base has its own scores.

    Args:
        student: Its folder or checkpoint.
        task: Taken where the run cannot be found.
        method: The same.
        custom_task: Whether a file for the task ``custom`` is known; without one that task cannot be loaded.
    """
    saved = _run_of_student(student)
    trained, by = value_of(saved, "subspace", "task"), value_of(saved, "data", "method")
    if trained is None or by is None:
        trained, by = task, method
    custom = any(name.split(":")[0] == "custom" for name in names_of(trained))
    return (trained if not custom or custom_task else task), "student" if by == "base" else str(by)


def format_of_student(student: Path) -> PromptFormat:
    """The prompt format that a student was trained in; ``plain`` where its run cannot be found."""
    return "chat" if value_of(_run_of_student(student), "data", "prompt_format") == "chat" else "plain"


def _run_of_student(student: Path) -> dict[str, Any]:
    """The configuration of the run that a student's folder or checkpoint stands in; empty where there is none."""
    beside = student.resolve().parent
    file = RunFolder(beside).config_file
    file = file if file.is_file() else RunFolder(beside.parent).config_file  # checkpoints/last.ckpt, round-2/student
    run = RunFolder(file.parent)
    return run.configuration() if run.environment_file.is_file() else or_nothing(read_yaml, file)  # or no run's at all


def write_student_of_checkpoint(ckpt_path: str, module: SPDFineTuningModule, run: RunFolder) -> Path:
    """Write the student of a training checkpoint as the run's own (rank 0 does; the others wait).

    Args:
        ckpt_path: The checkpoint.
        module: Stage 3, which takes its weights.
        run: The run folder.

    Raises:
        UserError: If the run folder holds another student, whose scores would go.
    """
    folder = run.adapter
    if not is_rank_zero():
        return folder
    module.configure_model()
    checkpoint = read_checkpoint(ckpt_path, "Set --ckpt_path to another.")
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=False)
    assert module.model is not None
    new = folder.with_name(".adapter-new")
    shutil.rmtree(new, ignore_errors=True)
    save_student(module.model, new, module.hparams["model_name_or_path"])
    if not folder.is_dir():
        new.rename(folder)
        return folder
    same = weights_sha256(new) == weights_sha256(folder)
    shutil.rmtree(new)
    if not same:
        raise UserError(
            f"ckpt_path={ckpt_path} holds another student than {folder}, whose scores would be overwritten. Set "
            "--run_dir to a new folder."
        )
    return folder
