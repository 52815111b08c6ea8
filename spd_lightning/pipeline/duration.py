"""A run that is going to take long says so before it begins, and what would make it shorter."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cost.formulas import duration
from spd_lightning.cost.plan import Plan
from spd_lightning.processes import is_rank_zero

LONG_S = 3600.0
SHORTER = {
    "extract": "fewer --subspace.num_examples",
    "generate": "fewer --data.num_prompts or --data.max_new_tokens",
    "fine_tune": "fewer --data.num_prompts or --trainer.max_epochs",
    "evaluate": "a smaller --evaluation.limit or fewer --evaluation.tasks",
}


def missing_stages(run: RunFolder, method: str, projected: bool) -> list[str]:
    """The stages that a fit has yet to run, by what stands in its folder.

    Args:
        run: The run folder.
        method: ``data.method``.
        projected: Whether the projected base is scored.
    """
    needed = {
        "extract": (method == "spd" or projected) and not run.subspace.is_file(),
        "generate": method != "base" and not run.corpus.is_file() and not run.adapter.is_dir(),
        "fine_tune": method != "base" and not run.adapter.is_dir(),
        "evaluate": not run.results.is_file(),
    }
    return [name for name, wanted in needed.items() if wanted]


def say_if_long(plan: Plan, run: RunFolder, method: str, rounds: int = 1) -> None:
    """Say how long a fit is going to take, if that is more than an hour; what cannot be counted ends no run.

    Ranks:
        Rank 0 alone counts; issues no collective.
    """
    if not is_rank_zero() or plan.machine is None:
        return
    stages = missing_stages(run, method, "projected" in plan.benchmarks.suite.options.methods)
    try:
        seconds = {name: (rounds if name != "evaluate" else 1) * (plan.stage(name).seconds or 0.0) for name in stages}
    except Exception as error:
        rank_zero_info(f"[fit] no estimate: {type(error).__name__}: {error}")
        return
    if (line := told(seconds)) is not None:
        rank_zero_info(line)


def told(seconds: dict[str, float]) -> str | None:
    """What there is to say of a run of so many seconds, by stage; None for one that is done within the hour."""
    if sum(seconds.values()) <= LONG_S:
        return None
    parts = ", ".join(f"{name} {duration(took)}" for name, took in seconds.items())
    longest = sorted(seconds, key=lambda name: -seconds[name])[:2]
    ways = "; ".join(SHORTER[name] for name in longest if seconds[name] >= 0.2 * sum(seconds.values()))
    return (
        f"[fit] estimate: about {duration(sum(seconds.values()))} in all ({parts}), less what is in the store already. "
        f"To make it shorter: {ways}. --dry_run runs every stage on two examples; an interrupted run goes on with the "
        "same command."
    )
