"""Tasks by name: what is asked of a model, and what counts as right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spd_lightning.errors import UserError, unknown_name
from spd_lightning.tasks.arithmetic import Arithmetic
from spd_lightning.tasks.chains import Chains
from spd_lightning.tasks.coding import MBPP, CodeAlpaca, HumanEval, MBPPSanitized
from spd_lightning.tasks.custom import Custom
from spd_lightning.tasks.functions import Functions
from spd_lightning.tasks.letters import Letters
from spd_lightning.tasks.math_word import GSM8K, SVAMP
from spd_lightning.tasks.multiple_choice import BBH, MMLU
from spd_lightning.tasks.synthetic import SyntheticTask
from spd_lightning.tasks.task import Benchmark, Example, Rows, Task, check_rows_option

__all__ = ["TASKS", "Benchmark", "Example", "Task", "is_generated", "load_task"]

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        GSM8K,
        SVAMP,
        HumanEval,
        MBPP,
        MBPPSanitized,
        CodeAlpaca,
        MMLU,
        BBH,
        Arithmetic,
        Letters,
        Functions,
        Chains,
        Custom,
    )
}


def is_generated(name: str) -> bool:
    """Whether a task, by its name, draws its rows: by the run's seed, so that other seeds have others."""
    return issubclass(TASKS.get(name.split(":")[0], Task), SyntheticTask)


def load_task(
    name: str,
    data_dir: str | None = None,
    task_file: str | Mapping[str, Any] | None = None,
    option: str = "--evaluation.tasks",
    rows: Rows = "first",
    seed: int = 42,
) -> Task:
    """A task by its name, a variant behind a colon: ``gsm8k``, ``bbh:paper``, ``arithmetic:hard``, ``custom:mine``.

    Args:
        name: Key of ``TASKS``, or ``key:variant``.
        data_dir: Data folder; None takes SPD_DATA_DIR, else the hub.
        task_file: Of the task ``custom``, or of each ``custom:NAME`` by its name; see `task_file.file_of`.
        option: The option that an error message should name.
        rows: Which training rows; see `Task`.
        seed: Of the rows of generated tasks; others have theirs.

    Raises:
        UserError: For an unknown task or variant, ``custom`` without a readable file, or rows that a task lacks.
    """
    key, _, variant = name.partition(":")
    if key not in TASKS:
        raise unknown_name("task", name, TASKS, option)
    if key == "custom":
        check_rows_option(Custom, rows)
        return Custom(task_file, variant)
    known = TASKS[key].variants
    if ":" in name and not known:
        raise UserError(f"Task {key!r} has no variants, found {name!r}. Set {option} to {key}.")
    if ":" in name and variant not in known:
        raise unknown_name(f"variant of task {key}", name, [f"{key}:{v}" for v in known], option)
    kind = TASKS[key]
    if issubclass(kind, SyntheticTask):
        return kind(data_dir, variant, rows, seed)
    return kind(data_dir, variant, rows)
