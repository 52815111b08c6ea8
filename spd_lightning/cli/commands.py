"""The commands without a configuration: sample, report, export, compare, artifacts.

Each is a class with two functions: ``add_arguments`` says what may be typed, ``run`` does it.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any, Protocol

from jsonargparse import ArgumentParser, Namespace

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.settings import settings_of
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError


class Command(Protocol):
    """What may be typed, and what it does."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the command's arguments."""

    def run(self, args: Namespace) -> None:
        """Run the command."""


def run_config(run: RunFolder) -> dict[str, Any]:
    """The configuration of a run folder; a hub model's name has its commit behind it (``id@commit``).

    Raises:
        UserError: If the folder is no run.
    """
    from spd_lightning.model.chat_template import fix_template_date
    from spd_lightning.model.checkpoint_files import split_revision
    from spd_lightning.model.source import hub_id

    config = run.configuration()
    if not config:
        raise UserError(f"{run.path} is not a run folder: it has no config.yaml. Give a folder that fit wrote.")
    fix_template_date(config.get("template_date"))
    name, revision = config["subspace"]["model_name_or_path"], config.get("model_revision")
    if revision and (found := hub_id(name)) is not None:
        config["subspace"]["model_name_or_path"] = f"{split_revision(found)[0]}@{revision}"
    return config


SAMPLE_PROMPT = (
    "Text to complete. It is put as the run's training prompts were (data.prompt_format): plain text as it stands, or "
    "the user's turn of the chat template."
)


class Sample:
    """``sample``."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the command's arguments."""
        parser.add_argument("run_dir", type=str, help="Run folder.")
        parser.add_argument("--prompt", type=str, required=True, help=SAMPLE_PROMPT)
        parser.add_argument("--max_new_tokens", type=int, default=128, help="Limit of each completion, tokens.")
        parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy.")
        parser.add_argument("--seed", type=int, default=42, help="Seed of the sampling noise.")

    def run(self, args: Namespace) -> None:
        """Complete a prompt with the base, the projected base and the student of a run, side by side."""
        from spd_lightning.finetuning.student import student_copy
        from spd_lightning.generation.engine import generate_batch
        from spd_lightning.generation.requests import build_requests
        from spd_lightning.generation.sampling import SamplingParams
        from spd_lightning.model.load import load_model, load_tokenizer, resolve_dtype
        from spd_lightning.subspace.projection import fold_projection
        from spd_lightning.subspace.subspace import CapabilitySubspace

        run = RunFolder(args.run_dir)
        config = run_config(run)
        name = config["subspace"]["model_name_or_path"]
        dtype = resolve_dtype(config["data"]["dtype"])
        tokenizer = load_tokenizer(name)
        form = config["data"]["prompt_format"]
        requests, _ = build_requests(tokenizer, [("prompt", args.prompt)], prompt_format=form)
        shown = "plain text" if form == "plain" else "in the chat template"
        print(f"The prompt is {shown}, data.prompt_format: {form}\n")
        params = SamplingParams(max_new_tokens=args.max_new_tokens, temperature=args.temperature, seed=args.seed)

        def show(title: str, model: Any) -> None:
            completion = generate_batch(model, tokenizer, requests, params)[0]
            print(
                f"--- {title} ({completion.num_tokens} tokens, {completion.finish_reason})\n{completion.completion}\n"
            )

        model = load_model(name, dtype)
        show("base", model)
        if run.subspace.is_file():
            with fold_projection(model, CapabilitySubspace.load(run.subspace)):
                show("projected", model)
        if (student := run.student()) is not None:
            show("student", student_copy(name, str(student), dtype))


class Report:
    """``report``."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the command's arguments."""
        parser.add_argument("run_dir", type=str, nargs="+", help="Run folders.")
        parser.add_argument("--out", type=str | None, default=None, help="Folder to write; null is the only run's own.")

    def run(self, args: Namespace) -> None:
        """Write results.json, report.md, report.html and plots for one run or several."""
        from spd_lightning.report.page import write_report

        runs = [Path(p) for p in args.run_dir]
        if args.out is None and len(runs) > 1:
            raise UserError(f"{len(runs)} run folders were given and no --out. Set --out to a folder for their report.")
        print(f"Report: {write_report(runs, Path(args.out) if args.out else runs[0])}")


