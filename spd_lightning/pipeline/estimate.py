"""``--estimate``: what each stage of a command is going to cost, and what would be refused before the first."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from spd_lightning import hub
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cost.plan import Plan
from spd_lightning.errors import UserError
from spd_lightning.model.load import load_tokenizer
from spd_lightning.pipeline.fit import attach_benchmarks
from spd_lightning.pipeline.parts import Parts
from spd_lightning.pipeline.preflight import refused, stage_checks

PRECISIONS = {"None": "32-true", "32": "32-true", "bf16": "bf16-mixed"}  # what Lightning takes these for


def estimate(options: Any, parts: Parts, command: str, stages: Collection[str]) -> str:
    """A table of costs, with what would end the command before its first stage behind it; no weights are loaded.

    The hub is asked only where a config or texts are not here yet.

    Args:
        options: Of the command, as they were parsed.
        parts: The objects of its stages.
        command: fit, extract, generate or test.
        stages: Those that it runs.
    """
    run = RunFolder(options.run_dir) if options.run_dir and command == "test" else None
    own = run.subspace if run is not None and run.subspace.is_file() else None
    student = command != "test" or options.evaluation.adapter or options.get("ckpt_path") or (run and run.student())
    attach_benchmarks(options, parts, parts.data.recipe.method if student else None, subspace=own)
    plan = Plan(*vars(parts).values())
    with hub.unasked():
        try:
            return "\n".join([plan.table(command), *_refused(options, parts, command, stages, plan)])
        except UserError:
            pass
    return "\n".join([plan.table(command), *_refused(options, parts, command, stages, plan)])


def _refused(options: Any, parts: Parts, command: str, stages: Collection[str], plan: Plan) -> list[str]:
    """What `preflight` would say here, but for folders and disk; an estimate for another machine has neither."""
    try:
        load_tokenizer(options.subspace.model_name_or_path)
    except UserError:
        return ["", "The model's files are not all here: whether a stage would refuse the options was not looked at."]
    precision = str(options.trainer.precision)
    where = (PRECISIONS.get(precision, precision), plan.device)
    problems = refused(stage_checks(options, parts, command, stages, *where))
    return (
        ["", "The command would end before its first stage:", *(f"- {line}" for line in problems)] if problems else []
    )
