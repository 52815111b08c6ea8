"""What was typed, read before any parser is made: the command, its files, its options, and what stands alone.

A value follows its option as ``--name value`` or ``--name=value``. Options beat files wherever they stand, so the files
are handed to the parser first.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spd_lightning.cli.words import COMMANDS_MEANT, near
from spd_lightning.errors import UserError

PROGRAM = "python -m spd_lightning"
CONFIG = ("--config", "-c")
# These take no value behind them.
ALONE = ("--help", "-h", "--print_config", "--version", "--estimate", "--dry_run", "--quiet")


@dataclass(frozen=True)
class Typed:
    """A command line in parts.

    Attributes:
        command: The command; None where there is none.
        configs: Files named by ``--config``, in order.
        options: Value of each option by its name without dashes, as it was typed; None without one.
        rest: Everything behind the command but the files, in order.
        help_of: What was asked for behind ``--help``, a section say; None for all, empty where no help was asked for.
        run: Finished run that ``test RUN_DIR`` adds benchmarks to.
    """

    command: str | None
    configs: list[str] = field(default_factory=list)
    options: dict[str, str | None] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    help_of: str | None = ""
    run: str | None = None

    def args(self) -> list[str]:
        """The same for the parser: the files first."""
        start = [self.command] if self.command is not None else []
        return [*start, *(f"--config={name}" for name in self.configs), *self.rest]


def read_typed(args: Sequence[str], stages: Collection[str], commands: Collection[str]) -> Typed:
    """Take a command line apart.

    Args:
        args: What stands behind the program's name.
        stages: Commands that take files and options alone.
        commands: All commands.

    Raises:
        UserError: For what stands before the command, for a command that is none, and, behind a command of ``stages``,
            for what belongs to no option.
    """
    command = args[0] if args else None
    if command is None or command in ("--help", "-h", "--version"):
        return Typed(None, rest=list(args))
    if command.startswith("-"):
        named = next((a for a in args if a in commands), None)
        others = [a for a in args if a != named]
        raise UserError(
            f"{command} stands before the command, and belongs behind it. Type `{PROGRAM} "
            f"{' '.join([named or 'fit', *others])}`."
        )
    if command not in commands:
        raise UserError(_unknown_command(command, commands))
    if command not in stages:
        return Typed(command, rest=list(args[1:]))
    return _options(command, list(args[1:]))


def _options(command: str, args: list[str]) -> Typed:
    found = Typed(command)
    help_of: str | None = ""
    run: str | None = None
    i = 0
    while i < len(args):
        word = args[i]
        name, equals, value = word.partition("=")
        follows = args[i + 1] if i + 1 < len(args) else None
        takes = not equals and name not in ALONE and follows is not None and not follows.startswith("--")
        words = args[i : i + 2] if takes else [word]
        if name in CONFIG:
            if not equals and not takes:
                raise UserError(f"{name} names no file. Type `{PROGRAM} {command} --config FILE`.")
            found.configs.append(value if equals else str(follows))
        elif name in ("--help", "-h"):
            help_of = None if follows is None or follows.startswith("-") else follows
            words = args[i : i + 2] if help_of else [word]
            found.rest.append(name)
        elif word.startswith("--"):
            found.options[name[2:].rstrip("+")] = value if equals else str(follows) if takes else None
            found.rest.extend(words)
        elif command == "test" and run is None and os.path.isfile(Path(word) / "config.yaml"):
            run = word
        else:
            raise UserError(_stray(command, word, args[:i], args[i + 1 :]))
        i += len(words)
    found = replace(found, help_of=help_of)
    return found if run is None else _of_run(found, run)


def _of_run(found: Typed, run: str) -> Typed:
    """``test RUN_DIR [--tasks LIST]``: the run's own configuration, and the folder it is added to."""
    if found.configs or "run_dir" in found.options:
        what = "--run_dir" if "run_dir" in found.options else "--config"
        raise UserError(f"test {run} takes folder and options from that run. Leave {what} out, or the run folder.")
    short = {"tasks": "evaluation.tasks"}
    options = {short.get(name, name): value for name, value in found.options.items()} | {"run_dir": run}
    rest = [f"--evaluation.{word[2:]}" if word.partition("=")[0] == "--tasks" else word for word in found.rest]
    config = str(Path(run) / "config.yaml")
    return replace(found, configs=[config], options=options, rest=[*rest, f"--run_dir={run}"], run=run)


def _stray(command: str, word: str, before: Sequence[str], after: Sequence[str]) -> str:
    """What to say of a word that belongs to no option."""
    if (before and not before[-1].startswith("--")) or (before and "=" in before[-1]):
        option, equals, value = (
            before[-1].partition("=") if before[-1].startswith("--") else (before[-2], "", before[-1])
        )
        if value.startswith(("[", "{")):
            rest = [word, *after[: next((i for i, a in enumerate(after) if a.startswith("--")), len(after))]]
            whole = " ".join([value, *rest])
            return (
                f"{option} is followed by several words, {whole}: the shell took it apart at the spaces. Quote the "
                f"list: {option}{equals or ' '}'{whole}'."
            )
    if word.endswith((".yaml", ".yml", ".json")):
        return f"{word} stands alone. A configuration file is named by --config: `{PROGRAM} {command} --config {word}`."
    if os.path.isfile(Path(word) / "config.yaml"):
        return (
            f"{word} stands alone. The configuration of a run is named by --config: `{PROGRAM} {command} --config "
            f"{Path(word) / 'config.yaml'}`."
        )
    if command == "test" and not before and (os.sep in word or os.path.exists(word)):
        return (
            f"{word} is not a run folder: it has no config.yaml. Give a folder that fit wrote; `{PROGRAM} runs list` "
            "shows all."
        )
    return (
        f"{word!r} belongs to no option. Options are typed as --section.option VALUE; `{PROGRAM} {command} --help` "
        "lists all."
    )


def _unknown_command(word: str, commands: Collection[str]) -> str:
    meant = COMMANDS_MEANT.get(word.lower()) or near(word, commands)
    hint = f" Did you mean {meant}?" if meant else ""
    return f"Unknown command {word!r}.{hint} Known: {', '.join(commands)}."
