"""What can be typed: a section per stage, the links between them, and the nearest name to a misspelt one."""

from __future__ import annotations

import difflib
import re
from typing import Any

import jsonargparse
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from spd_lightning.cli.commands import COMMANDS
from spd_lightning.errors import unknown_name
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


class Options(LightningCLI):
    """The options of every command. As it stands, it makes the parser and runs nothing."""

    def __init__(self) -> None:
        self.trainer_class, self.trainer_defaults, self.seed_everything_default = StageCommands, {}, 42
        self.parser_class, self.auto_configure_optimizers = LightningArgumentParser, False
        self._model_class, self._datamodule_class = SPDFineTuningModule, SelfGenerationDataModule
        self.setup_parser(True, {}, {})

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
        for name, command in COMMANDS.items():
            summary = (command.run.__doc__ or "").strip().splitlines()[0]
            sub = jsonargparse.ArgumentParser(
                prog=f"spd_lightning {name}", description=summary, exit_on_error=False, allow_abbrev=False
            )
            command.add_arguments(sub)
            self._subcommand_parsers[name] = sub  # type: ignore[assignment]
            parser._subcommands_action.add_subcommand(name, sub, help=summary)

    def _parse_ckpt_path(self) -> None:
        """Keep what the user typed: Lightning would silently put a checkpoint's options over it."""


def command_names() -> list[str]:
    """Every command, those of the stages first."""
    parser: Any = Options().parser
    return list(parser._subcommands_action._name_parser_map)


def option_names(args: list[str]) -> list[str]:
    """Every option of the command in ``args``, for the nearest name to a misspelt one."""
    parser: Any = Options().parser
    subparsers = parser._subcommands_action._name_parser_map
    chosen = subparsers.get(next((a for a in args if a in subparsers), "fit"))
    return [o for action in chosen._actions for o in action.option_strings if o.startswith("--")]


def explain(error: jsonargparse.ArgumentError, args: list[str]) -> str:
    """One message for a parsing error: what is wrong, and the nearest option."""
    text = str(error).strip()
    found = re.search(r"(?:Option '|[Uu]nrecognized arguments: (?:--)?|Key ')([\w.]+)", text)
    if found:
        wrong = found[1]
        known = [name.lstrip("-") for name in option_names(args)]
        near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
        if wrong not in known:
            hint = f" Did you mean --{near[0]}?" if near else ""
            return f"Unknown option --{wrong}.{hint} `python -m spd_lightning <command> --help` lists all."
    plain = " ".join(line.strip() for line in text.splitlines() if line.strip())
    command = re.match(r"argument subcommand: invalid choice: '([^']*)' \(choose from (.*)\)", plain)
    if command:
        known = re.findall(r"'([^']*)'", command[2])
        near = difflib.get_close_matches(command[1], known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"Unknown command {command[1]!r}.{hint} Known: {', '.join(known)}."
    if plain.startswith('expected "subcommand"'):
        return f"A command is missing. Type python -m spd_lightning {{{','.join(command_names())}}} or --help."
    missing = re.match(r"the following arguments are required: (.*)", plain)
    if missing:
        options = option_names(args)
        names = [name.rsplit(".", 1)[-1].strip() for name in missing[1].split(",")]
        shown = [f"--{name}" if f"--{name}" in options else name.upper() for name in names]
        return f"{' and '.join(shown)} must be given. `python -m spd_lightning <command> --help` says what."
    return _explain_value(plain) or plain


KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}


def _explain_value(text: str) -> str | None:
    """What is wrong with the value of an option, from the parser's own words; None where they are not understood."""
    key = re.match(r'Parser key "([\w.]+)":', text)
    if key is None:
        return None
    name = key[1]
    choice = re.search(r"Expected a typing\.Literal\[([^\]]*)\]\. Got value: (\S+)", text)
    if choice:
        return str(unknown_name(name, choice[2], re.findall(r"'([^']*)'", choice[1]), f"--{name}"))
    found = re.search(r"(?:Got|Given) value: (.*)$", text)
    kinds = re.findall(r"Expected a <class '(\w+)'>", text)
    if found is None or not kinds:
        return None
    if "list" in kinds and "<class 'str'>" in text:
        return f"{name}={found[1]!r} is not a list. Set --{name} '[{found[1]}]'."
    allowed = " or ".join(dict.fromkeys(KINDS[kind] for kind in kinds if kind in KINDS))
    return f"{name}={found[1]!r} is not possible. Set --{name} to {allowed}." if allowed else None
