"""Options of a run: dotted names, what differs, and one table of which option means what to whom.

The table stands below the stages and imports none of them. From it follow which options make a run what it is
(`settings_of`), which stand in the key of a student (`in_student_key`), which an artifact that runs share needs
(`is_needed`), which tell two runs apart in a report (`is_compared`), and which a report lists (`listed`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from spd_lightning.artifacts.expressions import same


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as dotted ones: ``{"subspace": {"rank": 8}}`` becomes ``{"subspace.rank": 8}``."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two keys or configurations, an entry each: ``rank: 8 there, 16 here``; hashes shortened."""

    def short(value: Any) -> str:
        return repr(value[:12] + "..." if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32,}", value) else value)

    old, new = (flatten(json.loads(json.dumps(key))) for key in (there, here))
    return [
        f"{name}: {short(old.get(name))} there, {short(new.get(name))} here"
        for name in sorted(old.keys() | new.keys())
        if not same(old.get(name), new.get(name))
    ]


@dataclass(frozen=True)
class Setting:
    """What an option means.

    Attributes:
        stages: Those that it has a part in, by the names of ``results.json``; empty for the whole run.
        role: ``key``: the key of its stage holds it, or what it stands for. ``run``: no stage's key does, and yet the
            run is another one. ``place``: where, when and on what a run is computed, not what.
        compared: Whether two runs that differ in it are two configurations to a report: not so for seeds, folders, and
            what is scored or shown and when.
        listed: Whether a report lists it under "What was run".
        chosen_later: Whether the moments of the gradients do without it: it chooses among their directions.
    """

    stages: frozenset[str] = frozenset()
    role: Literal["key", "run", "place"] = "key"
    compared: bool = True
    listed: bool = False
    chosen_later: bool = False


EXTRACT, GENERATE = frozenset({"extract"}), frozenset({"generate"})
FINE_TUNE, EVALUATE = frozenset({"fine_tune"}), frozenset({"evaluate"})

# What an option means that has no line of its own; an option above the sections needs one.
SECTIONS = {
    "subspace": Setting(EXTRACT),
    "data": Setting(GENERATE),
    "model": Setting(FINE_TUNE),
    "trainer": Setting(FINE_TUNE),
    "evaluation": Setting(EVALUATE),
}

