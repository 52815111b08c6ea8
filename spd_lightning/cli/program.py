"""The command line: one LightningCLI with a section per stage, and the small commands beside it.

fit | extract | generate | test      configured by YAML files and --section.option=value
sample | report | export | compare | artifacts      take only what their --help shows
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from spd_lightning.artifacts.expressions import digests, expressions, marked, with_expressions
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.settings import settings_of
from spd_lightning.artifacts.store import ArtifactStore, fingerprint
from spd_lightning.cli.adding import add_to_run, check_addable, differences_of
from spd_lightning.cli.commands import COMMANDS
from spd_lightning.cli.completion import script
from spd_lightning.cli.lifetime import (
    await_cause,
    end_with_parent,
    interrupted_by_signals,
    let_gloo_finish_at_exit,
    lost_process,
    why_others_are_gone,
)
from spd_lightning.cli.names import STAGE_COMMANDS
from spd_lightning.cli.parser import CommandLine, make_parser
from spd_lightning.cli.run_config import saved_values
from spd_lightning.cli.unused import stages_run
from spd_lightning.errors import UserError, disk_fault
from spd_lightning.model.chat_template import fix_template_date, prints_date
from spd_lightning.model.checkpoint_files import split_revision
from spd_lightning.model.load import load_config, load_tokenizer
from spd_lightning.model.source import hub_id, model_fingerprint, resolve_source
from spd_lightning.pipeline import fit
from spd_lightning.pipeline.chatter import finish_wandb_at_exit, leave_out_chatter
from spd_lightning.pipeline.dry_run import NEW_TOKENS, removed, shorten
from spd_lightning.pipeline.estimate import estimate
from spd_lightning.pipeline.fit import Run
from spd_lightning.pipeline.interruption import Interrupted
from spd_lightning.pipeline.parts import Parts
from spd_lightning.pipeline.trainers import main_trainer
from spd_lightning.processes import is_rank_zero, rank
from spd_lightning.progress import set_quiet
from spd_lightning.tasks.mix import names_of, plainest
from spd_lightning.tasks.sources import fix_revisions
from spd_lightning.tasks.task_file import content_sha256


class SPDCLI(CommandLine):
    """From options to objects; what a command does with them is in `pipeline.fit`. Every mistake is a `UserError`.

    Attributes:
        status: Exit status of the program, once the command has ended.
    """

    status = 0

    def _set_seed(self) -> None:
        if self.subcommand in STAGE_COMMANDS:
            super()._set_seed()

    # -- from options to objects -----------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        """Objects of the stages; the other commands need none."""
        if self.subcommand not in STAGE_COMMANDS:
            return
        options = self.config[self.subcommand]
        options.subspace.task = options.data.task = plainest(options.subspace.task)
        if options.quiet:
            set_quiet(True)
            leave_out_chatter()
        joined = RunFolder(self.typed.run) if self.typed.run else None
        own = saved_values(joined) if joined is not None else {}
        if joined is not None:
            check_addable(self.typed, joined, own)
            add_to_run(self.typed, joined, options, own)
        whole = None
        if options.dry_run:
            if joined is not None and (student := joined.student()) is not None:
                options.evaluation.adapter, joined = str(student), None
            whole = options.clone()
            shorten(options)
        plain = self._parser(self.subcommand).values(options)  # type: ignore[attr-defined]
        # every stage command reads every saved configuration
        for name in ("ckpt_path", "check_against", "estimate", "dry_run", "quiet"):
            plain.pop(name, None)
        commit = self._fix_revisions(options)
        plain["model_revision"] = commit or plain["model_revision"]
        self.run: Run | None = None
        self.parts: Parts | None = None
        self.meant: Run | None = None
        # what cannot be used is refused before gigabytes are hashed and a folder is made
        load_config(options.subspace.model_name_or_path, need_weights=not options.estimate)
        if not options.estimate:
            load_tokenizer(options.subspace.model_name_or_path)
        if options.estimate:
            self.parts = self._make(options)
            return
        content = {
            "model": model_fingerprint(options.subspace.model_name_or_path),
            "task_file": content_sha256(plain["subspace"]["task_file"]),
        }
        added, now = None, plain
        if joined is not None:  # scored as it was made, and its folder stays the same run's
            plain = own
        # The date of templates is no part of it: that of the run's first start is kept.
        settings = {name: value for name, value in settings_of(plain).items() if name != "template_date"}
        digest = fingerprint("run", settings=settings, **content)
        if joined is not None:
            scored = with_expressions(now, self.expressions)
            tasks = now["evaluation"]["tasks"] or names_of(plain["subspace"]["task"])
            added = differences_of(joined, digest, tasks, marked(scored, digests(now, expressions(scored))))
        name = f"{'+'.join(names_of(options.subspace.task))}-{options.data.method}-{digest[:8]}".replace(":", "_")
        folder = RunFolder(options.run_dir or self._folder_of(name, options.template_date))
        if options.dry_run:
            folder = RunFolder(folder.path.parent / f".dry-run-{digest[:8]}" / name)
            options.artifact_dir = None
        saved = with_expressions(plain, self.expressions) if joined is None else joined.configuration()
        plain["template_date"] = saved["template_date"] = self._fix_template_date(options, folder)
        store = ArtifactStore(options.artifact_dir or folder.path.parent / ".artifacts")
        if said := store.open_to_others():
            rank_zero_info(said)
        parts = self._make(options)
        parts.benchmarks.suite.new_tokens = NEW_TOKENS if options.dry_run else None
        trainer = main_trainer(parts.trainer, folder, saved, parts.benchmarks)
        hashes = digests(plain, expressions(saved))
        made = (folder, store, parts, trainer, self._make, added, self.given)
        self.run = Run(options, saved, hashes, content, digest, commit, *made)
        self.meant = None if whole is None else self._as_meant(whole, saved)

    def _as_meant(self, whole: Any, saved: Any) -> Run:
        """A dry run's command as it was typed, to be asked what would end it."""
        assert self.run is not None
        for section in ("subspace", "data", "model"):
            whole[section].model_name_or_path = self.run.options[section].model_name_or_path
        parts = self._make(whole)
        trainer = main_trainer(parts.trainer, self.run.folder, saved, parts.benchmarks)
        return replace(self.run, options=whole, parts=parts, trainer=trainer)

    def _make(self, options: Any) -> Parts:
        if options.subspace.prompt_format is None:
            options.subspace.prompt_format = options.data.prompt_format
        made = self._parser(self.subcommand).instantiate_classes(options)
        return Parts(made.subspace, made.data, made.model, made.evaluation, made.trainer)

    def _fix_revisions(self, options: Any) -> str | None:
        """Take model and data sets of the hub at one commit each; those of a run that is continued where none is typed.

        Returns:
            The model's commit; None for a local one.

        Raises:
            UserError: If a revision is named for a local model.
        """
        run = RunFolder(options.run_dir) if options.run_dir else None
        name, revision = options.subspace.model_name_or_path, options.model_revision
        known = run.noted("revisions", "data") if run else {}
        fix_revisions({**known, **(options.data_revision or {})})
        if (found := hub_id(name)) is None:
            if revision is not None:
                raise UserError(
                    f"model_revision={revision}, but {name} is no model of the hub. Leave --model_revision out, or set "
                    "--subspace.model_name_or_path to a hub id."
                )
            return None
        wanted = revision or (run.configuration().get("model_revision") if run else None)
        if "@" not in found and wanted:
            found = f"{found}@{wanted}"
        commit = Path(resolve_source(found, need_weights=not options.estimate)[0]).name
        typed = split_revision(found)[1]
        if typed != commit:
            rank_zero_info(
                f"{split_revision(found)[0]}: {typed or 'its main branch'} is at commit {commit} and may move; "
                f"--model_revision {commit} keeps it"
            )
        for section in ("subspace", "data", "model"):
            options[section].model_name_or_path = f"{split_revision(found)[0]}@{commit}"
        return commit

    def _folder_of(self, name: str, date: str | None) -> Path:
        """Default folder of a run: another one where a date is typed that is not that of the first."""
        folder = Path("runs") / name
        there = RunFolder(folder).configuration()
        return folder if date is None or there.get("template_date") == date else folder.with_name(f"{name}-{date}")

    def _fix_template_date(self, options: Any, folder: RunFolder) -> str | None:
        """Let chat templates print one date: the one typed, that of the first start, or today's, which is said."""
        fix_template_date(options.template_date)
        known = folder.configuration()
        date = options.template_date or known.get("template_date")
        chats = "chat" in (options[section].prompt_format for section in ("subspace", "data", "evaluation"))
        if date is None and not known and chats and prints_date(load_tokenizer(options.subspace.model_name_or_path)):
            date = datetime.date.today().isoformat()
            rank_zero_info(f"template_date: {date}, today's, which the chat template prints; --template_date sets it")
        fix_template_date(date)
        return date

    # -- the command -----------------------------------------------------------------------------------------------

    def _run_subcommand(self, subcommand: str) -> None:  # a name of Lightning 2.6.6, see `StageLine`
        options = self.config[subcommand]
        if subcommand in COMMANDS:
            COMMANDS[subcommand](**vars(options))
            if subcommand == "completion":
                print(script(make_parser(), options.shell))
            return
        if self.parts is not None:
            print(estimate(options, self.parts, subcommand, stages_run(subcommand, options)))
            return
        assert self.run is not None
        ckpt_path = options.get("ckpt_path")
        for run in (self.meant, self.run):  # before the run folder is taken
            if run is not None:
                fit.check(run, subcommand, stages_run(subcommand, run.options))
        dry = removed(self.run.folder.path.parent) if options.dry_run else contextlib.nullcontext()
        with dry, fit.claimed(self.run):
            if subcommand == "fit":
                self.status = 0 if fit.fit(self.run, ckpt_path, options.check_against) else 1
            elif subcommand == "test":
                fit.test(self.run, ckpt_path)
            elif subcommand == "generate":
                fit.generate(self.run)
            else:
                fit.extract(self.run)


