"""Several tasks at once: which, how much each of them counts, and how many of the prompts are its own.

``task`` is a name, a list of names of equal weight, or a mapping of names to weights: ``{gsm8k: 1, mmlu: 2}``. What is
computed goes by the names in alphabetical order, so the order in which tasks are named changes no result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from spd_lightning.errors import UserError
from spd_lightning.tasks import TASKS

Tasks = str | list[str] | dict[str, float]
T = TypeVar("T")

ALLOWED = (
    "Set --subspace.task to a name, a list of names ('[gsm8k, mmlu]'), or names with weights ('{gsm8k: 1, mmlu: 2}')"
)


def names_of(task: str | Sequence[str] | Mapping[str, float]) -> list[str]:
    """The tasks, in the order in which they were named.

    Raises:
        UserError: If there is none, or one is named twice (a variant and the default that it is are the same).
    """
    names = [str(task)] if isinstance(task, str) else [str(name) for name in task]
    if isinstance(task, str) and task[:1] in ("[", "{"):  # YAML took it for text
        raise UserError(
            f"task={task!r} (--subspace.task) cannot be read: a weight is a number, with a space behind its colon, "
            f"and every bracket is closed. {ALLOWED}."
        )
    if not names or "" in names:
        raise UserError(f"task={task!r} (--subspace.task) names no task. {ALLOWED}.")
    seen: dict[tuple[str, str], str] = {}
    for name in names if len(names) > 1 else ():
        key, _, variant = name.partition(":")
        same = (key, variant or getattr(TASKS.get(key), "default_difficulty", ""))
        if same in seen:
            twice = f"names {name} twice" if seen[same] == name else f"names one task twice, as {seen[same]} and {name}"
            raise UserError(f"task (--subspace.task) {twice}. Name it once, with a weight if it is to count for more.")
        seen[same] = name
    return names


def weights_of(task: str | Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """The share of each task in the whole, by name in alphabetical order; their sum is 1.

    Raises:
        UserError: See `names_of`; and for a weight that is no number above 0.
    """
    names = sorted(names_of(task))
    weights = {name: task[name] if isinstance(task, Mapping) else 1.0 for name in names}
    for name, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight <= 0:
            raise UserError(
                f"subspace.task: the weight of {name} is {weight!r}. Set it to a number above 0, or leave {name} out."
            )
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def plainest(task: Tasks) -> Tasks:
    """One task by its name alone, however it was written; several as they stand.

    Raises:
        UserError: See `weights_of`.
    """
    weights_of(task)
    names = names_of(task)
    return names[0] if len(names) == 1 else task


def label(names: str | Sequence[str] | Mapping[str, float]) -> str:
    """Tasks in a few words: ``gsm8k + mmlu``."""
    return " + ".join(names_of(names))


def shares(number: int | None, weights: Mapping[str, float]) -> dict[str, int | None]:
    """How many of ``number`` prompts each task gives, by its weight (largest remainders first); None for all it has.

    >>> shares(10, {"a": 0.25, "b": 0.75})
    {'a': 3, 'b': 7}

    Raises:
        UserError: If that leaves a task without a prompt.
    """
    if number is None:
        return dict.fromkeys(weights)
    exact = {name: number * weight for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    left = number - sum(counts.values())
    for name in sorted(counts, key=lambda name: (counts[name] - exact[name], name))[:left]:
        counts[name] += 1
    if none := [name for name, count in counts.items() if count == 0]:
        raise UserError(
            f"num_prompts={number} leaves {none[0]} without a prompt: its weight is {weights[none[0]]:.1%} of the "
            "whole. Raise --data.num_prompts, raise that weight in --subspace.task, or leave the task out."
        )
    return dict(counts)


def by_turns(rows: Mapping[str, Sequence[T]]) -> list[T]:
    """The rows of all tasks in one list, each task's spread evenly over it and in their own order.

    >>> by_turns({"a": [1, 2, 3, 4], "b": [5, 6]})
    [1, 5, 2, 3, 6, 4]
    """
    places = [((i + 0.5) / len(own), name, i) for name, own in rows.items() for i in range(len(own))]
    return [rows[name][i] for _, name, i in sorted(places)]


def of_each(what: str, parts: Mapping[str, T]) -> dict[str, T]:
    """What there is of each task by a name for it, which says the task where there are several.

    >>> of_each("prompts", {"a": 1, "b": 2}), of_each("prompts", {"a": 1}), of_each("", {"a": 1, "b": 2})
    ({'prompts of a': 1, 'prompts of b': 2}, {'prompts': 1}, {'a': 1, 'b': 2})
    """
    if len(parts) == 1:
        return {what: next(iter(parts.values()))}
    return {f"{what} of {task}" if what else task: part for task, part in parts.items()}
