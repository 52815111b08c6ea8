"""What can be typed: a section per stage, the links between them, and the commands without a configuration."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jsonargparse
from jsonargparse import ArgumentError
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from omegaconf.errors import OmegaConfBaseException

from spd_lightning.cli.commands import COMMANDS, command_help, command_parser
from spd_lightning.cli.config_file import ConfigFile, config_path, read_config
from spd_lightning.cli.help import section_help, tidy
from spd_lightning.cli.kinds import kind_of
from spd_lightning.cli.messages import explain, place, unresolved
from spd_lightning.cli.names import FOLLOWS, LINKS, STAGE_COMMANDS, check_names, file_options
from spd_lightning.cli.typed import PROGRAM, Typed, read_typed
from spd_lightning.cli.unused import check_used
from spd_lightning.cli.values import MODE, read_as_typed
from spd_lightning.errors import UserError
from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.subspace.module import SubspaceExtractionModule

jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
read_as_typed()


PARSER: dict[str, Any] = {"parser_mode": MODE, "allow_abbrev": False, "exit_on_error": False}
TRAINER_DEFAULTS = {
    "max_epochs": 5,
    "gradient_clip_val": 1.0,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


class StageCommands(Trainer):
    """Lightning's Trainer with a stub per command: the parser reads options and help off it, `SPDCLI` does the work."""

    def fit(self, ckpt_path: str | None = None, check_against: str | None = None) -> None:  # type: ignore[override]
        """Run all stages: extract, generate, fine-tune, evaluate, report.

        Args:
            ckpt_path: Checkpoint to continue fine-tuning from; null continues the run's own, if there is one.
            check_against: Finished run of the same settings, on one process say, with a store of its own. Stage 2 then
                takes its subspace, and at the end its moments, corpus, counts and adapter are compared with this run's:
                a table, and exit status 1 where a bound is broken.
        """

    def extract(self) -> None:
        """Run stage 1 alone: the capability subspace."""

    def generate(self) -> None:
        """Run stages 1 and 2: the subspace and the self-generated corpus."""

    def test(self, ckpt_path: str | None = None) -> None:  # type: ignore[override]
        """Run the benchmarks alone, on a base model, an adapter or a projected base.

        Args:
            ckpt_path: Checkpoint of a fine-tuning run to evaluate.
        """


class CommandParser(LightningArgumentParser):
    """A parser that keeps its commands, which jsonargparse hands out when they are added and never again."""

    commands: Any = None

    def add_subcommands(self, *args: Any, **kwargs: Any) -> Any:
        """See jsonargparse."""
        self.commands = super().add_subcommands(*args, **kwargs)
        return self.commands


class CommandLine(LightningCLI):
    """The options of every command, parsed; as it stands, it makes no objects and runs nothing.

    The names with an underscore that it and `program.SPDCLI` override or ask are those of Lightning 2.6.6.

    Args:
        args: What was typed; None takes it from the command line.
    """

    def __init__(self, args: list[str] | None = None) -> None:
        given = sys.argv[1:] if args is None else list(args)
        # The parser of one stage command alone, where it is known which: each costs a twentieth of a second.
        self.wanted = [name for name in STAGE_COMMANDS if given[:1] == [name]] or list(STAGE_COMMANDS)
        super().__init__(
            SPDFineTuningModule,
            SelfGenerationDataModule,
            save_config_callback=None,
            parser_class=CommandParser,
            trainer_class=StageCommands,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=42,
            parser_kwargs=PARSER | {name: dict(PARSER) for name in self.wanted},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The stage commands; ckpt_path and check_against are options of a command itself."""
        return {name: set() for name in self.wanted}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that names this program."""
        kwargs.setdefault("description", "Self-Policy Distillation: a model improves on its own projected generations.")
        kwargs.setdefault("prog", "spd_lightning")
        kwargs.setdefault("usage", f"{PROGRAM} COMMAND ...")
        return super().init_parser(**kwargs)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options that stand above the sections."""
        parser.add_argument("--seed_everything", type=int, default=42, help="Seed of every stage.")
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of this run; null is runs/<task>-<method>-<first 8 of its fingerprint>.",
        )
        parser.add_argument(
            "--artifact_dir",
            type=str | None,
            default=None,
            help="Store of moments, subspaces, corpora and base scores that runs share; null is "
            "<parent of run_dir>/.artifacts.",
        )
        parser.add_argument(
            "--data_dir",
            type=str | None,
            default=None,
            help="Folder of data sets as JSON Lines; null takes SPD_DATA_DIR, else rows come from the hub.",
        )
        parser.add_argument(
            "--model_revision",
            type=str | None,
            default=None,
            help="Revision of a hub model: commit, tag or branch; null is its main branch. The commit is recorded in "
            "environment.json and in the saved configuration.",
        )
        parser.add_argument(
            "--data_revision",
            type=dict[str, str] | None,
            default=None,
            help="Revisions of data sets on the hub, by their id, e.g. {openai/gsm8k: 0a1b2c3}; those not named are "
            "taken from their main branch. The commits are recorded in environment.json.",
        )
        parser.add_argument(
            "--template_date",
            type=str | None,
            default=None,
            help="Date (YYYY-MM-DD) that chat templates print which print one. Null takes the day of the run's first "
            "start, which is recorded in its configuration and kept when it is continued.",
        )
        parser.add_argument(
            "--estimate",
            action="store_true",
            help="Print memory, time and disk of each stage from the model's config, and end: nothing is loaded.",
        )

        parser.add_argument(
            "--dry_run",
            action="store_true",
            help="Run every stage on two examples (two of every benchmark, at most 16 new tokens), end to end, in a "
            "folder that is removed again.",
        )

        parser.add_argument(
            "--quiet",
            action="store_true",
            help="Show no bars and nothing of the stages: warnings, errors and results alone.",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Sections in the order of the stages, the trainer's last."""
        parser.add_lightning_class_args(SubspaceExtractionModule, "subspace")
        parser.add_lightning_class_args(SelfGenerationDataModule, "data")
        parser.add_lightning_class_args(SPDFineTuningModule, "model")
        parser.add_lightning_class_args(BenchmarkCallback, "evaluation")
        parser.callback_keys.clear()  # the pipeline decides when the benchmarks run
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{k}": v for k, v in self.trainer_defaults.items()})
        for source, targets in LINKS.items():
            for target in targets:
                parser.link_arguments(source, target)

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
            defaults: Any = self._subcommand_parsers[typed.command].get_defaults() if files else {}
            # of a run that is scored once more, most options made what is there already
            check_used(typed, [] if typed.run else files, config[typed.command], defaults)

    def _parse_ckpt_path(self) -> None:
        """Keep what the user typed: Lightning would silently put a checkpoint's options over it."""


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
    # argparse has no public way to its options; the name is as old as the module.
    return [o for action in parser._actions for o in action.option_strings if o.startswith("--")]


def kinds_of(parser: Any) -> dict[str, str]:
    """Kind of each option of one command's parser that is a number, a truth value or a choice, by its name."""
    hints = {a.option_strings[0]: getattr(a, "_typehint", None) for a in parser._actions if a.option_strings}
    kinds = {name.removeprefix("--"): kind_of(hint) for name, hint in hints.items() if hint is not None}
    return {name: kind for name, kind in kinds.items() if kind}
