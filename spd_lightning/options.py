"""One check of what an option may be, for the constructors: what the command line refuses, Python refuses too.

The parser reads the same annotations.
"""

from __future__ import annotations

import difflib
import math
import numbers
import os
import re
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
        return isinstance(value, wide) and not isinstance(value, bool) and math.isfinite(value)
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


def check_rank(rank: int | str) -> None:
    """Refuse a rank that fits no model.

    Raises:
        UserError: For a word that is none; whether a number fits, the model says.
    """
    if rank != "half" and not isinstance(rank, int) and not rank.isdigit():
        energy_share(rank)


def energy_share(rank: int | str) -> float:
    """x of ``energy:x``.

    Raises:
        UserError: If that is not what ``rank`` is.
    """
    try:
        word, share = str(rank).split(":")
        value = float(share)
    except ValueError:
        word, value = "", 0.0
    if word == "energy" and not 0.0 < value <= 1.0:
        raise UserError(
            f"rank={rank!r}: the share of the energy is above 0 and at most 1, found {value:g}. Set --subspace.rank "
            "energy:0.95, half or an integer."
        )
    if word != "energy":
        raise UserError(f"rank={rank!r} is not known. Set --subspace.rank to half, an integer, or energy:0.95.")
    return value


def check_layers(layers: str | list[int]) -> None:
    """Refuse layers that no model has.

    Raises:
        UserError: For a word that is none, and an empty list; whether numbers fit, the model says.
    """
    if layers in ("middle_last", "all") or (layers and not isinstance(layers, str)):
        return
    numbers = re.findall(r"-?\d+", layers) if isinstance(layers, str) else []
    if numbers and not re.search(r"[A-Za-z]", str(layers)):
        hint = f"Set --subspace.layers '[{', '.join(numbers)}]'"
    else:
        near = difflib.get_close_matches(str(layers), ("middle_last", "all"), n=1, cutoff=0.5)
        near = ["middle_last"] if layers == "last" else near
        hint = f"Did you mean {near[0]}? Set --subspace.layers" if near else "Set --subspace.layers"
    raise UserError(f"layers={layers!r} is not known. {hint} (middle_last, all, or a list such as '[0, -1]').")
