"""Options that a command, as it was configured, does nothing with.

One that was typed is refused, with the reason: it was meant to do something. One in a file is only listed: a saved
configuration serves every command, and arms under one switch share their options. So do the points of a sweep.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.artifacts.settings import setting
from spd_lightning.cli.config_file import ConfigFile
from spd_lightning.cli.typed import Typed
from spd_lightning.errors import UserError
from spd_lightning.pipeline.resume import origin_of_student
from spd_lightning.tasks import TASKS, is_generated
from spd_lightning.tasks.mix import label, names_of
from spd_lightning.tasks.task import Task

SWEEP = ("WANDB_SWEEP_ID", "SPD_SWEEP")  # set where the points of a sweep are run: what is typed stands in its file

# Scripts and files set these for every task alike, so that they are never refused, but listed.
TOLD = ("data_dir", "evaluation.allow_code_execution")

# Read by every command, whichever stages it runs.
ALWAYS = (
    *("subspace.model_name_or_path", "subspace.task", "subspace.task_file", "subspace.device_map"),
    *("data.method", "data.rows", "data.dtype", "data.prompt_format"),
)
NAMES = {"extract": "stage 1", "generate": "stage 2", "fine_tune": "stage 3", "evaluate": "stage 4"}


def stages_run(command: str, options: Any) -> set[str]:
    """The stages that a command runs with these options, by the names of ``results.json``."""
    method, projected = options.data.method, "projected" in (options.evaluation.methods or ())
    extract = {"extract"} if options.data.subspace is None else set()
    if command == "extract":
        return {"extract"}
    if command == "test":
        return {"evaluate"}
    made = set() if method == "base" else {"generate"}
    if command == "generate":
        return made | (extract if method == "spd" else set())
    trained = {"fine_tune"} if made else set()
    return made | trained | {"evaluate"} | (extract if method == "spd" or projected else set())


def _stages_of(name: str) -> set[str]:
    """The stages that read an option; empty for one that belongs to the whole run."""
    always = any(name == known or name.startswith(f"{known}.") for known in ALWAYS)
    if always or "." not in name or setting(name).role == "place":
        return set()
    if name.startswith("evaluation."):
        return {"fine_tune"} if name.startswith("evaluation.every_n") else {"evaluate"}
    if name in ("data.val_fraction", "data.stop_eos"):
        return {"fine_tune"}
    if name in ("data.num_prompts", "data.subspace"):  # how many of the prompts stand in a benchmark is counted there
        return {"generate", "evaluate"}
    return set(setting(name).stages)


def _tasks(options: Any, command: str) -> list[str]:
    """The benchmarks that are scored: those named, else what the student was trained on."""
    if options.evaluation.tasks is not None:
        return list(options.evaluation.tasks)
    task, student = options.subspace.task, options.get("ckpt_path") or options.evaluation.adapter
    if command == "test" and student is not None:
        task, _ = origin_of_student(Path(student), task, options.data.method, options.subspace.task_file is not None)
    return names_of(task)


def _named(options: Any, command: str) -> list[str]:
    """Every task that some stage may read."""
    other = [options.subspace.basis_task] if options.subspace.basis_task else []
    return [*names_of(options.subspace.task), *other, *_tasks(options, command)]


def _no_task(
    holds: Callable[[type[Task], bool], bool], tasks: Callable[[Any, str], list[str]] = _tasks
) -> Callable[[Any, str], bool]:
    """A rule: something holds of none of the tasks, told whether the protocol is paper; of one's own file it may."""

    def rule(options: Any, command: str) -> bool:
        known = [TASKS.get(str(name).split(":")[0]) for name in tasks(options, command)]
        paper = options.evaluation.protocol == "paper"
        return not any(task is None or task.name == "custom" or holds(task, paper) for task in known)

    return rule


def _runs_programs(task: type[Task], paper: bool) -> bool:
    return task.answer_type == "program"


def _scores_no_student(options: Any, command: str) -> bool:
    return command == "test" and options.evaluation.methods is not None and "student" not in options.evaluation.methods


