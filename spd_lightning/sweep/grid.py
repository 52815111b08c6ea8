"""Read a W&B sweep file as a grid of points: what each one types, and in which order they share the most work.

Commands are rendered as ``wandb agent`` does. Nothing is run here; see `runner`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spd_lightning import shipped
from spd_lightning.artifacts.reading import read_yaml
from spd_lightning.artifacts.settings import is_needed
from spd_lightning.errors import UserError

ARTIFACTS: tuple[Literal["scores", "moments", "corpus"], ...] = ("scores", "moments", "corpus")


@dataclass(frozen=True)
class Sweep:
    """A sweep file: what is varied, and the command of a point with W&B's macros in it."""

    path: Path
    parameters: dict[str, list[Any]]
    command: list[str]


@dataclass(frozen=True)
class Point:
    """One point of the grid: its options, its command, and the name of its run folder."""

    options: dict[str, Any]
    command: list[str]
    name: str


def read_sweep(path: str | Path) -> Sweep:
    """Read a W&B sweep file; whatever its search method, its values are taken as a grid.

    Raises:
        UserError: If the file is absent or malformed, a parameter has no finite list of values, or the command is not
            one that takes ``${args}``.
    """
    found = shipped.find(path)
    if found is None:
        raise UserError(f"Sweep file {path} does not exist. `python -m spd_lightning configs list` names shipped ones.")
    path = found
    content = read_yaml(path, "Mend it.")
    given = content.get("parameters")
    if not isinstance(given, dict) or not given:
        raise UserError(f"{path}: parameters={given!r}, but a sweep needs at least one, e.g. subspace.rank.")
    parameters: dict[str, list[Any]] = {}
    for name, spec in given.items():
        values = spec.get("values", [spec["value"]] if "value" in spec else None) if isinstance(spec, dict) else None
        if not isinstance(values, list) or not values:
            raise UserError(
                f"{path}: parameter {name}={spec!r} is no list of values. A local grid needs: {{values: [...]}}."
            )
        if None in values:
            raise UserError(
                f"{path}: parameter {name} holds null, which W&B hands on as the text None. Write null in quotes."
            )
        parameters[str(name)] = values
    command = content.get("command")
    if not isinstance(command, list) or "${args}" not in command:
        raise UserError(
            f"{path}: command={command!r} must be a list that holds ${{args}}; only that form is understood."
        )
    return Sweep(path, parameters, [str(part) for part in command])


def grid(parameters: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last parameter varying fastest."""
    return [dict(zip(parameters, values)) for values in itertools.product(*parameters.values())]


def render_command(command: Sequence[str], options: dict[str, Any]) -> list[str]:
    """The command of a point: macros replaced, options as ``--key=value``, as ``wandb agent`` renders them."""
    rendered: list[str] = []
    for part in command:
        if part == "${args}":
            rendered += [f"--{key}={value}" for key, value in options.items()]
        elif part == "${env}":
            rendered.append("/usr/bin/env")
        elif part == "${interpreter}":
            rendered.append("python")
        else:
            rendered.append(part)
    return rendered


def points(sweep: Sweep) -> list[Point]:
    """The points of a sweep, each with a name that covers its command and the content of its config files.

    Raises:
        UserError: If such a file is not there.
    """
    found = []
    for options in grid(sweep.parameters):
        command = render_command(sweep.command, options)
        digest = hashlib.sha256(json.dumps(command).encode())
        named = [value for flag, value in itertools.pairwise(command) if flag == "--config"]
        for value in [*named, *(part.partition("=")[2] for part in command if part.startswith("--config="))]:
            if value:
                file = shipped.find(value)
                if file is None:
                    raise UserError(
                        f"{sweep.path}: config file {value} does not exist. Start in the folder that holds it."
                    )
                digest.update(file.read_bytes())
        words = "-".join(f"{key.rsplit('.', 1)[-1]}{value}" for key, value in options.items())
        slug = re.sub(r"[^A-Za-z0-9.]+", "_", words).strip("_")[:60]
        found.append(Point(options, command, f"{slug}-{digest.hexdigest()[:8]}"))
    return found


def waves(todo: Sequence[Point]) -> list[list[Point]]:
    """Order points so that what they share is computed once; those of a wave run side by side.

    No two points of a wave need the same artifact that is not there yet; which options an artifact needs is said by the
    table of `artifacts.settings`.
    """
    found: list[list[Point]] = []
    made: set[str] = set()
    left = list(todo)
    while left:
        wave: list[Point] = []
        rest: list[Point] = []
        making: set[str] = set()
        for point in left:
            missing = _artifacts(point) - made
            if missing & making:
                rest.append(point)
            else:
                wave.append(point)
                making |= missing
        found.append(wave)
        made |= making
        left = rest
    return found


def _artifacts(point: Point) -> set[str]:
    """The artifacts that a point needs, each by the options that it depends on."""
    return {
        artifact + json.dumps({k: v for k, v in point.options.items() if is_needed(k, artifact)}, default=str)
        for artifact in ARTIFACTS
    }


def cover(all_points: Sequence[Point]) -> list[Point]:
    """Fewest points, taken greedily, that hold every value of every option at least once."""
    seen: set[tuple[str, str]] = set()
    chosen = []
    for point in all_points:
        pairs = {(k, str(v)) for k, v in point.options.items()}
        if pairs - seen:
            seen |= pairs
            chosen.append(point)
    return chosen
