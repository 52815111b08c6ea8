"""One check of what an option may be, for the constructors: what the command line refuses, Python refuses too.

The parser reads the same annotations.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from spd_lightning.errors import UserError, unknown_name

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
WORDS |= {list: "a list", dict: "a mapping"}


def check_options(owner: type, given: Mapping[str, Any], section: str) -> None:
    """Refuse a value that its option's annotation does not allow.

    Args:
        owner: The class whose constructor has the options.
        given: Values by name; names that are no options are left alone.
        section: Where the options stand on the command line, for messages.

    Raises:
        UserError: For the first such value, with what is allowed.
    """
    for name, hint in get_type_hints(owner.__init__).items():  # type: ignore[misc]
        if name in given and not _allowed(given[name], hint):
            option, value = f"{section}.{name}", given[name]
            for part in _parts(hint) if isinstance(value, list | tuple) else ():
                inner = get_args(part)[0] if get_origin(part) is list else None
                for entry in value if (choices := _choices(inner)) else ():
                    if isinstance(entry, str) and entry not in choices:
                        raise unknown_name(f"entry of {option}", entry, choices, f"--{option}")
            if (choices := _choices(hint)) and isinstance(value, str):
                raise unknown_name(option, value, choices, f"--{option}")
            raise UserError(f"{option}={value!r} is not possible. Set --{option} to {_words(hint)}.")


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _choices(hint: Any) -> list[str]:
    return [str(v) for part in _parts(hint) if get_origin(part) is Literal for v in get_args(part)]


def _allowed(value: Any, hint: Any) -> bool:
    return any(_is(value, part) for part in _parts(hint))


def _is(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(type(value) is type(v) and value == v for v in inner)
    if origin in (list, tuple):
        listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return listed and all(_allowed(v, inner[0]) for v in value)
    if kind in (int, float):
        wide = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, wide) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str | os.PathLike)
    if origin is dict:
        return isinstance(value, Mapping)
    return not isinstance(kind, type) or isinstance(value, kind)


def _words(hint: Any) -> str:
    found = []
    for part in _parts(hint):
        if get_origin(part) is Literal:
            found += [str(v) for v in get_args(part)]
        elif get_origin(part) is list:
            found.append(f"a list of {_words(get_args(part)[0])}")
        else:
            found.append(WORDS.get(get_origin(part) or part, str(part)))
    return " or ".join(dict.fromkeys(found))
