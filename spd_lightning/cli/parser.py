"""What can be typed: a section per stage, the links between them, and the commands without a configuration."""

from __future__ import annotations

from typing import Any

import jsonargparse
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from spd_lightning.cli.commands import COMMANDS, command_help, command_parser
from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.subspace.module import SubspaceExtractionModule

jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)

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
STAGE_COMMANDS = ("fit", "extract", "generate", "test")


PARSER: dict[str, Any] = {"parser_mode": "omegaconf+", "allow_abbrev": False, "exit_on_error": False}
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


class CommandLine(LightningCLI):
    """The options of every command, parsed; as it stands, it makes no objects and runs nothing.

    The names with an underscore that it and `program.SPDCLI` override or ask are those of Lightning 2.6.6.

    Args:
        args: What was typed; None takes it from the command line.
    """

    def __init__(self, args: list[str] | None = None) -> None:
        super().__init__(
            SPDFineTuningModule,
            SelfGenerationDataModule,
            save_config_callback=None,
            trainer_class=StageCommands,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=42,
            parser_kwargs=PARSER | {name: PARSER for name in STAGE_COMMANDS},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The stage commands; ckpt_path and check_against are options of a command itself."""
        return {name: set() for name in STAGE_COMMANDS}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that names this program."""
        kwargs.setdefault("description", "Self-Policy Distillation: a model improves on its own projected generations.")
        kwargs.setdefault("prog", "spd_lightning")
        kwargs.setdefault("usage", "python -m spd_lightning COMMAND [--config FILE ...] [--section.option VALUE ...]")
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
            parser._subcommands_action.add_subcommand(name, sub, help=command_help(name))

    def _parse_ckpt_path(self) -> None:
        """Keep what the user typed: Lightning would silently put a checkpoint's options over it."""


def make_parser() -> LightningArgumentParser:
    """The parser of every command; nothing is run."""
    return jsonargparse.capture_parser(CommandLine)  # type: ignore[return-value]


def command_names() -> list[str]:
    """Every command, those of the stages first."""
    return [*STAGE_COMMANDS, *COMMANDS]


def option_names(args: list[str]) -> list[str]:
    """Every option of the command in ``args``, for the nearest name to a misspelt one."""
    # jsonargparse 4.53.0 has no public way from a parser to those of its subcommands, argparse none to its options.
    parser: Any = make_parser()
    subparsers = parser._subcommands_action._name_parser_map
    chosen = subparsers[next((a for a in args if a in subparsers), "fit")]
    return [o for action in chosen._actions for o in action.option_strings if o.startswith("--")]
