"""The parser, and the names with an underscore that it takes from Lightning and jsonargparse."""

from __future__ import annotations

import inspect
from typing import Any

import jsonargparse
import pytest
from lightning.pytorch.cli import LightningCLI

from spd_lightning.cli.commands import COMMANDS, command_parser
from spd_lightning.cli.parser import CommandLine, command_names, make_parser, option_names, options_of
from spd_lightning.cli.stage_parser import StageLine


def test_private_names_of_libraries_are_there() -> None:
    """Lightning 2.6.6 and jsonargparse 4.53.0; a version that renames one fails here."""
    for name in ("_add_subcommands", "_parse_ckpt_path", "_run_subcommand", "_set_seed", "_parser"):
        assert callable(getattr(LightningCLI, name))
    parser: Any = make_parser()
    assert list(parser.commands.choices) == command_names()
    assert options_of(parser.commands.choices["fit"])


def test_options_of_the_command_that_was_typed() -> None:
    assert "--data.num_prompts" in option_names("fit")
    assert {"--prompt", "--seed"} <= set(option_names("sample"))
    assert "--data.rows" not in option_names("sample")


def test_the_parser_alone_makes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CommandLine, "instantiate_classes", lambda self: pytest.fail("nothing is made"))
    assert make_parser().parse_args(["fit", "--data.num_prompts=3"]).fit.data.num_prompts == 3


def test_the_stage_commands_alone_read_as_all_do() -> None:
    alone: Any = jsonargparse.capture_parser(StageLine, ["fit"])
    whole: Any = make_parser()
    assert list(alone.commands.choices) == ["fit"]
    assert options_of(alone.commands.choices["fit"]) == options_of(whole.commands.choices["fit"])


@pytest.mark.parametrize(
    ("name", "typed", "given"),
    [
        ("sample", ["r", "--prompt", "1"], {"run_dir": "r", "prompt": "1", "max_new_tokens": 128}),
        ("report", ["a", "b", "--out=c"], {"run_dir": ["a", "b"], "out": "c"}),
        ("export", ["r", "--form=merged", "--out=o"], {"run_dir": "r", "form": "merged", "out": "o"}),
        ("compare", ["a", "b"], {"subspace": ["a", "b"], "plot": None}),
        ("configs", ["copy", "demo", "--out=o"], {"action": "copy", "out": "o", "name": "demo"}),
        ("configs", ["list"], {"action": "list", "name": None}),
        ("sweep", ["rank.yaml", "--check"], {"file": "rank.yaml", "check": True}),
        ("contamination", ["r", "--tasks=[svamp]"], {"run_dir": "r", "tasks": ["svamp"], "limit": 100}),
        ("runs", ["rm", "a", "b", "--yes"], {"action": "rm", "run_dir": ["a", "b"], "yes": True, "sort": "name"}),
        ("artifacts", ["list"], {"action": "list", "older_than_days": 30.0}),
    ],
)
def test_a_command_is_handed_what_its_function_names(name: str, typed: list[str], given: dict[str, object]) -> None:
    parsed = vars(command_parser(name).parse_args(typed))
    assert sorted(parsed) == sorted(inspect.signature(COMMANDS[name]).parameters)
    assert {key: parsed[key] for key in given} == given
    assert all(f"{key}:" in (COMMANDS[name].__doc__ or "") for key in parsed), "its docstring is its help"
