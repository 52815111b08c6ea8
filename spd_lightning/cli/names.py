"""The commands of stages and the names of options: what is linked, what a file may hold, and which names are refused.

Nothing here needs the parser: its options are handed over, or stand in `option_table`.
"""

from __future__ import annotations

from collections.abc import Iterable

from spd_lightning.cli.help import HEADINGS
from spd_lightning.cli.messages import section_alone, unknown_option
from spd_lightning.cli.typed import Typed
from spd_lightning.errors import UserError

STAGE_COMMANDS = ("fit", "extract", "generate", "test")

# Set once and handed to every section that needs it.
LINKS = {
    "subspace.model_name_or_path": ("data.model_name_or_path", "model.model_name_or_path"),
    "subspace.task": ("data.task",),
    "subspace.task_file": ("data.task_file",),
    "subspace.device_map": ("data.device_map", "evaluation.device_map"),
    "data.rows": ("subspace.rows",),
    "evaluation.allow_code_execution": ("data.allow_code_execution",),
    "data_dir": ("subspace.data_dir", "data.data_dir"),
    "seed_everything": ("subspace.seed", "data.seed", "model.seed"),
}

# Options that follow another one, which is the one to set.
FOLLOWS = {target: source for source, targets in LINKS.items() for target in targets}


def file_options(options: Iterable[str]) -> list[str]:
    """The options that a file may hold, dotted, in the order of the help."""
    names = [option.removeprefix("--") for option in options]
    left_out = {*HEADINGS, "help", "config", "print_config"}
    return [name for name in names if name not in left_out and not name.endswith(("+", ".help"))]


DEEP = "subspace.task_file"  # the one option that holds mappings of mappings


def check_depth(typed: Typed) -> None:
    """Refuse parts of an inner mapping by themselves: to the parser each would be the whole of it."""
    parts = {name: name[len(DEEP) + 1 :].split(".") for name in typed.options if name.startswith(f"{DEEP}.")}
    for name, (outer, *inner) in parts.items():
        if inner:
            same = {n: p[1:] for n, p in parts.items() if p[0] == outer and len(p) > 1}
            whole = ", ".join(f"{'.'.join(p)}: {typed.options[n]}" for n, p in same.items())
            raise UserError(
                f"--{name} is a part of {outer}, which is given as a whole. Type --{DEEP}.{outer} '{{{whole}}}'."
            )


def check_names(typed: Typed, known: list[str]) -> None:
    """Refuse a name that is no option of the command, and a file that is given to a section."""
    check_depth(typed)
    for name, value in typed.options.items():
        if name in HEADINGS:
            if value is None or not value.startswith("{"):
                raise UserError(section_alone(name, value, known, str(typed.command)))
        elif name in FOLLOWS:
            raise UserError(f"--{name} follows --{FOLLOWS[name]} and is not set by itself. Set --{FOLLOWS[name]}.")
        elif name == "print_config" or name.endswith(".help"):
            continue
        elif not any(name == other or name.startswith(f"{other}.") for other in known):
            raise UserError(unknown_option(name, known, str(typed.command)))