# In the order in which a report lists them.
SETTINGS = {
    "subspace.model_name_or_path": Setting(listed=True),
    "subspace.task": Setting(EXTRACT | GENERATE, listed=True),
    "subspace.num_examples": Setting(EXTRACT, listed=True),
    "subspace.rank": Setting(EXTRACT, listed=True, chosen_later=True),
    "subspace.layers": Setting(EXTRACT, listed=True),
    "subspace.sides": Setting(EXTRACT, listed=True),
    "subspace.loss": Setting(EXTRACT, listed=True),
    "subspace.center": Setting(EXTRACT, chosen_later=True),
    "subspace.basis": Setting(EXTRACT, listed=True, chosen_later=True),
    "subspace.basis_task": Setting(EXTRACT, listed=True),
    "subspace.strength": Setting(EXTRACT, listed=True, chosen_later=True),
    "subspace.device_map": Setting(EXTRACT, "place"),
    "subspace.data_dir": Setting(EXTRACT, compared=False),  # a report compares the content
    "subspace.seed": Setting(EXTRACT, compared=False),
    "data.method": Setting(GENERATE, listed=True),
    "data.keep": Setting(FINE_TUNE, listed=True),
    "data.num_prompts": Setting(GENERATE, listed=True),
    "data.num_generations": Setting(GENERATE, listed=True),
    "data.max_new_tokens": Setting(GENERATE, listed=True),
    "data.temperature": Setting(GENERATE, listed=True),
    "data.top_p": Setting(GENERATE, listed=True),
    "data.top_k": Setting(GENERATE, listed=True),
    "data.corpus_dir": Setting(GENERATE, "place"),
    "data.device_map": Setting(GENERATE, "place"),
    "data.data_dir": Setting(GENERATE, compared=False),
    "data.seed": Setting(GENERATE, compared=False),
    "data.min_completions": Setting(GENERATE, "run", compared=False),  # whether a student is made, not which
    "data.allow_code_execution": Setting(GENERATE, "run", compared=False),
    "model.lora_r": Setting(FINE_TUNE, listed=True),
    "model.lora_alpha": Setting(FINE_TUNE, listed=True),
    "model.learning_rate": Setting(FINE_TUNE, listed=True),
    "model.loss_on": Setting(FINE_TUNE, listed=True),
    "model.rounds": Setting(FINE_TUNE, "run", listed=True),  # how often the whole is repeated
    "model.model_name_or_path": Setting(FINE_TUNE, "run"),  # the base's fingerprint stands in the key
    "model.seed": Setting(FINE_TUNE, compared=False),
    "trainer.max_epochs": Setting(FINE_TUNE, listed=True),
    "trainer.max_steps": Setting(FINE_TUNE, listed=True),
    "trainer.precision": Setting(FINE_TUNE, listed=True),
    "trainer.accelerator": Setting(FINE_TUNE, "place"),
    "trainer.strategy": Setting(FINE_TUNE, "place"),
    "trainer.devices": Setting(FINE_TUNE, "place"),
    "trainer.num_nodes": Setting(FINE_TUNE, "place"),
    "trainer.plugins": Setting(FINE_TUNE, "place"),
    "trainer.profiler": Setting(FINE_TUNE, "place"),
    "trainer.detect_anomaly": Setting(FINE_TUNE, "place"),
    "trainer.default_root_dir": Setting(FINE_TUNE, "place", compared=False),
    "trainer.logger": Setting(FINE_TUNE, "place", compared=False),
    "trainer.log_every_n_steps": Setting(FINE_TUNE, "place", compared=False),
    "trainer.enable_progress_bar": Setting(FINE_TUNE, "place", compared=False),
    "trainer.enable_model_summary": Setting(FINE_TUNE, "place", compared=False),
    "trainer.enable_checkpointing": Setting(FINE_TUNE, "run"),  # this and what follows change no weight
    "trainer.enable_autolog_hparams": Setting(FINE_TUNE, "run"),
    "trainer.inference_mode": Setting(FINE_TUNE, "run"),
    "trainer.limit_test_batches": Setting(FINE_TUNE, "run"),
    "trainer.limit_predict_batches": Setting(FINE_TUNE, "run"),
    "trainer.model_registry": Setting(FINE_TUNE, "run"),
    "trainer.num_sanity_val_steps": Setting(FINE_TUNE, "run"),
    "trainer.use_distributed_sampler": Setting(FINE_TUNE, "run"),
    "evaluation.protocol": Setting(EVALUATE, listed=True),
    "evaluation.limit": Setting(EVALUATE, listed=True),
    "evaluation.num_samples": Setting(EVALUATE, listed=True),
    "evaluation.best_decoding": Setting(EVALUATE, listed=True),
    "evaluation.temperature": Setting(EVALUATE, listed=True),
    "evaluation.top_p": Setting(EVALUATE, listed=True),
    "evaluation.top_k": Setting(EVALUATE, listed=True),
    "evaluation.adapter": Setting(EVALUATE, listed=True),
    "evaluation.subspace": Setting(EVALUATE, listed=True),
    "evaluation.tasks": Setting(EVALUATE, "run", compared=False),
    "evaluation.methods": Setting(EVALUATE, "run", compared=False),
    "evaluation.base_shots": Setting(EVALUATE, "run", compared=False),
    "evaluation.when": Setting(EVALUATE, "place", compared=False),  # of a training that you start yourself
    "evaluation.every_n_steps": Setting(EVALUATE, "run", compared=False),
    "evaluation.every_n_epochs": Setting(EVALUATE, "run", compared=False),
    "evaluation.skip_missing_data": Setting(EVALUATE, "run", compared=False),
    "evaluation.allow_code_execution": Setting(EVALUATE, "place", compared=False),
    "evaluation.device_map": Setting(EVALUATE, "place"),
    "seed_everything": Setting(compared=False, listed=True),
    "template_date": Setting(),
    "check_against": Setting(role="run"),
    "config": Setting(role="place", compared=False),
    "ckpt_path": Setting(role="place", compared=False),
    "run_dir": Setting(role="place", compared=False),
    "artifact_dir": Setting(role="place", compared=False),
    "data_dir": Setting(role="place", compared=False),  # here and in revisions, the content counts
    "model_revision": Setting(role="place", compared=False),
    "data_revision": Setting(role="place", compared=False),
    "estimate": Setting(role="place"),
    "dry_run": Setting(role="place"),
    "quiet": Setting(role="place"),
}


def setting(name: str) -> Setting:
    """What an option means, by its dotted name: its own line, that of the option it is part of, or its section's."""
    above = name
    while above:
        if above in SETTINGS:
            return SETTINGS[above]
        above = above.rpartition(".")[0]
    return SECTIONS.get(name.split(".")[0], Setting())


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a configuration that its results depend on, dotted; a callback may stop early, so they count.

    A place that is given with arguments of its own (a strategy as class and arguments, a revision for each data set)
    counts by each of these; a logger never does.
    """
    return {
        name: value
        for name, value in flatten(config).items()
        if not (name in SETTINGS and SETTINGS[name].role == "place")
        and not name.startswith("trainer.logger")
        and (name, value) != ("trainer.callbacks", None)
    }


def in_student_key(name: str) -> bool:
    """Whether stage 3's key holds an option of the sections ``model`` and ``trainer``."""
    return setting(name).role == "key"


def is_needed(name: str, artifact: Literal["scores", "moments", "corpus"]) -> bool:
    """Whether an artifact that runs share depends on an option: scores of the base, moments, or a corpus.

    Two runs that differ only in options that it does not need share it.
    """
    found = setting(name)
    stages = {"scores": EVALUATE, "moments": EXTRACT, "corpus": EXTRACT | GENERATE}[artifact]
    chosen_later = artifact == "moments" and found.chosen_later
    return found.role != "place" and not chosen_later and (not found.stages or bool(found.stages & stages))


def is_compared(name: str) -> bool:
    """Whether two runs that differ in this option are two configurations to a report."""
    return setting(name).compared


def listed(stages: Collection[str]) -> list[str]:
    """The options that a report lists, in order.

    Args:
        stages: What was computed. An option without a part in that is left out: a default of a stage that did not run
            is no fact. Empty where it is not known: then all are listed.
    """
    return [
        name
        for name, found in SETTINGS.items()
        if found.listed and (not stages or not found.stages or found.stages & set(stages))
    ]
