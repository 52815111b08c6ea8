"""The command line: one LightningCLI with a section per stage, and the small commands beside it.

fit | extract | generate | test      configured by YAML files and --section.option=value
sample | report | export | compare | artifacts      take only what their --help shows
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonargparse
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info
from transformers.utils import logging as transformers_logging

from spd_lightning.artifacts.checksums import file_sha256, weights_sha256
from spd_lightning.artifacts.files import file_lock
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.settings import settings_of
from spd_lightning.artifacts.store import ArtifactStore, fingerprint
from spd_lightning.cli.commands import COMMANDS
from spd_lightning.cli.parser import PARSER, STAGES, TRAINER_DEFAULTS, Options, StageCommands, explain
from spd_lightning.cost.plan import Plan
from spd_lightning.errors import UserError
from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.strategy import ShardedStrategy
from spd_lightning.generation.datamodule import SelfGenerationDataModule
from spd_lightning.model.adapter_beside import read_record
from spd_lightning.model.chat_template import fix_template_date, prints_date
from spd_lightning.model.checkpoint_files import split_revision
from spd_lightning.model.load import load_tokenizer, resolve_dtype
from spd_lightning.model.source import hub_id, model_fingerprint, resolve_source
from spd_lightning.pipeline.stages import Pipeline, student_folder
from spd_lightning.pipeline.tracking import default_loggers, describe_environment
from spd_lightning.pipeline.trainers import StepCheckpoint, make_trainer
from spd_lightning.processes import (
    await_cause,
    barrier,
    end_with_parent,
    ended_by_sigterm,
    is_rank_zero,
    lost_process,
    rank,
)
from spd_lightning.tasks.sources import commits_taken, fix_revisions

if TYPE_CHECKING:
    from spd_lightning.pipeline.agreement import Check, Reference


class SPDCLI(Options):
    """From options to objects, and the order of the stages. Every mistake of the user is a `UserError`.

    Attributes:
        status: Exit status of the program, once the command has ended.
    """

    status = 0

    def __init__(self, args: list[str] | None = None) -> None:
        LightningCLI.__init__(
            self,
            SPDFineTuningModule,
            SelfGenerationDataModule,
            save_config_callback=None,
            trainer_class=StageCommands,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=42,
            parser_kwargs=PARSER | {name: PARSER for name in STAGES},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    def _set_seed(self) -> None:
        if self.subcommand in STAGES:
            super()._set_seed()

    # -- from options to objects -----------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        """Objects of the stages; the other commands need none."""
        if self.subcommand not in STAGES:
            return
        options = self.config[self.subcommand]
        plain = yaml.safe_load(self._parser(self.subcommand).dump(options, skip_none=False, skip_link_targets=True))
        for name in ("ckpt_path", "check_against", "estimate"):  # every stage command reads every saved configuration
            plain.pop(name, None)
        self.plain_config = plain
        self._fix_revisions(options)
        if options.estimate:
            made = self._parser(self.subcommand).instantiate_classes(options)
            self.trainer_options = made.trainer
            self.extraction, self.datamodule, self.model, self.benchmarks = (
                made.subspace, made.data, made.model, made.evaluation
            )  # fmt: skip
            return
        task_file = options.subspace.task_file
        self.content = {
            "model": model_fingerprint(options.subspace.model_name_or_path),
            "task_file": file_sha256(Path(task_file)) if task_file and Path(task_file).is_file() else None,
        }
        # The date of templates is no part of it: that of the run's first start is kept.
        settings = {name: value for name, value in settings_of(plain).items() if name != "template_date"}
        self.fingerprint = fingerprint("run", settings=settings, **self.content)
        name = f"{options.subspace.task}-{options.data.method}-{self.fingerprint[:8]}".replace(":", "_")
        self.run_folder = RunFolder(options.run_dir or self._folder_of(name, options.template_date))
        self._fix_template_date(options)
        self.store = ArtifactStore(options.artifact_dir or self.run_folder.path.parent / ".artifacts")
        self.config_init = self._parser(self.subcommand).instantiate_classes(options)
        self.config_init = jsonargparse.Namespace({self.subcommand: self.config_init})
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self.extraction = self._get(self.config_init, "subspace")
        self.benchmarks = self._get(self.config_init, "evaluation")
        self.trainer = self.instantiate_trainer()

    def _fix_revisions(self, options: Any) -> None:
        """Take model and data sets of the hub at one commit each; those of a run that is continued where none is typed.

        Raises:
            UserError: If a revision is named for a local model.
        """
        run = RunFolder(options.run_dir) if options.run_dir else None
        name, revision = options.subspace.model_name_or_path, options.model_revision
        self.model_commit: str | None = None
        known = run.environment().get("revisions", {}) if run else {}
        fix_revisions({**known.get("data", {}), **(options.data_revision or {})})
        if (found := hub_id(name)) is None:
            if revision is not None:
                raise UserError(
                    f"model_revision={revision}, but {name} is no model of the hub. Leave --model_revision out, or set "
                    "--subspace.model_name_or_path to a hub id."
                )
            return
        wanted = revision or (run.configuration().get("model_revision") if run else None)
        if "@" not in found and wanted:
            found = f"{found}@{wanted}"
        commit = Path(resolve_source(found, need_weights=not options.estimate)[0]).name
        typed = split_revision(found)[1]
        self.model_commit = self.plain_config["model_revision"] = commit
        if typed != commit:
            rank_zero_info(
                f"{split_revision(found)[0]}: {typed or 'its main branch'} is at commit {commit} and may move; "
                f"--model_revision {commit} keeps it"
            )
        for section in ("subspace", "data", "model"):
            options[section].model_name_or_path = f"{split_revision(found)[0]}@{commit}"

    def _folder_of(self, name: str, date: str | None) -> Path:
        """Default folder of a run: another one where a date is typed that is not that of the first."""
        folder = Path("runs") / name
        there = RunFolder(folder).configuration()
        return folder if date is None or there.get("template_date") == date else folder.with_name(f"{name}-{date}")

    def _fix_template_date(self, options: Any) -> None:
        """Let chat templates print one date: the one typed, that of the first start, or today's, which is said."""
        fix_template_date(options.template_date)
        known = self.run_folder.configuration()
        date = options.template_date or known.get("template_date")
        chats = "chat" in (options.data.prompt_format, options.evaluation.prompt_format)
        if date is None and not known and chats and prints_date(load_tokenizer(options.subspace.model_name_or_path)):
            date = datetime.date.today().isoformat()
            rank_zero_info(f"template_date: {date}, today's, which the chat template prints; --template_date sets it")
        self.plain_config["template_date"] = date
        fix_template_date(date)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer of stage 3; files of the run go into its folder."""
        settings = {**self._get(self.config_init, "trainer"), **kwargs}
        if settings["logger"] in (None, True):
            settings["logger"] = default_loggers(self.run_folder.path, self.plain_config)
        # The same file at the end of every epoch and, in long ones, every ten minutes.
        place: dict[str, Any] = {
            "dirpath": self.run_folder.path / "checkpoints",
            "filename": "last",
            "enable_version_counter": False,
        }
        savers = [ModelCheckpoint(**place), StepCheckpoint(**place, train_time_interval=datetime.timedelta(minutes=10))]
        callbacks = copy.deepcopy(settings["callbacks"]) or []  # they hold state, and every round starts anew
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        bar = [TQDMProgressBar(leave=True)] if settings["enable_progress_bar"] in (None, True) else []
        settings["callbacks"] = [*callbacks, *([] if settings["enable_checkpointing"] is False else savers), *bar]
        if self.benchmarks.every_n_steps or self.benchmarks.every_n_epochs:
            self.benchmarks.when = []  # stage 4 scores before and after
            settings["callbacks"].append(self.benchmarks)
        settings["default_root_dir"] = settings["default_root_dir"] or str(self.run_folder.path / "logs")
        if settings["strategy"] == "fsdp":
            settings["strategy"] = ShardedStrategy()
        elif isinstance(settings["strategy"], FSDPStrategy) or str(settings["strategy"]).startswith("fsdp"):
            raise UserError(
                f"trainer.strategy={settings['strategy']!r} cannot hold a frozen base and its adapter in one unit. "
                "Set --trainer.strategy fsdp (FSDP2, each weight by itself)."
            )
        return make_trainer(**settings)

    def stage_trainer(self, benchmarks: BenchmarkCallback | None = None, logger: Any = False) -> Trainer:
        """A trainer for another stage: the same devices and strategy, float weights as loaded, no checkpoints.

        Args:
            benchmarks: For stage 4, which shows bars of its own.
            logger: Of the stage.
        """
        settings = self._get(self.config_init, "trainer")
        shared = ("accelerator", "strategy", "devices", "num_nodes", "plugins")
        strategy = settings["strategy"]
        if isinstance(strategy, str) and strategy.startswith(("fsdp", "deepspeed")):
            strategy = "ddp"  # stages without an optimizer keep whole models
        show = benchmarks is None and settings["enable_progress_bar"] in (None, True)
        return make_trainer(
            **{k: settings[k] for k in shared} | {"strategy": strategy},
            callbacks=[benchmarks] if benchmarks is not None else [TQDMProgressBar(leave=True)] if show else [],
            enable_progress_bar=show,
            logger=logger,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            inference_mode=False,
            default_root_dir=str(self.run_folder.path / "logs"),
        )

    # -- stage order -----------------------------------------------------------------------------------------------

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand in COMMANDS:
            COMMANDS[subcommand].run(self.config[subcommand])
            return
        if self.config[subcommand].estimate:
            self._attach_benchmarks(self.datamodule.method)
            parts = (self.extraction, self.datamodule, self.model, self.benchmarks)
            print(Plan(*parts, self.trainer_options).table(subcommand))
            return
        ckpt_path = self.config[subcommand].get("ckpt_path")
        if ckpt_path is not None and not Path(ckpt_path).is_file():
            raise UserError(f"ckpt_path={ckpt_path}: there is no such file. Give a checkpoint that fit wrote.")
        if subcommand in ("fit", "generate"):  # before the run folder is taken
            self.datamodule.check_options(trains=subcommand == "fit")
        with self._claimed_run():
            try:
                getattr(self, subcommand)(ckpt_path)
            except UserError:
                if is_rank_zero():
                    self.run_folder.release()
                raise
            finally:
                if is_rank_zero():
                    self.run_folder.note_revisions(commits_taken())
            if is_rank_zero():
                self.run_folder.write_manifest()

    def _claimed_run(self) -> Any:
        """Lock and claim the run folder (rank 0; the others only work)."""
        stack = contextlib.ExitStack()
        if is_rank_zero():
            stack.enter_context(file_lock(self.run_folder.path / ".lock", f"run_dir={self.run_folder.path}"))
            dump = yaml.safe_dump(self.plain_config, sort_keys=False)
            environment = {**describe_environment(self.fingerprint), "content": self.content}
            if self.model_commit is not None:
                environment["revisions"] = {"model": self.model_commit}
            try:
                self.run_folder.claim(self.plain_config, dump, environment)
            except BaseException:
                stack.close()
                raise
            print(f"Run folder: {self.run_folder.path}", file=sys.stderr)
        return stack

    def _attach_benchmarks(self, method: str | None, **place: Any) -> None:
        options = self.config[self.subcommand]
        place = {"model_name_or_path": options.subspace.model_name_or_path, **place}
        self.benchmarks.attach(
            data_dir=options.data_dir,
            task_file=options.subspace.task_file,
            trained_task=options.subspace.task if method else None,
            method=method or "base",
            seed=options.seed_everything,
            dtype=options.data.dtype,
            **place,
        )

    def _pipeline(self, method: str | None) -> Pipeline:
        self._attach_benchmarks(method, run_dir=self.run_folder.path, store=self.store)
        parts = (self.extraction, self.datamodule, self.model, self.benchmarks)
        plan = Plan(*parts, self._get(self.config_init, "trainer"))
        return Pipeline(*parts, self.trainer, self.stage_trainer, self.run_folder, self.store, plan, self.plain_config)

    def fit(self, ckpt_path: str | None = None) -> None:
        """All stages, as often as ``model.rounds`` says; a later round starts from the student before it."""
        method, rounds = self.datamodule.method, int(self.model.hparams["rounds"])
        trains = method != "base"
        pipeline = self._pipeline(method if trains else None)
        self.benchmarks.benchmarks()  # a wrong name is told now, not after hours
        if rounds > 1 and method == "spd" and self.datamodule.subspace_path is not None:
            raise UserError(
                f"data.subspace={self.datamodule.subspace_path} is one of the first round's model alone, and "
                f"model.rounds={rounds}. Leave --data.subspace out, or set --model.rounds 1."
            )
        dtype = resolve_dtype(self.datamodule.dtype, self.trainer.strategy.root_device)
        if rounds > 1 and self.datamodule.engine == "vllm" and dtype != torch.float32:
            raise UserError(
                f"model.rounds={rounds} with data.engine=vllm in {str(dtype).removeprefix('torch.')} would round away "
                "what earlier rounds learned. Set --data.engine transformers, or --data.dtype float32."
            )
        reference, checks = self._reference(), []
        if self.datamodule.subspace_path is not None:
            pipeline.use_subspace(Path(self.datamodule.subspace_path))
        elif method == "spd" or "projected" in self.benchmarks.methods:
            own = pipeline.extract()
            if reference is not None:
                checks = reference.check_extraction(self.extraction, own, self.trainer.strategy.root_device)
                self.datamodule.subspace_path = str(reference.subspace)
                pipeline.use_subspace(reference.subspace)
        student = None
        if trains:
            pipeline.generate()
            student = pipeline.fine_tune(ckpt_path)
            for number in range(2, rounds + 1):
                student = self._next_round(number, student, pipeline)
        pipeline.evaluate(str(student) if student is not None else None)
        pipeline.report(method, self.config[self.subcommand].subspace.task if trains else None, self.fingerprint)
        if reference is not None and is_rank_zero():
            self._verdict(reference, checks + reference.check_run(self.run_folder.path))

    def _reference(self) -> Reference | None:
        """The run to compare with, if one was named."""
        from spd_lightning.pipeline.agreement import Reference

        path = self.config[self.subcommand].check_against
        return path and Reference(Path(path), self.run_folder.path, self.store, self.plain_config)

    def _verdict(self, reference: Reference, checks: list[Check]) -> None:
        """Print what was compared; a broken bound ends the program with status 1."""
        from spd_lightning.pipeline.agreement import agreement_table
        from spd_lightning.report.render import text_table

        print(f"\nAgainst {reference.path}:\n{text_table(agreement_table(checks))}", flush=True)
        self.status = 0 if all(check.holds for check in checks) else 1

    def _next_round(self, number: int, student: Path, first: Pipeline) -> Path:
        """Extract, generate and train once more from ``student``; returns the new one as an ordinary checkpoint.

        The student before is written to ``round-<n>/base``, the new one to ``round-<n>/student``: float32 checkpoints
        that hold base and adapters beside the merged weights.
        """
        from spd_lightning.finetuning.student import write_merged

        folder = RunFolder(first.run.path / f"round-{number}")
        base, merged = folder.path / "base", folder.path / "student"
        options = self.config[self.subcommand].clone()
        name = options.subspace.model_name_or_path
        if is_rank_zero() and read_record(base) is None:
            write_merged(name, student, base)
        barrier()
        for section in ("subspace", "data", "model"):
            options[section].model_name_or_path = str(base)
        made = self._parser(self.subcommand).instantiate_classes(options)
        whole, scored = self.run_folder, self.benchmarks
        self.run_folder, self.benchmarks = folder, made.evaluation  # scored midway: this round's student on its base
        self._attach_benchmarks(made.data.method, model_name_or_path=str(base), run_dir=folder.path, store=self.store)
        trainer = self.instantiate_trainer(logger=[CSVLogger(folder.path / "logs", name="", version="")])
        parts = (made.subspace, made.data, made.model, made.evaluation)
        plan = Plan(*parts, self._get(self.config_init, "trainer"))
        pipeline = Pipeline(*parts, trainer, self.stage_trainer, folder, self.store, plan, self.plain_config)
        if made.data.method == "spd":
            pipeline.extract()
        pipeline.generate()
        adapter = pipeline.fine_tune()
        if is_rank_zero() and read_record(merged) is None:
            write_merged(str(base), adapter, merged)
        barrier()
        self.run_folder, self.benchmarks = whole, scored
        if first.student_step is not None and pipeline.student_step is not None:
            first.student_step += pipeline.student_step  # scores are logged after the steps of all rounds
        first.stages += [{**row, "stage": f"{row['stage']} (round {number})"} for row in pipeline.stages]
        return merged

    def extract(self, ckpt_path: str | None = None) -> None:
        """Stage 1."""
        path = self._pipeline(None).extract()
        if is_rank_zero():
            print(f"Subspace: {self.run_folder.path / 'subspace' / path.name}")

    def generate(self, ckpt_path: str | None = None) -> None:
        """Stages 1 and 2."""
        if self.datamodule.method == "base":
            raise UserError("data.method=base generates nothing. Set --data.method to psr, ssd, spd or filtered.")
        pipeline = self._pipeline(None)
        if self.datamodule.method == "spd" and self.datamodule.subspace_path is None:
            pipeline.extract()
        path = pipeline.generate()
        if is_rank_zero():
            print(f"Corpus: {self.run_folder.path / 'corpus' / path.name}")

    def test(self, ckpt_path: str | None = None) -> None:
        """Stage 4 alone: base, and a student or a projected base where one is named or already in the run folder."""
        adapter = self.benchmarks.adapter or student_folder(self.run_folder.path)
        if ckpt_path is not None:
            adapter = str(self._student_of_checkpoint(ckpt_path))
        task, method = self._origin(ckpt_path or adapter) if adapter else (None, "base")
        pipeline = self._pipeline(method if adapter else None)
        self.benchmarks.trained_task = task  # of the student, whatever subspace.task of this command is
        subspace = self.run_folder.path / "subspace" / "subspace.safetensors"
        if subspace.is_file():
            self.benchmarks.run_subspace = subspace
        pipeline.evaluate(adapter)
        pipeline.report(method, task, self.fingerprint)

    def _origin(self, student: str) -> tuple[str, str]:
        """Task and method that a student was trained with: those of its run folder, else what this command says."""
        options = self.config[self.subcommand]
        file = Path(student).resolve().parent / "config.yaml"
        file = file if file.is_file() else file.parent.parent / "config.yaml"  # checkpoints/last.ckpt, round-2/student
        try:
            saved = yaml.safe_load(file.read_text())
            task, method = str(saved["subspace"]["task"]), str(saved["data"]["method"])
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            return options.subspace.task, self.datamodule.method
        known = task != "custom" or options.subspace.task_file is not None
        return (task if known else options.subspace.task), method

    def _student_of_checkpoint(self, ckpt_path: str) -> Path:
        """Write the student of a training checkpoint as the run's own (rank 0 does; the others wait).

        Raises:
            UserError: If the run folder holds another student, whose scores would go.
        """
        from spd_lightning.finetuning.student import save_student

        folder = self.run_folder.path / "adapter"
        if not is_rank_zero():
            return folder
        self.model.configure_model()
        checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
        self.model.on_load_checkpoint(checkpoint)
        self.model.load_state_dict(checkpoint["state_dict"], strict=False)
        new = folder.with_name(".adapter-new")
        shutil.rmtree(new, ignore_errors=True)
        save_student(self.model.model, new, self.datamodule.model_name_or_path)
        if not folder.is_dir():
            new.rename(folder)
            return folder
        same = weights_sha256(new) == weights_sha256(folder)
        shutil.rmtree(new)
        if not same:
            raise UserError(
                f"ckpt_path={ckpt_path} holds another student than {folder}, whose scores would be overwritten. Set "
                "--run_dir to a new folder."
            )
        return folder


def main(args: list[str] | None = None) -> int:
    """Run a command.

    Args:
        args: What stands behind ``python -m spd_lightning``; None takes it from the command line.

    Returns:
        Exit status: 0; 2 for a mistake of the user (one message on standard error); 1 if another process of the run
        ended, or ``check_against`` found a difference.
    """
    _quiet()
    end_with_parent()
    given = sys.argv[1:] if args is None else args
    try:
        with ended_by_sigterm():
            return SPDCLI(args).status
    except UserError as error:
        return _fail(str(error))
    except jsonargparse.ArgumentError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__
        return _fail(str(cause) if cause else explain(error, given))
    except Exception as error:
        await_cause()
        if (lost := lost_process(error)) is None:
            raise
        print(f"error: {lost}", file=sys.stderr, flush=True)
        return 1


# What libraries say of our own, deliberate choices; a user can do nothing about any of it.
NOISE = (
    ".*args parameter is intended to run from within Python",
    ".*is_gradient_checkpointing",
    ".*LeafSpec",
    ".*across ranks is zero",
    ".*Experiment logs directory .* exists and is not empty",
    ".*does not have many workers",
)


def _quiet() -> None:
    """Show what a run says, not what libraries advertise; other warnings stay."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    transformers_logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(
            lambda r: not any(w in r.getMessage() for w in ("litlogger", "TPU available"))
        )


def _fail(message: str) -> int:
    await_cause()
    print(f"{'' if is_rank_zero() else f'[rank {rank()}] '}error: {message}", file=sys.stderr, flush=True)
    return 2
