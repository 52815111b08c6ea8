"""What ``--help`` shows: usage lines and headings of our own, and Lightning's docstrings without their markup."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any

from spd_lightning.cli.typed import PROGRAM
from spd_lightning.errors import UserError

HEADINGS = {
    "subspace": "subspace: stage 1, the directions of keys and values that a capability's right answers depend on",
    "data": "data: stage 2, which prompts are answered, how, and which of the answers are held out",
    "model": "model: stage 3, the student: adapter, learning rate, batches",
    "evaluation": "evaluation: stage 4, which models are scored on which benchmarks",
    "trainer": "trainer: devices and processes of every stage; epochs, precision and checkpoints of stage 3",
}


def actions_of(parser: Any) -> list[Any]:
    """What a parser takes, an entry for each option. argparse tells by no public name (Python 3.11)."""
    found: list[Any] = parser._actions
    return found


def tidy(parser: Any, name: str, stage: bool) -> None:
    """Give a command's help its usage line and headings, and take markup out of it.

    Args:
        parser: The command's.
        name: The command.
        stage: Whether it takes files and options by section.
    """
    parser.prog = f"{PROGRAM} {name}"
    if not stage:
        return
    parser.usage = f"{PROGRAM} {name} [--config FILE ...] [--section.option VALUE ...]"
    if name == "test":
        more = "further benchmarks of a finished run, with all else as it was; --tasks is --evaluation.tasks"
        parser.usage += f"\n       {PROGRAM} {name} RUN_DIR [--tasks LIST] [--evaluation.option VALUE ...]"
        parser.description = f"{str(parser.description).rstrip('.')}; or, given a RUN_DIR, {more}."
    for key, group in parser.groups.items():
        group.title = HEADINGS.get(key, f"{key}: options of this command alone")
    for action in actions_of(parser):
        if action.option_strings and action.option_strings[0].lstrip("-") in HEADINGS:
            action.help = argparse.SUPPRESS  # a file for one section; --config is the way
        elif isinstance(action.help, str) and action.help is not argparse.SUPPRESS:
            action.help = plain(action.help)


def plain(text: str) -> str:
    """A docstring's text without reST: roles keep the last part of their target, literals lose their quotes."""
    text = re.sub(r":\w+:`~([^`]*?)([^`.]+)`", r"\2", text)
    text = re.sub(r":\w+:`([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", text)
    text = re.sub(r"\s*Defaults?(?: to|:) ``[^`]*``\.?", "", text)  # the parser gives it, and ours may be another
    return re.sub(r"``([^`]*)``", r"\1", text).strip()


def section_help(parser: Any, word: str) -> str:
    """The help of one section of a stage command's parser; see `section_of`."""
    return section_of(parser.format_help(), titles_of(parser), word)


def titles_of(parser: Any) -> dict[str, str]:
    """What stands over each section in the help of a stage command."""
    return {section: str(group.title) for section, group in parser.groups.items()}


def section_of(text: str, titles: Mapping[str, str], word: str) -> str:
    """The part of a help text under one title.

    Args:
        text: The whole help.
        titles: Of its sections.
        word: The section, or an option in it.

    Raises:
        UserError: If there is no such section.
    """
    section = word.lstrip("-").split(".")[0]
    if section not in titles:
        raise UserError(f"--help {word}: there is no such section. Known: {', '.join(titles)}.")
    lines = text.splitlines()
    start = lines.index(f"{titles[section]}:")
    end = next((i for i, line in enumerate(lines) if i > start and line and not line.startswith(" ")), len(lines))
    return "\n".join(lines[start:end]).rstrip()
