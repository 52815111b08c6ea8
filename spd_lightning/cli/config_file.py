"""A configuration file, read strictly before the parser sees it: which option stands at which line.

The parser takes the last of two equal keys, says nothing of a file without options, and names no line. So each file is
looked at here first.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from spd_lightning import shipped
from spd_lightning.artifacts.files import typed_path
from spd_lightning.cli.typed import PROGRAM
from spd_lightning.cli.words import near, options_meant
from spd_lightning.errors import UserError

FORM = "Write `section:`, then `  option: value`."
MOST = 10_000  # options; aliases of aliases make more of a few lines


@dataclass(frozen=True)
class ConfigFile:
    """One file of options.

    Attributes:
        name: As it was typed.
        lines: Line of each option, by its dotted name; 1 is the first.
    """

    name: str
    lines: Mapping[str, int]

    def place(self, option: str) -> str | None:
        """Where the file sets an option, or a part of it: ``demo.yaml, line 3``; None where it does not."""
        line = self.lines.get(option) or next((n for k, n in self.lines.items() if k.startswith(f"{option}.")), None)
        return None if line is None else f"{self.name}, line {line}"


def config_path(name: str) -> Path:
    """The file that a name stands for: one that is there, else a shipped configuration of that name.

    Raises:
        UserError: If there is none.
    """
    path = typed_path(name)
    if (found := shipped.find(path)) is not None:
        return found
    if path.is_dir():
        inside = path / "config.yaml"
        hint = f"Type --config {inside}." if inside.is_file() else "It holds no config.yaml either. Give a YAML file."
        raise UserError(f"--config {name} is a folder, not a file. {hint}")
    meant = near(name, shipped.names())
    hint = f" Did you mean {meant}?" if meant else ""
    raise UserError(
        f"--config {name}: there is no such file.{hint} Give a YAML file of options, a run's config.yaml, or a name "
        f"that `{PROGRAM} configs list` shows."
    )


def read_config(name: str, known: Collection[str], linked: Mapping[str, str], command: str) -> ConfigFile:
    """Look at a configuration file.

    Args:
        name: As it was typed.
        known: Names of all options of the command, dotted.
        linked: Options that follow another one, and that one.
        command: The command; for the messages.

    Raises:
        UserError: With file and line, if it cannot be read, is no YAML, holds no options, names one twice, or one that
            the command does not have.
    """
    try:
        found = list(itertools.islice(_walk(_compose(name), "", known), MOST + 1))
    except RecursionError as error:
        raise UserError(f"{name} is nested too deep for a configuration. {FORM}") from error
    if len(found) > MOST:
        raise UserError(f"{name} holds more than {MOST:,} options. {FORM}")
    lines: dict[str, int] = {}
    problems: list[str] = []
    for option, line, twice in found:
        at = f"{name}, line {line}"
        if twice is not None:
            problems.append(
                f"{at}: {option} stands here and at line {twice} already, of which only one would count. Put all of it "
                "in one place."
            )
        elif option in linked:
            problems.append(f"{at}: {option} follows {linked[option]} and is not set by itself. Set {linked[option]}.")
        elif any(other.startswith(f"{option}.") for other in known):
            problems.append(
                f"{at}: {option} is a section. Write its options under it, `  option: value`, or leave it out."
            )
        elif not _belongs(option, known):
            meant = " or ".join(options_meant(option, known))
            hint = f"Did you mean {meant}?" if meant else "It is no option."
            problems.append(f"{at}: unknown option {option} of {command}. {hint}")
        lines[option] = line
    if problems:
        raise UserError("\n".join(problems))
    return ConfigFile(name, lines)


def _compose(name: str) -> yaml.MappingNode:
    path = config_path(name)
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}). Give a YAML file of options.") from error
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:
        raise UserError(f"{name} is no text, so it is no configuration. Give a YAML file of options.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = "" if mark is None else f", line {mark.line + 1}"
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(
            f"{name}{at} is no YAML: {problem}. Mend that line; `section:`, then `  option: value`."
        ) from error
    if root is None:
        raise UserError(f"{name} is empty. Give a YAML file of options, such as configs/demo.yaml.")
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{name}, line {root.start_mark.line + 1}: this is no mapping from options to values. {FORM}")
    return root


def _walk(node: yaml.MappingNode, prefix: str, known: Collection[str]) -> Iterator[tuple[str, int, int | None]]:
    """Every option under a node: name, line, and the line where the same key stood before."""
    seen: dict[str, int] = {}
    for key, value in node.value:
        option, line = f"{prefix}{key.value}", key.start_mark.line + 1
        twice, seen[option] = seen.get(option), line
        section = isinstance(value, yaml.MappingNode) and option not in known and key.value != "<<"
        if twice is not None or not section or not any(name.startswith(f"{option}.") for name in known):
            yield option, line, twice
        if twice is None:
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(part, yaml.MappingNode):
                    yield from _walk(part, f"{option}.", known)


def _belongs(option: str, known: Collection[str]) -> bool:
    """Whether a name is an option, or a part of the value of one."""
    return option.endswith("<<") or any(option == name or option.startswith(f"{name}.") for name in known)