# Options, when they do nothing, and why; `{...}` is an option's value.
RULES: tuple[tuple[tuple[str, ...], Callable[[Any, str], bool], str], ...] = (
    (
        ("subspace.task_file",),
        _no_task(lambda task, paper: False, _named),
        "subspace.task is {subspace.task}, and no task is custom; add --subspace.task custom",
    ),
    (("subspace.span_rule",), lambda o, c: o.subspace.loss == "full", "subspace.loss full takes every token"),
    (("data.truncation",), lambda o, c: o.data.long_prompts == "reject", "data.long_prompts reject cuts no prompt"),
    (("data.stop_eos",), lambda o, c: not o.data.stop, "data.stop names no string that ends a completion"),
    (
        ("data.batch_size", "data.batch_tokens"),
        lambda o, c: o.data.engine == "vllm",
        "data.engine vllm forms its own batches",
    ),
    (("data.batch_size",), lambda o, c: o.data.batch_tokens is not None, "data.batch_tokens decides instead"),
    (("data.top_p", "data.min_p"), lambda o, c: o.data.method == "psr", "data.method psr samples without them"),
    (
        ("data.top_p", "data.top_k", "data.min_p", "data.sampling_seed"),
        lambda o, c: o.data.temperature == 0,
        "data.temperature 0 is greedy, and draws nothing",
    ),
    (
        ("data.subspace",),
        lambda o, c: o.data.method != "spd" and (c == "generate" or "projected" not in (o.evaluation.methods or ())),
        "data.method {data.method} projects nothing; set --data.method spd, or score projected by --evaluation.methods",
    ),
    (
        ("model.lora_alpha", "model.lora_dropout", "model.target_modules"),
        lambda o, c: o.model.lora_r is None,
        "model.lora_r null trains all weights, without an adapter",
    ),
    (
        (
            *("trainer.limit_val_batches", "trainer.val_check_interval", "trainer.check_val_every_n_epoch"),
            "trainer.num_sanity_val_steps",
        ),
        lambda o, c: o.data.val_fraction == 0,
        "data.val_fraction 0 holds nothing out to be validated on",
    ),
    (
        ("trainer.limit_test_batches", "trainer.limit_predict_batches", "trainer.inference_mode"),
        lambda o, c: True,
        "the stages beside training read every row, as their own options say (--evaluation.limit, --data.num_prompts)",
    ),
    (
        ("trainer.min_epochs", "trainer.min_steps"),
        lambda o, c: not o.trainer.callbacks and o.trainer.max_time is None,
        "neither a callback nor trainer.max_time would end the training earlier",
    ),
    (
        ("trainer.gradient_clip_algorithm",),
        lambda o, c: not o.trainer.gradient_clip_val,
        "trainer.gradient_clip_val clips nothing",
    ),
    (
        (
            *("trainer.sync_batchnorm", "trainer.reload_dataloaders_every_n_epochs"),
            *("trainer.use_distributed_sampler", "trainer.model_registry"),
        ),
        lambda o, c: True,
        "no model here has batch norm, texts are dealt to processes by their own loader, and nothing is uploaded",
    ),
    (
        (
            *("trainer.profiler", "trainer.detect_anomaly", "trainer.log_every_n_steps"),
            *("trainer.enable_model_summary", "trainer.default_root_dir"),
        ),
        lambda o, c: "fine_tune" not in stages_run(c, o),
        "the command runs no stage 3",
    ),
    (("data.corpus_dir",), lambda o, c: "generate" not in stages_run(c, o), "the command runs no stage 2"),
    (("data.subspace",), lambda o, c: c == "test", "`test` projects into --evaluation.subspace"),
    (
        ("template_date",),
        lambda o, c: (
            c != "test" and "chat" not in {o[part].prompt_format for part in ("subspace", "data", "evaluation")}
        ),
        "no prompt is put into a chat template; add --data.prompt_format chat",
    ),
    (("evaluation.timeout_s",), _no_task(_runs_programs), "none of the tasks that are scored runs programs"),
    (("evaluation.allow_code_execution",), _no_task(_runs_programs, _named), "no task here runs programs"),
    (
        ("data_dir",),
        lambda o, c: all(is_generated(name) or name.split(":")[0] == "custom" for name in _named(o, c)),
        "no task here reads a data set",
    ),
    (
        ("evaluation.num_samples", "evaluation.temperature", "evaluation.top_p", "evaluation.top_k"),
        _no_task(lambda task, paper: task.output_type in (("generate", "choices") if paper else ("generate",))),
        "none of the tasks that are scored draws its answers",
    ),
    (
        ("evaluation.repetition_penalty", "evaluation.prompt_format"),
        _no_task(lambda task, paper: paper or task.output_type != "choices"),
        "the tasks that are scored compare likelihoods, and generate nothing",
    ),
    (
        ("evaluation.best_decoding_rows",),
        lambda o, c: not o.evaluation.best_decoding,
        "evaluation.best_decoding names no decoding to choose on them",
    ),
    (
        ("ckpt_path",),
        lambda o, c: c == "fit" and "fine_tune" not in stages_run(c, o),
        "fit with data.method {data.method} runs no stage 3",
    ),
    (
        ("evaluation.adapter",),
        lambda o, c: c == "test" and o.ckpt_path is not None,
        "ckpt_path names the student that is scored",
    ),
    (
        ("evaluation.adapter", "ckpt_path"),
        _scores_no_student,
        "the student is not scored; add it to --evaluation.methods",
    ),
    (("dry_run",), lambda o, c: o.estimate, "--estimate runs nothing"),
    (
        ("evaluation.subspace",),
        lambda o, c: c == "fit" and "projected" not in (o.evaluation.methods or ()),
        "projected is not scored; add it to --evaluation.methods",
    ),
    (
        ("evaluation.adapter",),
        lambda o, c: c == "fit",
        "fit scores the student that it trains; `test` scores another one",
    ),
    (
        ("evaluation.when",),
        lambda o, c: True,
        "the commands score all models after training; it is for trainings that you start yourself in Python",
    ),
)


