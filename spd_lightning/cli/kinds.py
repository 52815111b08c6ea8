"""Values of a simple kind, told as early as names: numbers, truth values and choices need no PyTorch to be refused.

The kinds stand in `option_table`. A small parser of the same library reads the values, so what it refuses, and in which
words, is what the whole parser would say seconds later. Words with a rule of their own (`RULES`) are held to that rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from spd_lightning.artifacts.settings import flatten
from spd_lightning.cli.config_file import ConfigFile, config_path
from spd_lightning.cli.messages import explain, place
from spd_lightning.cli.typed import Typed
from spd_lightning.errors import UserError
from spd_lightning.options import check_layers, check_rank

RULES: dict[str, tuple[Any, Callable[[Any], None]]] = {  # annotation, and what the stage refuses it by
    "subspace.rank": (int | str, check_rank),
    "subspace.layers": (str | list[int], check_layers),
}
PLAIN = {"int": int, "float": float, "bool": bool, "null": NoneType}
NAMES = {kind: name for name, kind in PLAIN.items()}


def kind_of(hint: Any) -> str | None:
    """An annotation as it stands in the table: ``float|null``, ``=kv|=k|=v``; None for one of another kind."""
    found: list[str] = []
    for part in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        if get_origin(part) is Literal and all(isinstance(value, str) for value in get_args(part)):
            found += [f"={value}" for value in get_args(part)]
        elif part in NAMES:
            found.append(NAMES[part])
        else:
            return None
    return "|".join(found)


def _hint(kind: str) -> Any:
    names = kind.split("|")
    choices = tuple(name[1:] for name in names if name.startswith("="))
    plain = [PLAIN[name] for name in names if not name.startswith("=")]
    return Union[tuple([Literal[choices], *plain] if choices else plain)]  # noqa: UP007 - made from a list


def check_values(typed: Typed, files: Sequence[ConfigFile], kinds: Mapping[str, str], commands: Sequence[str]) -> None:
    """Refuse a value that its option cannot take, where the option is of a simple kind or has a rule.

    Args:
        typed: What was typed.
        files: The files that were named, later ones over earlier ones.
        kinds: `kind_of` each such option of the command, by its name.
        commands: All there are; for the message.

    Raises:
        UserError: As the whole parser says it.
    """
    import jsonargparse

    from spd_lightning.cli.values import MODE, read_as_typed

    read_as_typed()
    load = jsonargparse.get_loader(MODE)
    known = {name: _hint(kind) for name, kind in kinds.items()} | {name: hint for name, (hint, _) in RULES.items()}
    given: dict[str, Any] = {}
    for file in files:
        content = load(config_path(file.name).read_text(encoding="utf-8"))
        given |= {name: value for name, value in flatten(content).items() if name in known and value is not None}
    given |= {name: value for name, value in typed.options.items() if name in known and value is not None}
    # a number with a point in a file is no text to the whole parser, though it is when it is typed
    read_here = {name: str | int if name in RULES else str | int | float for name in given}
    texts = {name: str(value) for name, value in given.items() if isinstance(value, read_here[name])}
    parser = jsonargparse.ArgumentParser(parser_mode=MODE, exit_on_error=False)
    for name, text in texts.items():
        if "${" in text:  # what it stands for is known to the whole parser
            continue
        parser.add_argument(f"--{name}", type=known[name])
        try:
            read = parser.parse_args([f"--{name}={text}"])
        except jsonargparse.ArgumentError as error:
            raise UserError(explain(error, commands, [f"--{other}" for other in kinds], typed, files)) from error
        check_rules({name: read[name]}, typed, files)


def check_rules(values: Mapping[str, Any], typed: Typed, files: Sequence[ConfigFile]) -> None:
    """Refuse a word that the rule of its option does not have.

    Args:
        values: As they were parsed, by option; those without a rule are left alone.
        typed: What was typed.
        files: The files that were named.

    Raises:
        UserError: As the stage says it; of a value in a file also where.
    """
    for name in RULES.keys() & values.keys():
        try:
            RULES[name][1](values[name])
        except UserError as error:
            raise UserError(f"{place(name, typed, files)}{error}") from error
