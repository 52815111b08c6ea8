"""What the parser of the stage commands knows, kept in a file: help, names and kinds of options without the parser.

    python -m spd_lightning.cli.option_table      write the file anew, after an option or its help was changed

The parser is made from the signatures and docstrings of modules that need PyTorch, Lightning, transformers and PEFT,
five seconds of CPU. The file holds hashes of the sources and versions of the libraries that it was made from; where one
is another, it is not used, and the live parser answers. A test holds it equal to the live parser's.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
FILE = Path(__file__).with_name("options.json")
WIDTH = 100  # columns of the help

# What the parser is made from: these files, and of those signatures (the options) and docstrings (the help).
WHOLE = (*("cli/commands.py", "cli/help.py", "cli/kinds.py", "cli/names.py", "cli/parser.py", "cli/stage_parser.py"),)
SIGNATURES = (
    *("subspace/module.py", "finetuning/datamodule.py", "finetuning/module.py", "evaluation/callback.py"),
    *("cli/completion.py", "cli/doctor.py", "cli/runs.py", "cli/sample.py", "cli/store.py"),
)
LIBRARIES = ("lightning", "jsonargparse")


@dataclass(frozen=True)
class Table:
    """What is known of the commands.

    Attributes:
        commands: Every command.
        options: Those of each stage command, with their dashes, as the parser has them.
        kinds: `kinds.kind_of` those options of a stage command that are numbers, truth values or choices.
        titles: What stands over each section in the help of a stage command.
        help: Text of ``--help`` by stage command; under "" that of the program.
    """

    commands: list[str]
    options: Mapping[str, list[str]]
    kinds: Mapping[str, Mapping[str, str]]
    titles: Mapping[str, Mapping[str, str]]
    help: Mapping[str, str]


def sources() -> dict[str, str]:
    """What a table is made from: file to hash, library to version."""
    texts = {name: (PACKAGE / name).read_text(encoding="utf-8") for name in (*WHOLE, *SIGNATURES)}
    texts.update({name: _signatures(texts[name]) for name in SIGNATURES})
    hashes = {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}
    return {**hashes, **{name: _version(name) for name in LIBRARIES}}


def _signatures(text: str) -> str:
    """Of a module's classes and public functions: docstring, and parameters, defaults and docstring of ``__init__``."""
    found = []
    for owner in ast.parse(text).body:
        if isinstance(owner, ast.FunctionDef) and not owner.name.startswith("_"):
            found.append(f"{owner.name} {ast.get_docstring(owner)} {ast.dump(owner.args)}")
        elif isinstance(owner, ast.ClassDef):
            for made in owner.body:
                if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                    docs = [ast.get_docstring(owner), ast.get_docstring(made)]
                    found.append(f"{owner.name} {docs} {ast.dump(made.args)}")
    return "\n".join(found)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@cache
def load() -> Table | None:
    """The table; None where it was made from other sources or libraries than those here."""
    try:
        found = json.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("made_from") != sources():
        return None
    texts = {
        command: "\n\n".join("\n".join(found["blocks"][key]) for key in keys) for command, keys in found["help"].items()
    }
    return Table(found["commands"], found["options"], found["kinds"], found["titles"], texts)


def make() -> dict[str, Any]:
    """The table as it stands in the file, from the live parser."""
    from spd_lightning.cli.help import titles_of
    from spd_lightning.cli.parser import command_names, kinds_of, make_parser, options_of, stage_parsers

    blocks: dict[str, list[str]] = {}
    keys: dict[str, list[str]] = {}
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        parser = make_parser()
        parsers = stage_parsers(parser)
        texts = {"": parser.format_help(), **{name: sub.format_help() for name, sub in parsers.items()}}
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    for command, text in texts.items():  # a section of the help stands once, though four commands show it
        keys[command] = []
        for block in text.rstrip("\n").split("\n\n"):
            lines = block.split("\n")
            key = lines[0] if blocks.get(lines[0], lines) == lines else f"{lines[0]} ({command})"
            blocks[key] = lines
            keys[command].append(key)
    return {
        "made_from": sources(),
        "commands": command_names(),
        "options": {command: options_of(sub) for command, sub in parsers.items()},
        "kinds": {command: kinds_of(sub) for command, sub in parsers.items()},
        "titles": {command: titles_of(sub) for command, sub in parsers.items()},
        "help": keys,
        "blocks": blocks,
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(), indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"Written: {FILE}")
