"""What the parser says of a mistake, put into one message: what is wrong, what is allowed, and what to type."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from jsonargparse import ArgumentError

from spd_lightning.cli.config_file import ConfigFile
from spd_lightning.cli.typed import PROGRAM, Typed
from spd_lightning.cli.words import near, options_meant
from spd_lightning.errors import unknown_name


def unknown_option(name: str, known: Collection[str], command: str) -> str:
    """What to say of an option that a command does not have.

    Args:
        name: As it was typed, without the dashes before it.
        known: Names of all options, dotted.
        command: The command.
    """
    meant = " or ".join(f"--{other}" for other in options_meant(name, known))
    hint = f" Did you mean {meant}?" if meant else ""
    return f"Unknown option --{name}.{hint} `{PROGRAM} {command} --help` lists all."


def section_alone(section: str, value: str | None, known: Collection[str], command: str) -> str:
    """What to say of a section that is typed as if it were an option: ``--model X``."""
    some = [f"--{name}" for name in options_meant(section, known)] or [f"--{section}.OPTION"]
    file = value is not None and value.endswith((".yaml", ".yml"))
    meant = f"--config {value}" if file else f"{some[0]} {value or 'VALUE'}"
    shows = f"`{PROGRAM} {command} --help {section}` lists it."
    return f"--{section} is a section, not an option. Did you mean {meant}? {shows}"


def place(name: str, typed: Typed, files: Sequence[ConfigFile]) -> str:
    """Where an option was set, as the beginning of a message: empty where it was typed."""
    if any(other == name or other.startswith(f"{name}.") or name.startswith(f"{other}.") for other in typed.options):
        return ""
    found = [at for file in files if (at := file.place(name)) is not None]
    return f"{found[-1]}: " if found else ""


def unresolved(error: Exception, typed: Typed, files: Sequence[ConfigFile]) -> str:
    """What to say of a ``${...}`` that stands for nothing."""
    key = str(getattr(error, "full_key", None) or "").removeprefix(f"{typed.command}.")
    text = str(error).splitlines()[0]
    variable = re.search(r"Environment variable '(\w+)' not found", text)
    if variable:
        name = variable[1]
        return (
            f"{place(key, typed, files)}{key} asks for the environment variable {name}, which is not set. Type `export "
            f"{name}=VALUE`, or write ${{oc.env:{name},DEFAULT}}."
        )
    return (
        f"{place(key, typed, files)}{key or 'an option'} holds a ${{...}} that stands for nothing ({text}). Name an "
        "option in it, as in ${subspace.task}, or an environment variable, as in ${oc.env:HOME}."
    )


def explain(
    error: ArgumentError,
    commands: Sequence[str],
    options: Sequence[str],
    typed: Typed,
    files: Sequence[ConfigFile] = (),
) -> str:
    """One message for a parsing error: what is wrong, where, and the nearest option.

    Args:
        error: What the parser said.
        commands: All there are.
        options: Of the command that was typed, with their dashes.
        typed: What was typed.
        files: The files that were named.
    """
    text = str(error).strip()
    plain = " ".join(line.strip() for line in text.splitlines() if line.strip())
    found = re.search(r"(?:Option '|[Uu]nrecognized arguments: (?:--)?|Key ')([\w.-]+)", text)
    known = [name.removeprefix("--") for name in options]
    if word := re.search(r"nrecognized arguments: ([^-\s]\S*)", text):
        more = f"`{PROGRAM} {typed.command} --help` shows what it takes."
        return f"{word[1]!r} is more than {typed.command} takes. {more}"
    if found and found[1] not in known:
        return unknown_option(found[1], known, typed.command or "COMMAND")
    if plain.startswith('expected "subcommand"'):
        return f"A command is missing. Type {PROGRAM} {{{','.join(commands)}}} or --help."
    missing = re.match(r"the following arguments are required: (.*)", plain)
    if missing:
        names = [name.rsplit(".", 1)[-1].strip() for name in missing[1].split(",")]
        shown = [f"--{name}" if f"--{name}" in options else name.upper() for name in names]
        return f"{' and '.join(shown)} must be given. `{PROGRAM} {typed.command} --help` says what."
    value = re.match(r"argument (?:-\w, )?--([\w.]+).*: expected (?:one|at least one) argument", plain)
    if value:
        return f"--{value[1]} has no value. Type --{value[1]} VALUE; `{PROGRAM} {typed.command} --help` says which."
    return _explain_value(plain, typed, files, known) or plain


KINDS = {
    **{"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"},
    "dict": "'{name: value}'",
}


def _explain_value(text: str, typed: Typed, files: Sequence[ConfigFile], known: Collection[str]) -> str | None:
    """What is wrong with the value of an option, from the parser's own words; None where they are not understood."""
    key = re.match(r'(?:Problem[^:]*: )?Parser key "([\w.]+)":', text)
    if key is None:
        return None
    name, at = key[1], place(key[1], typed, files)
    if name == "trainer.precision":
        given = re.search(r"(?:Got|Given) value: (\S+)", text)
        return at + unknown_precision(given[1] if given else "")
    choice = re.search(r"Expected a typing\.Literal\[([^\]]*)\]\. Got value: (\S+)", text)
    if choice:
        told = str(unknown_name(name, choice[2], re.findall(r"'([^']*)'", choice[1]), f"--{name}"))
        typed_alone = f"Type one of them behind {typed.command}."  # it has no name of its own
        return at + (told if name in known else told.replace(f"Set --{name}.", typed_alone))
    found = re.search(r"Given value: ?(.*)$", text) or re.search(r"Got value: (\S+)", text)
    kinds = re.findall(r"Expected a <class '(\w+)'>", text)
    if found is None or not kinds:
        return None
    if (spaced := _spaced(found[1])) is not None:
        return f"{at}{name}={found[1]!r} lacks a space behind a colon. Set --{name} '{spaced}'."
    if "list" in kinds and "<class 'str'>" in text:
        return f"{at}{name}={found[1]!r} is not a list. Set --{name} '[{found[1].strip('[,] ')}]'."
    allowed = " or ".join(dict.fromkeys(KINDS[kind] for kind in kinds if kind in KINDS))
    if not allowed:
        return None
    if "int" in kinds and (number := _whole(found[1])) is not None:
        return f"{at}{name}={found[1]!r} is not written as a whole number. Set --{name} {number}."
    return f"{at}{name}={found[1]!r} is not possible. Set --{name} to {allowed}."