class Export:
    """``export``."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the command's arguments."""
        from typing import Literal

        parser.add_argument("run_dir", type=str, help="Run folder.")
        parser.add_argument(
            "--form",
            type=Literal["adapter", "merged", "projected"],
            required=True,
            help="A PEFT adapter, the student as an ordinary checkpoint, or the base with the projection folded in.",
        )
        parser.add_argument("--out", type=str, required=True, help="New or empty folder.")

    def run(self, args: Namespace) -> None:
        """Write a run's student or projected base in a form that other tools load, with a model card."""
        from spd_lightning.finetuning import export
        from spd_lightning.report.render import markdown_table
        from spd_lightning.report.tables import model_card_table

        run = RunFolder(args.run_dir)
        config = run_config(run)
        scores = json.loads(run.results.read_text(encoding="utf-8"))["scores"] if run.results.is_file() else []
        facts = export.RunFacts(
            config["subspace"]["model_name_or_path"],
            config["data"]["method"],
            config["subspace"]["task"],
            {k: v for k, v in settings_of(config).items() if k.startswith(("subspace.", "data.", "model."))},
            markdown_table(model_card_table(scores), plain=True) if scores else "",
        )
        last = [folder for folder in run.rounds() if folder.adapter.exists()]
        if last and args.form != "projected":  # the student of several rounds: its adapter belongs to that round's base
            run = last[-1]
            facts = dataclasses.replace(facts, model_name_or_path=str(run.round_base))
        source = run.subspace if args.form == "projected" else run.adapter
        if not source.exists():
            raise UserError(
                f"{run.path} has no {source.relative_to(run.path)}, which --form {args.form} needs. Run `fit` to its "
                "end first."
            )
        write: Any = {
            "adapter": export.export_adapter,
            "merged": export.export_merged,
            "projected": export.export_projected,
        }[args.form]
        print(f"Exported: {write(source, args.out, facts)}")


class Compare:
    """``compare``."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the command's arguments."""
        parser.add_argument(
            "subspace", type=str, nargs="+", help="Two or more subspace.safetensors files or run folders."
        )
        parser.add_argument("--plot", type=str | None, default=None, help="PNG file for a heat map.")

    def run(self, args: Namespace) -> None:
        """Compare subspaces site by site: principal angles, overlap, distance, and what chance would give."""
        from spd_lightning.report.render import markdown_table
        from spd_lightning.report.tables import overlap_table
        from spd_lightning.subspace.compare import compare_subspaces, short_names
        from spd_lightning.subspace.subspace import CapabilitySubspace

        if len(args.subspace) < 2:
            raise UserError(f"compare needs at least two subspaces, found {len(args.subspace)}. Name another file.")
        found = {}
        for name, path in zip(short_names(args.subspace), map(Path, args.subspace)):
            found[name] = CapabilitySubspace.load(RunFolder(path).subspace if path.is_dir() else path)
        rows = compare_subspaces(found)
        print(markdown_table(overlap_table(rows), plain=True))
        if args.plot:
            from spd_lightning.report.plots import plot_sites, write_plot

            print(f"Plot: {write_plot(plot_sites(rows), args.plot)}")


class Artifacts:
    """``artifacts``."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the command's arguments."""
        from typing import Literal

        parser.add_argument("action", type=Literal["list", "prune"], help="Show all artifacts, or delete unused ones.")
        parser.add_argument("--artifact_dir", type=str, default="runs/.artifacts", help="The store.")
        parser.add_argument(
            "--older_than_days", type=float, default=30.0, help="prune: days since an artifact was made."
        )

    def run(self, args: Namespace) -> None:
        """List the artifacts that runs share, or prune unfinished and old ones."""
        store = ArtifactStore(args.artifact_dir)
        if not store.root.is_dir():
            raise UserError(f"artifact_dir={args.artifact_dir} does not exist. Set --artifact_dir to a store's folder.")
        now = datetime.datetime.now().timestamp()
        freed = 0
        for row in store.list():
            days = (now - row["used"]) / 86400
            state = "complete" if row["complete"] else "unfinished"
            doomed = args.action == "prune" and days > args.older_than_days
            print(
                f"{row['stage']:<10} {row['fingerprint']}  {state:<10} {row['bytes'] / 2**20:9.1f} MiB  "
                f"{days:6.1f} days{'  removed' if doomed else ''}"
            )
            if doomed:
                store.remove(row["path"])
                freed += row["bytes"]
        if args.action == "prune":
            print(f"{freed / 2**20:.1f} MiB freed; run folders keep their own copies.")


COMMANDS: dict[str, Command] = {
    "sample": Sample(),
    "report": Report(),
    "export": Export(),
    "compare": Compare(),
    "artifacts": Artifacts(),
}
