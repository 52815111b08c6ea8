"""What the parser says of a mistake, put into one message: what is wrong, what is allowed, and what to type."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from jsonargparse import ArgumentError

from spd_lightning.errors import unknown_name


def explain(error: ArgumentError, commands: Sequence[str], options: Sequence[str]) -> str:
    """One message for a parsing error: what is wrong, and the nearest option.

    Args:
        error: What the parser said.
        commands: All there are.
        options: Of the command that was typed, with their dashes.
    """
    text = str(error).strip()
    found = re.search(r"(?:Option '|[Uu]nrecognized arguments: (?:--)?|Key ')([\w.]+)", text)
    if found:
        wrong = found[1]
        known = [name.lstrip("-") for name in options]
        near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
        if wrong not in known:
            hint = f" Did you mean --{near[0]}?" if near else ""
            return f"Unknown option --{wrong}.{hint} `python -m spd_lightning <command> --help` lists all."
    plain = " ".join(line.strip() for line in text.splitlines() if line.strip())
    command = re.match(r"argument subcommand: invalid choice: '([^']*)' \(choose from (.*)\)", plain)
    if command:
        known = re.findall(r"'([^']*)'", command[2])
        near = difflib.get_close_matches(command[1], known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"Unknown command {command[1]!r}.{hint} Known: {', '.join(known)}."
    if plain.startswith('expected "subcommand"'):
        return f"A command is missing. Type python -m spd_lightning {{{','.join(commands)}}} or --help."
    missing = re.match(r"the following arguments are required: (.*)", plain)
    if missing:
        names = [name.rsplit(".", 1)[-1].strip() for name in missing[1].split(",")]
        shown = [f"--{name}" if f"--{name}" in options else name.upper() for name in names]
        return f"{' and '.join(shown)} must be given. `python -m spd_lightning <command> --help` says what."
    return _explain_value(plain) or plain


KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}


def _explain_value(text: str) -> str | None:
    """What is wrong with the value of an option, from the parser's own words; None where they are not understood."""
    key = re.match(r'Parser key "([\w.]+)":', text)
    if key is None:
        return None
    name = key[1]
    choice = re.search(r"Expected a typing\.Literal\[([^\]]*)\]\. Got value: (\S+)", text)
    if choice:
        return str(unknown_name(name, choice[2], re.findall(r"'([^']*)'", choice[1]), f"--{name}"))
    found = re.search(r"(?:Got|Given) value: (.*)$", text)
    kinds = re.findall(r"Expected a <class '(\w+)'>", text)
    if found is None or not kinds:
        return None
    if "list" in kinds and "<class 'str'>" in text:
        return f"{name}={found[1]!r} is not a list. Set --{name} '[{found[1]}]'."
    allowed = " or ".join(dict.fromkeys(KINDS[kind] for kind in kinds if kind in KINDS))
    return f"{name}={found[1]!r} is not possible. Set --{name} to {allowed}." if allowed else None
