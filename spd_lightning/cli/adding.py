"""``test RUN_DIR --tasks LIST``: a finished run's models on further benchmarks, with everything else as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from spd_lightning.artifacts.expressions import marked
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.settings import setting
from spd_lightning.cli.checks import cannot_tell
from spd_lightning.cli.typed import Typed
from spd_lightning.errors import UserError
from spd_lightning.pipeline.adding import check_not_scored_otherwise, earlier_results, evaluation_differences
from spd_lightning.pipeline.resume import changed_student
from spd_lightning.tasks.mix import names_of

OTHERS = ("evaluation.adapter", "evaluation.subspace", "ckpt_path", "check_against")  # another model than the run's


def check_addable(typed: Typed, run: RunFolder, config: Mapping[str, Any]) -> None:
    """Refuse options that belong to the run, and a run that has nothing to be scored yet.

    Args:
        typed: What was typed.
        run: The run.
        config: The run's configuration.

    Raises:
        UserError: If so.
    """
    for name in typed.options:
        if name in OTHERS or not (setting(name).role == "place" or name.startswith("evaluation.")):
            raise UserError(
                f"--{name} cannot be set here: test {run.path} scores that run's own models as they were made. "
                f"Leave it out, or score in another folder: test --config {run.config_file} --run_dir NEW."
            )
    if run.student() is None and config["data"]["method"] != "base":
        raise UserError(f"{run.path} holds no student yet. Finish it first: {run.command()}")
    check_as_made(run)


def check_as_made(run: RunFolder) -> None:
    """Refuse a run whose models, texts or samples were changed by hand: rows beside its own would not be of one run.

    Where nothing tells whether they were, that is said.

    Raises:
        UserError: If they were.
    """
    parts = (run.subspace.parent, run.corpus.parent, run.adapter, run.samples, *(r.path for r in run.rounds()))
    changed = run.manifest.changed(only={part.name for part in parts}, before=True)
    if changed is None:
        print(cannot_tell(run), file=sys.stderr)
    if told := [line for line in changed or () if not line.endswith(" is missing")]:
        raise UserError(
            f"{run.path} is not as the run wrote it: {'; '.join(told)}. Put the old files back, or give the run's own "
            f"command, which has the originals: {run.command()}"
        )
    if (why := changed_student(run)) is not None:  # the last command may not have ended well: the record tells, too
        raise UserError(why)


def add_to_run(typed: Typed, run: RunFolder, options: Any, config: Mapping[str, Any]) -> None:
    """Change options so that the run's own models are scored, all of them: a row of one alone compares with nothing.

    Args:
        typed: What was typed.
        run: The run.
        options: Of the command, changed in place.
        config: The run's configuration.
    """
    evaluation = options.evaluation
    own = config["evaluation"]["methods"] or ["base", "student"]
    evaluation.methods = list(dict.fromkeys([*own, *(evaluation.methods or [])]))
    shots = config["evaluation"].get("base_shots")
    own_tasks = set(names_of(options.subspace.task))
    if shots and "evaluation.base_shots" not in typed.options and not own_tasks <= set(evaluation.tasks or []):
        evaluation.base_shots = None  # of the run's own tasks alone
    options.trainer.logger = False  # the logs are those of the training


def differences_of(run: RunFolder, fingerprint: str, tasks: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """In what the added scores' options differ from the run's own.

    Args:
        run: The run.
        fingerprint: Its own.
        tasks: To be scored.
        config: The options now, as keys hold them.

    Raises:
        UserError: If a benchmark is scored already under others.
    """
    differ = evaluation_differences(marked(run.configuration(), run.noted("values")), config)
    check_not_scored_otherwise(earlier_results(run, fingerprint), tasks, differ, run)
    return differ
