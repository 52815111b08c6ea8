"""A command line in parts; its mistakes are in test_mistakes.py."""

from __future__ import annotations

from spd_lightning.cli.typed import read_typed

STAGES = ("fit",)


def test_files_go_before_options_in_their_order() -> None:
    words = ["fit", "--a.b", "-1", "--config", "x", "--estimate", "-c=y", "--l+=3", "--c.d=[1, 2]"]
    typed = read_typed(words, STAGES, STAGES)
    assert typed.args() == ["fit", "--config=x", "--config=y", "--a.b", "-1", "--estimate", "--l+=3", "--c.d=[1, 2]"]
    assert typed.options == {"a.b": "-1", "estimate": None, "l": "3", "c.d": "[1, 2]"}


def test_help_of_a_section() -> None:
    assert read_typed(["fit", "--help", "data"], STAGES, STAGES).help_of == "data"
    assert read_typed(["fit", "--help"], STAGES, STAGES).help_of is None
    assert read_typed(["fit"], STAGES, STAGES).help_of == ""


def test_other_commands_are_left_to_their_parser() -> None:
    typed = read_typed(["sample", "run", "--prompt", "x"], STAGES, ("fit", "sample"))
    assert typed.args() == ["sample", "run", "--prompt", "x"]