def main(args: list[str] | None = None) -> int:
    """Run a command.

    Args:
        args: What stands behind ``python -m spd_lightning``; None takes it from the command line.

    Returns:
        Exit status: 0; 2 for a mistake of the user or a fault of the disk (one message on standard error); 128 + the
        number of the signal that interrupted it; 1 if another process of the run ended, or ``check_against`` found a
        difference.
    """
    status = 1
    try:
        status = _main(args)
    finally:
        finish_wandb_at_exit(status)
    return status


def _main(args: list[str] | None) -> int:
    set_quiet(False)
    end_with_parent()
    let_gloo_finish_at_exit()
    try:
        with interrupted_by_signals(), why_others_are_gone():
            leave_out_chatter()
            status = SPDCLI(args).status
            sys.stdout.flush()
            return status
    except Interrupted as error:
        return int(str(error.code))
    except BrokenPipeError:  # whoever read the output has gone: `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except UserError as error:
        return _fail(str(error))
    except Exception as error:
        if (fault := disk_fault(error)) is not None:
            return _fail(fault)
        await_cause()
        if (lost := lost_process(error)) is None:
            raise
        print(f"error: {lost}", file=sys.stderr, flush=True)
        return 1


def _fail(message: str) -> int:
    await_cause()
    print(f"{'' if is_rank_zero() else f'[rank {rank()}] '}error: {message}", file=sys.stderr, flush=True)
    return 2
