"""Which name was meant."""

from __future__ import annotations

import pytest

from spd_lightning.cli.parser import make_parser
from spd_lightning.cli.words import COMMANDS_MEANT, OPTIONS_MEANT, options_meant

KNOWN = (
    "subspace.task",
    "evaluation.tasks",
    "data.num_prompts",
    "data.batch_size",
    "model.batch_size",
    "model.learning_rate",
    "run_dir",
)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("data.num-prompts", ["data.num_prompts"]),
        ("num_prompts", ["data.num_prompts"]),
        ("batch_size", ["data.batch_size", "model.batch_size"]),
        ("lr", ["model.learning_rate"]),
        ("model.lr", ["model.learning_rate"]),
        ("data.num_promts", ["data.num_prompts"]),
        ("evaluation.task", ["evaluation.tasks"]),
        ("subspace.tasks", ["subspace.task"]),
        ("data.learning_rate", ["model.learning_rate"]),
        ("evaluation.batch_size", ["data.batch_size", "model.batch_size"]),
        ("tasks", ["evaluation.tasks"]),
        ("zzz", []),
    ],
)
def test_the_likeliest_names(word: str, meant: list[str]) -> None:
    assert options_meant(word, KNOWN) == meant


def test_every_meaning_is_a_name_that_there_is() -> None:
    parsers = make_parser()._subcommands_action._name_parser_map  # type: ignore[attr-defined]
    assert set(COMMANDS_MEANT.values()) <= set(parsers)
    options = {o[2:] for action in parsers["fit"]._actions for o in action.option_strings}
    adapter = {name for names in OPTIONS_MEANT.values() for name in names} - options
    assert not adapter
