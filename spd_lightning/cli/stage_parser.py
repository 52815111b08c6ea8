"""The options of the stage commands: a section per stage, and the links between them."""

from __future__ import annotations

import sys
from typing import Any

import jsonargparse
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from spd_lightning.artifacts.expressions import Place, expressions, with_expressions
from spd_lightning.cli.names import LINKS, STAGE_COMMANDS
from spd_lightning.cli.typed import PROGRAM
from spd_lightning.cli.values import MODE, read_as_typed
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
    """A parser that keeps its commands, which jsonargparse hands out when they are added and never again.

    What it writes holds expressions where values come from the environment, never the values: see
    `artifacts.expressions`. The parser writes the options before it resolves them, which is when the places are noted.
    """

    commands: Any = None
    expressions: dict[Place, str] | None = None  # of a command, without its name; None: they are not looked for

    def add_subcommands(self, *args: Any, **kwargs: Any) -> Any:
        """See jsonargparse."""
        self.commands = super().add_subcommands(*args, **kwargs)
        return self.commands

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """See jsonargparse; for files and people."""
        text = super().dump(*args, **kwargs)
        if self.expressions is None or not ("${" in text or self.expressions):
            return text
        options = yaml.safe_load(text)
        for where, expression in expressions(options).items():
            self.expressions[where[1:] if where[0] in STAGE_COMMANDS else where] = expression
        kept = with_expressions(options, self.expressions)
        return text if kept == options else yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)

    def values(self, options: Any) -> dict[str, Any]:
        """Options as plain values, whatever they came from: never to be written."""
        found: dict[str, Any] = yaml.safe_load(super().dump(options, skip_none=False, skip_link_targets=True))
        return found


class StageLine(LightningCLI):
    """The options of the stage commands.

    The names with an underscore that it, `parser.CommandLine` and `program.SPDCLI` override or ask are those of
    Lightning 2.6.6.

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

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read what was typed; Lightning warns where that stands in no command line."""
        self.config = parser.parse_args(args)
