"""Stage 4: the base with calibration answers as solved examples, the plainest use of what SPD calibrates on.

SPD reads some fifty gold answers to find its subspace. This reference gives a few of them to the untrained base, before
each prompt of the task that they are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spd_lightning.errors import UserError
from spd_lightning.evaluation.context import RunContext
from spd_lightning.tasks import load_task
from spd_lightning.tasks.task import Benchmark, Example, Task

BEHIND = "\n\n"  # a solved example, as behind those that a task's prompts begin with


def shots_method(number: int) -> str:
    """The name of the reference in scores."""
    return f"base_{number}_shots"


def with_shots(benchmark: Benchmark, task: Task, number: int) -> Benchmark:
    """A benchmark with the first calibration pairs of its task as the solved examples before each prompt.

    Those of the benchmark's own protocol give way to them; those that every plain prompt of the task begins with stay
    where they are, before them.

    Args:
        benchmark: Of that task.
        task: Gives the calibration pairs: the first rows of its training split.
        number: Of pairs.

    Raises:
        UserError: If the task has fewer.
    """
    shots = tuple(_question(task, e) + e.target + BEHIND for e in task.examples("train", number))
    if len(shots) < number:
        raise UserError(
            f"base_shots={number} asks for more solved examples than {benchmark.task} has training rows, {len(shots)}. "
            f"Set --evaluation.base_shots to at most {len(shots)}."
        )

    def asked(e: Example) -> Example:
        question = _question(task, e)
        before = e.prompt[: len(e.prompt) - len(question)]
        return replace(e, header=e.header + before, shots=shots, prompt=question)

    return replace(benchmark, examples=tuple(asked(e) for e in benchmark.examples), num_fewshot=number)


def all_with_shots(
    benchmarks: Sequence[Benchmark], numbers: Sequence[int], context: RunContext
) -> dict[int, list[Benchmark]]:
    """By number of solved examples, benchmarks of the tasks calibrated on; see `with_shots`."""
    tasks = [load_task(b.task, context.data_dir, context.task_file, seed=context.seed) for b in benchmarks]
    return {number: [with_shots(b, task, number) for b, task in zip(benchmarks, tasks)] for number in numbers}


def _question(task: Task, e: Example) -> str:
    """A plain prompt without the solved examples that it begins with."""
    return e.prompt[task.solved_end(replace(e, header="", shots=())) :]
