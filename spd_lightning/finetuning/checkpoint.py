"""Stage 3: what a training checkpoint fits onto, what is refused, and which of its settings give way to typed ones.

A checkpoint holds the trained weights alone and, under ``spd``, what they belong to: base, shape of the adapter, the
student's key and the place in the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from spd_lightning.errors import UserError

RATES = ("learning_rate", "weight_decay")  # what may be changed when a training is continued


def made_of(model: nn.Module, base: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint's weights only fit onto.

    Args:
        model: The model that is trained.
        base: Fingerprint of the model it started from.
        options: Of `SPDFineTuningModule`.
    """
    adapted = options["lora_r"] is not None
    shape: Any = model.peft_config["default"] if adapted else None  # type: ignore[index]
    return {
        "base": base,
        "lora_r": options["lora_r"],
        "lora_alpha": options["lora_alpha"] if adapted else None,
        "target_modules": sorted(shape.target_modules) if adapted else None,
    }


def refuse_other(saved: Mapping[str, Any] | None, here: Mapping[str, Any], model_name_or_path: str) -> None:
    """Refuse a checkpoint of another base or shape of the adapter.

    Args:
        saved: Its part ``spd``; None if it has none.
        here: `made_of` of this run.
        model_name_or_path: Base of this run, as the user named it.

    Raises:
        UserError: With the name of what differs, there and here.
    """
    if saved is None:
        raise UserError(
            "The checkpoint was not written by SPDFineTuningModule. Set ckpt_path (--ckpt_path) to one of its own."
        )
    for name, value in here.items():
        if saved[name] == value:
            continue
        there = saved["model_name_or_path"] if name == "base" else saved[name]
        value = model_name_or_path if name == "base" else value
        option = "--subspace.model_name_or_path" if name == "base" else f"--model.{name}"
        raise UserError(
            f"The checkpoint was made with {name}={there}, this run has {name}={value} (of other content). "
            f"Set {option} to what it was made with, or start without ckpt_path (--ckpt_path)."
        )


def refuse_other_weights(module: nn.Module, weights: Mapping[str, Tensor] | None) -> None:
    """Refuse a checkpoint that holds other weights than are trained, by name or by shape.

    Args:
        module: With the trained weights of this run.
        weights: Those of the checkpoint; None where the strategy has spread them over the processes already.

    Raises:
        UserError: With the first that differs.
    """
    if weights is None:
        return
    expected = {name: tuple(p.shape) for name, p in module.named_parameters() if p.requires_grad}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        wrong = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        raise UserError(
            f"The checkpoint does not hold this run's {len(expected)} trained weights; {len(wrong)} differ, first "
            f"{wrong[0]}. Start without ckpt_path (--ckpt_path)."
        )


def keep_typed_rates(checkpoint: dict[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Where learning rate or weight decay differ from the checkpoint's, put this run's into its optimiser state.

    Args:
        checkpoint: As Lightning has read it; changed in place.
        options: Of this run's `SPDFineTuningModule`.

    Returns:
        What was changed, a line each.
    """
    there, said = checkpoint["hyper_parameters"], []
    for name in RATES:
        if there[name] == options[name]:
            continue
        said.append(f"{name}: {there[name]} in the checkpoint, {options[name]} now; {options[name]} is used.")
        for group in (g for state in checkpoint["optimizer_states"] for g in state["param_groups"]):
            if name == "weight_decay":
                group[name] = options[name] if group[name] else 0.0
            else:
                group["initial_lr"], group["lr"] = options[name], group["lr"] * options[name] / there[name]
        if name == "learning_rate":
            for state in checkpoint["lr_schedulers"]:
                state["base_lrs"] = [options[name]] * len(state["base_lrs"])
    return said


def last_checkpoint(savers: Iterable[Any]) -> str:
    """Path of the last checkpoint that a trainer's callbacks wrote, for a message."""
    names = ("last_model_path", "best_model_path")
    paths = [path for saver in savers for name in names if (path := getattr(saver, name, ""))]
    return paths[0] if paths else "none was written yet"
