"""Which option or command was meant: the nearest by its letters, and what other tools call the same thing."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

# Words of other tools, near in meaning and not in letters.
COMMANDS_MEANT = {
    "chat": "sample",
    "complete": "sample",
    "eval": "test",
    "evaluate": "test",
    "benchmark": "test",
    "score": "test",
    "validate": "test",
    "finetune": "fit",
    "run": "fit",
    "sft": "fit",
    "train": "fit",
    "merge": "export",
    "save": "export",
}
OPTIONS_MEANT = {
    "adapter": ("evaluation.adapter",),
    "benchmarks": ("evaluation.tasks",),
    "checkpoint": ("ckpt_path",),
    "dataset": ("subspace.task", "subspace.task_file"),
    "device": ("trainer.accelerator",),
    "epoch": ("trainer.max_epochs",),
    "epochs": ("trainer.max_epochs",),
    "gpus": ("trainer.devices",),
    "learning-rate": ("model.learning_rate",),
    "lora_rank": ("model.lora_r",),
    "lr": ("model.learning_rate",),
    "max_tokens": ("data.max_new_tokens",),
    "model": ("subspace.model_name_or_path",),
    "model_name": ("subspace.model_name_or_path",),
    "model_path": ("subspace.model_name_or_path",),
    "num_epochs": ("trainer.max_epochs",),
    "num_gpus": ("trainer.devices",),
    "num_samples": ("data.num_generations", "evaluation.num_samples"),
    "num_steps": ("trainer.max_steps",),
    "num_train_epochs": ("trainer.max_epochs",),
    "out": ("run_dir",),
    "output": ("run_dir",),
    "output_dir": ("run_dir",),
    "prompts": ("data.num_prompts",),
    "resume": ("ckpt_path",),
    "resume_from_checkpoint": ("ckpt_path",),
    "seed": ("seed_everything",),
    "steps": ("trainer.max_steps",),
    "tasks": ("evaluation.tasks",),
    "train_file": ("subspace.task_file",),
}


def near(word: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest by its letters, if one is near."""
    found = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def _alike(a: str, b: str) -> bool:
    """Whether two words are one, but for a letter or so: ``task`` and ``tasks``."""
    return difflib.SequenceMatcher(a=a, b=b).ratio() >= 0.8


def options_meant(word: str, known: Collection[str]) -> list[str]:
    """The options that a name which is none may stand for, the likeliest first; empty where none is near.

    The order of the guesses: dashes for underscores, a word of other tools, nearly the same word in the section that
    was named, the same word in another one, letters.

    Args:
        word: As it was typed, without the dashes before it.
        known: Names of all options, dotted.
    """
    plain = word.replace("-", "_")
    if plain in known:
        return [plain]
    section, _, last = plain.rpartition(".")
    meant = [name for name in OPTIONS_MEANT.get(last.lower(), ()) if name in known]
    if found := [name for name in meant if not section or name.startswith(f"{section}.")]:
        return found
    if found := [
        name for name in known if name.rpartition(".")[0] == section and _alike(name.rpartition(".")[2], last)
    ]:
        return found
    if found := [name for name in known if "." in name and name.rpartition(".")[2] == last]:
        return sorted(found)
    nearest = near(plain, known)
    return [nearest] if nearest else []