def _spaced(text: str) -> str | None:
    """A mapping with the spaces behind its colons without which it is text; None for what has them, or is none.

    >>> _spaced("{letters:3, custom:mine: 2}"), _spaced("[{'temperature:0': None}]"), _spaced("{save_dir: s3://b}")
    ('{letters: 3, custom:mine: 2}', '[{temperature: 0}]', None)
    """
    plain = re.sub(r"'([^']*)': None", r"\1", text)
    spaced = re.sub(r":(?=[^\s:,{}'/\\][^\s:,{}']*\s*[,}])", ": ", plain)  # not in text, of an address say
    return spaced if spaced != plain and plain.lstrip("[").startswith("{") else None


def _whole(text: str) -> int | None:
    """The whole number that a text such as ``1e3`` or ``2.0`` stands for; None for every other."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def unknown_precision(value: str) -> str:
    """What to say of a precision that fine-tuning does not know."""
    from spd_lightning.finetuning.trained_model import PRECISIONS

    meant = {"fp16": "16-mixed", "bf16": "bf16-mixed", "fp32": "32-true", "float32": "32-true", "bfloat16": "bf16-true"}
    hint = meant.get(value.lower()) or near(value, PRECISIONS)
    known = ", ".join(PRECISIONS)
    did = f" Did you mean {hint}?" if hint in PRECISIONS else ""
    return f"trainer.precision={value!r} is not supported.{did} Known: {known}. Set --trainer.precision."
