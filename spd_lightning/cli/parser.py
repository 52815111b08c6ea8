"""What can be typed: the options of the stage commands, and the commands without a configuration."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jsonargparse
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException

from spd_lightning.artifacts.expressions import Place
from spd_lightning.cli.commands import COMMANDS, check_read, command_help, command_parser
from spd_lightning.cli.config_file import ConfigFile, config_path, read_config
from spd_lightning.cli.help import actions_of, section_help, tidy
from spd_lightning.cli.kinds import RULES, check_rules, kind_of
from spd_lightning.cli.messages import explain, place, unresolved
from spd_lightning.cli.names import FOLLOWS, STAGE_COMMANDS, check_names, file_options
from spd_lightning.cli.stage_parser import StageLine
from spd_lightning.cli.typed import Typed, read_typed
from spd_lightning.cli.unused import check_used
from spd_lightning.errors import UserError


class CommandLine(StageLine):
    """The options of every command, parsed; as it stands, it makes no objects and runs nothing.

    Args:
        args: What was typed; None takes it from the command line.
    """

    def _add_subcommands(self, parser: Any, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        for name in COMMANDS:
            self._subcommand_parsers[name] = sub = command_parser(name)  # type: ignore[assignment]
            parser.commands.add_subcommand(name, sub, help=command_help(name))
        for name, made in self._subcommand_parsers.items():
            tidy(made, name, name in STAGE_COMMANDS)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read what was typed, look at the files, then parse; options that were typed beat the files.

        Raises:
            UserError: For every mistake: what is wrong, and in a file also where.
        """
        given = sys.argv[1:] if args is None else list(args)
        typed = read_typed(given, STAGE_COMMANDS, command_names())
        files: list[ConfigFile] = []
        if typed.command in STAGE_COMMANDS:
            known = file_options(options_of(self._subcommand_parsers[typed.command]))
            if typed.help_of:
                print(section_help(self._subcommand_parsers[typed.command], typed.help_of))
                raise SystemExit(0)
            check_names(typed, known)
            files = [read_config(name, known, FOLLOWS, typed.command) for name in typed.configs]
            typed = replace(typed, configs=[str(config_path(name)) for name in typed.configs])
        self.expressions: dict[Place, str] = {}
        made: Any = (parser, *self._subcommand_parsers.values())
        for each in made:
            each.expressions = self.expressions
        try:
            if "--print_config" in typed.rest:  # it ends the program: what has no effect is told before
                without = replace(typed, rest=[a for a in typed.rest if a != "--print_config"])
                self._check_parsed(typed, files, parser.parse_args(without.args()))
            self.config = parser.parse_args(typed.args())
        except ArgumentError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError):
                cause = cause.__cause__ or cause.__context__
            names = option_names(typed.command, self._subcommand_parsers)
            raise UserError(str(cause) if cause else explain(error, command_names(), names, typed, files)) from error
        except OmegaConfBaseException as error:
            raise UserError(unresolved(error, typed, files)) from error
        self._check_parsed(typed, files, self.config)
        self.typed, self.given = typed, given

    def _check_parsed(self, typed: Typed, files: list[ConfigFile], config: Any) -> None:
        if typed.command in STAGE_COMMANDS:
            seed = config[typed.command].seed_everything
            if not 0 <= seed < 2**32:
                at = place("seed_everything", typed, files)
                raise UserError(
                    f"{at}seed_everything={seed} is not possible. Set --seed_everything to 0 up to {2**32 - 1}."
                )
            section = config[typed.command].subspace
            check_rules({name: section[name.partition(".")[2]] for name in RULES}, typed, files)
            defaults: Any = self._subcommand_parsers[typed.command].get_defaults() if files else {}
            # of a run that is scored once more, most options made what is there already
            check_used(typed, [] if typed.run else files, config[typed.command], defaults)
        elif typed.command:
            check_read(typed.command, vars(config[typed.command]).get("action"), typed.rest)

    def _parse_ckpt_path(self) -> None:
        """Keep what the user typed: Lightning (2.6.6) would silently put a checkpoint's options over it."""


def make_parser() -> LightningArgumentParser:
    """The parser of every command; nothing is run."""
    return jsonargparse.capture_parser(CommandLine, [])  # type: ignore[return-value]


def stage_parsers(parser: Any) -> dict[str, Any]:
    """The parser of each stage command, by name."""
    return {name: parser.commands.choices[name] for name in STAGE_COMMANDS}


def command_names() -> list[str]:
    """Every command, those of the stages first."""
    return [*STAGE_COMMANDS, *COMMANDS]


def option_names(command: str | None, parsers: Mapping[str, Any] | None = None) -> list[str]:
    """Every option of a command with its dashes, for the nearest name to a misspelt one.

    Args:
        command: The command; None is fit.
        parsers: Those of all commands; None makes them.
    """
    made: Any = make_parser() if parsers is None else None
    return options_of((made.commands.choices if parsers is None else parsers)[command or "fit"])


def options_of(parser: Any) -> list[str]:
    """Every option of one command's parser, with its dashes."""
    return [o for action in actions_of(parser) for o in action.option_strings if o.startswith("--")]


def kinds_of(parser: Any) -> dict[str, str]:
    """Kind of each option of one command's parser that is a number, a truth value or a choice, by its name."""
    # the type of an option, jsonargparse 4.53.0 tells by no public name
    hints = {a.option_strings[0]: getattr(a, "_typehint", None) for a in actions_of(parser) if a.option_strings}
    kinds = {name.removeprefix("--"): kind_of(hint) for name, hint in hints.items() if hint is not None}
    return {name: kind for name, kind in kinds.items() if kind}