def without_effect(command: str, options: Any, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Those of some options that do nothing, each with the reason.

    Args:
        command: A command of the stages.
        options: Its options, as they were parsed.
        names: Dotted names of options, or of parts of their values.
    """
    run = stages_run(command, options)
    tasks = _tasks(options, command)
    for name in names:
        wanted = _stages_of(name)
        if wanted and not wanted & run:
            yield name, f"{_what(command, options)} runs no {' and no '.join(NAMES[s] for s in NAMES if s in wanted)}"
            continue
        for rule, holds, why in RULES:
            if name in rule and holds(options, command):
                yield name, _filled(why, options)
                break
        if name.startswith("evaluation.limit."):
            task = name.removeprefix("evaluation.limit.")
            if task not in tasks:
                yield name, f"{task} is not scored; evaluation.tasks are {', '.join(map(str, tasks))}"


def _what(command: str, options: Any) -> str:
    """The command, and what else decides which stages it runs."""
    method = f" with data.method {options.data.method}" if command in ("fit", "generate") else ""
    given = " and data.subspace given" if command in ("fit", "generate") and options.data.subspace is not None else ""
    return f"{command}{method}{given}"


def _filled(why: str, options: Any) -> str:
    return why.replace("{subspace.task}", label(options.subspace.task)).replace("{data.method}", options.data.method)


def _spread(command: str, options: Any, names: Iterable[str]) -> list[str]:
    """The names, with limits of single tasks as names of their own."""
    limits = options.evaluation.limit
    if not isinstance(limits, dict) or "evaluate" not in stages_run(command, options):
        return list(names)
    parts = [f"evaluation.limit.{task}" for task in limits]
    return [part for name in names for part in (parts if name == "evaluation.limit" else [name])]


def check_used(typed: Typed, files: Sequence[ConfigFile], options: Any, defaults: Any) -> None:
    """Refuse options that were typed and do nothing; list those in files, once, unless the command is to be quiet.

    Args:
        typed: What was typed.
        files: The files that were named.
        options: The command's, as they were parsed.
        defaults: What they are where nobody sets them: at its default an option in a file asks for nothing.

    Raises:
        UserError: With every such option, one a line.
    """
    found = dict(without_effect(command := str(typed.command), options, _spread(command, options, typed.options)))
    idle = {name: why for name, why in found.items() if name not in TOLD}
    if idle and not any(name in os.environ for name in SWEEP):
        raise UserError("\n".join(f"--{name} has no effect here: {why}. Leave it out." for name, why in idle.items()))
    if options.quiet:
        return
    in_files = dict.fromkeys(name for file in files for name in file.lines if name not in typed.options)
    asked = [name for name in in_files if name in defaults and options.get(name) != defaults.get(name)]
    found |= dict(without_effect(command, options, _spread(command, options, asked)))
    by_reason: dict[str, list[str]] = {}
    for name, why in found.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        rank_zero_info(f"Unused: {', '.join(names)} ({why})")
