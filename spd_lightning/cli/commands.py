"""The commands without a configuration, of the run folders, the store and the package.

Each is a function: its parameters are what may be typed (those by keyword alone as options), its docstring is the help.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from spd_lightning import shipped
from spd_lightning.artifacts.reading import reading
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.runs import showing
from spd_lightning.artifacts.settings import settings_of
from spd_lightning.cli.checks import told_changes, verify
from spd_lightning.cli.completion import completion
from spd_lightning.cli.doctor import doctor
from spd_lightning.cli.run_config import run_config
from spd_lightning.cli.runs import runs
from spd_lightning.cli.sample import sample
from spd_lightning.cli.store import artifacts
from spd_lightning.cli.typed import PROGRAM
from spd_lightning.errors import UserError


def report(run_dir: list[str], *, out: str | None = None, format: str = "md,html,json", plots: str = "png") -> None:
    """Write results.json, report.md, report.html and plots for one run or several.

    Args:
        run_dir: Run folders.
        out: Folder to write; null is the only run's own.
        format: Any of md, html, json (results.json), csv and latex (both under tables/), with commas between.
        plots: Any of png, svg and pdf, with commas between: files under plots/ for papers, fonts embedded. The page has
            its figures inside. Empty writes none.
    """
    from spd_lightning.report.page import write_report

    runs = [Path(p) for p in run_dir]
    if out is None and len(runs) > 1:
        raise UserError(f"{len(runs)} run folders were given and no --out. Set --out to a folder for their report.")
    for run in runs:
        told_changes(RunFolder(run))
    kinds, files = ([name.strip() for name in text.split(",") if name.strip()] for text in (format, plots))
    with showing([RunFolder(run) for run in runs]):
        print(f"Report: {write_report(runs, Path(out) if out else runs[0], kinds, files)}")


def export(run_dir: str, *, form: Literal["adapter", "merged", "projected"], out: str) -> None:
    """Write a run's student or projected base in a form that other tools load, with a model card.

    Args:
        run_dir: Run folder.
        form: A PEFT adapter, the student as an ordinary checkpoint, or the base with the projection folded in.
        out: New or empty folder.
    """
    from spd_lightning.finetuning.export import RunFacts, export_adapter, export_merged, export_projected
    from spd_lightning.pipeline.resume import changed_student
    from spd_lightning.report.render import markdown_table
    from spd_lightning.report.schema import read_results
    from spd_lightning.report.tables import model_card_table
    from spd_lightning.tasks.mix import label

    run = RunFolder(run_dir)
    config = run_config(run)
    told_changes(run)
    if form != "projected" and (why := changed_student(run)) is not None:  # the card's scores are of those trained
        raise UserError(why)
    scores = read_results(run.results)["scores"] if run.results.is_file() else []
    facts = RunFacts(
        config["subspace"]["model_name_or_path"],
        config["data"]["method"],
        label(config["subspace"]["task"]),
        {k: v for k, v in settings_of(run.configuration()).items() if k.startswith(("subspace.", "data.", "model."))},
        markdown_table(model_card_table(scores), plain=True) if scores else "",
    )
    last = [folder for folder in run.rounds() if folder.adapter.exists()]
    if last and form != "projected":  # the student of several rounds: its adapter belongs to that round's base
        run = last[-1]
        facts = dataclasses.replace(facts, model_name_or_path=str(run.round_base.resolve()))
    if not (source := run.subspace if form == "projected" else run.adapter).exists():
        wanted, method = source.relative_to(run.path), config["data"]["method"]
        if method == "base" or (form == "projected" and method != "spd"):
            raise UserError(f"{run.path} has no {wanted}: data.method is {method}, which makes none.")
        raise UserError(f"{run.path} has no {wanted}, which --form {form} needs. Run `fit` to its end first.")
    write: Any = {"adapter": export_adapter, "merged": export_merged, "projected": export_projected}[form]
    print(f"Exported: {write(source, out, facts)}")


def compare(subspace: list[str], *, plot: str | None = None) -> None:
    """Compare subspaces site by site: principal angles, overlap, distance, and what chance would give.

    Args:
        subspace: Two or more subspace.safetensors files or run folders.
        plot: File for a heat map: .png, .svg or .pdf.
    """
    from spd_lightning.report.render import markdown_table
    from spd_lightning.report.tables import overlap_table
    from spd_lightning.subspace.compare import compare_subspaces, short_names
    from spd_lightning.subspace.subspace import CapabilitySubspace

    if len(subspace) < 2:
        raise UserError(f"compare needs at least two subspaces, found {len(subspace)}. Name another file.")
    if plot is not None and Path(plot).suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"plot={plot} ends in no format of a picture. Set --plot to a file in .png, .svg or .pdf.")
    found = {}
    for name, path in zip(short_names(subspace), map(Path, subspace)):
        if path.is_dir():
            told_changes(RunFolder(path))
        found[name] = CapabilitySubspace.load(RunFolder(path).subspace if path.is_dir() else path)
    rows = compare_subspaces(found)
    print(markdown_table(overlap_table(rows), plain=True))
    if plot:
        from spd_lightning.report.plots import plot_sites, write_plot

        print(f"Plot: {write_plot(plot_sites(rows), plot)}")


def contamination(run_dir: str, *, tasks: list[str] | None = None, limit: int = 100) -> None:
    """Count what a run's training texts share with test sets, and what its base model knows of them by heart.

    By test set: how many rows share 13 words in a row with a training text, of those that are long enough to; and of
    how many questions the base, given the first 60% of the words, writes the rest word for word (greedy). Generated
    rows stand in no model's training data: what is completed of those is what guessing gives.

    Args:
        run_dir: Run folder.
        tasks: Tasks whose test sets are looked at, e.g. '[gsm8k, arithmetic]'; null takes those that the run scored.
        limit: Questions of each test set that the model is to complete; 0 asks none.
    """
    from spd_lightning.artifacts.files import read_jsonl
    from spd_lightning.evaluation.contamination import recall
    from spd_lightning.model.load import load_model, load_tokenizer, resolve_dtype
    from spd_lightning.report.render import text_table
    from spd_lightning.report.schema import read_results
    from spd_lightning.report.tables import contamination_table
    from spd_lightning.tasks import load_task
    from spd_lightning.tasks.mix import names_of
    from spd_lightning.tasks.overlap import count_shared_ngrams

    if limit < 0:
        raise UserError(f"limit={limit} asks nothing. Set --limit to at least 0.")
    if tasks == []:
        raise UserError("tasks=[] names no test set. Set --tasks to some, e.g. '[gsm8k]', or leave it out.")
    config = run_config(run := RunFolder(run_dir))
    if not run.corpus.is_file():
        if config["data"]["method"] == "base":
            raise UserError(f"{run.path} has no corpus: data.method is base, which trains nothing.")
        raise UserError(f"{run.path} has no corpus. Run `fit` or `generate` to its end first.")
    told_changes(run)
    texts = []
    for file in [run.corpus, *(found.corpus for found in run.rounds() if found.corpus.is_file())]:
        with reading(file, "a corpus", "Put it back as it was."):
            texts += [record["prompt"] + record["completion"] for record in read_jsonl(file)]
    where: Any = (config["data_dir"], config["subspace"]["task_file"], "--tasks", "first", config["seed_everything"])
    scored = [s["task"] for s in read_results(run.results)["scores"]] if run.results.is_file() else []
    named = tasks or [*dict.fromkeys(scored)] or config["evaluation"]["tasks"] or names_of(config["subspace"]["task"])
    examples = {name: load_task(name, *where).examples("test") for name in named}
    name = config["subspace"]["model_name_or_path"]
    model = load_model(name, resolve_dtype(config["data"]["dtype"])) if limit else None
    rows = []
    for task, tests in examples.items():
        known = recall(model, load_tokenizer(name), tests[:limit]) if model is not None else None
        rows.append((task, len(tests), *count_shared_ngrams(tests, texts), known))
    print(text_table(contamination_table(rows)))


def sweep(file: str, *, workers: int = 1, out: str | None = None, check: bool = False) -> None:
    """Run a W&B sweep file as a grid without W&B, each point a run; one that was stopped goes on with what is missing.

    Args:
        file: Sweep file, or a shipped one by name, e.g. sweeps/rank.
        workers: Points at a time.
        out: Folder of the runs; null is runs/sweeps/<name of the file>.
        check: Only look whether every key and value is accepted.
    """
    from spd_lightning.sweep import runner
    from spd_lightning.sweep.grid import grid, points, read_sweep

    if workers < 1:
        raise UserError(f"workers={workers} is below 1. Set --workers to the points that should run at a time.")
    found = read_sweep(file)
    folder = Path(out or Path("runs") / "sweeps" / found.path.stem)
    if check:
        runner.check(found, runner.Runner(workers), folder)
        print(f"{found.path}: all {len(grid(found.parameters))} points are accepted")
        return
    page = runner.run_sweep(found, folder, workers)
    for point in points(found):
        told_changes(RunFolder(folder / point.name))
    print(runner.summary([folder / p.name for p in points(found)]))
    print(page)


def configs(action: Literal["list", "copy"], name: str | None = None, *, out: str | None = None) -> None:
    """List the configurations that come with the package, or copy one to be changed.

    Args:
        action: Show all, with what each is for; or copy one.
        name: copy: one of the list; --config takes the same names.
        out: copy: file or folder to write; null is this folder.
    """
    if action == "copy":
        if name is None:
            raise UserError("copy needs a name. `python -m spd_lightning configs list` shows all.")
        print(f"Copied: {shipped.copy(name, out)}")
        return
    if name is not None:
        raise UserError(f"list takes no name, found {name!r}. To have it as a file: {PROGRAM} configs copy {name}")
    width = max(map(len, shipped.names()))
    for known in shipped.names():
        print(f"{known:<{width}}  {shipped.summary(known)}")


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command
    for command in (
        *(sample, report, export, compare, contamination, runs, artifacts, verify),
        *(configs, sweep, completion, doctor),
    )
}

# What `add_function_arguments` has no way for: named several times, left out, or given without a value.
OWN: dict[str, dict[str, dict[str, Any]]] = {
    "report": {"run_dir": {"nargs": "+", "help": "Run folders."}},
    "compare": {"subspace": {"nargs": "+", "help": "Two or more subspace.safetensors files or run folders."}},
    "runs": {
        "run_dir": {"nargs": "*", "default": None, "help": "show, rm: run folders, or their names in runs_dir."},
        "--yes": {"action": "store_true", "help": "rm: do not ask."},
    },
    "configs": {"name": {"nargs": "?", "help": "copy: one of the list; --config takes the same names."}},
    "verify": {
        "--recompute": {
            "action": "store_true",
            "help": "Also run all stages once more, beside the run in a folder that is removed again, and compare "
            "every artifact: reproduced, or what differs first (exit status 1). It takes as long as the run did, and "
            "needs its store.",
        }
    },
    "sweep": {"--check": {"action": "store_true", "help": "Only look whether every key and value is accepted."}},
}


# What each action of a command reads of its options.
READ: dict[str, dict[str, tuple[str, ...]]] = {
    "runs": {"list": ("runs_dir", "task", "method", "model", "sort"), "show": ("runs_dir",), "rm": ("runs_dir", "yes")},
    "artifacts": {name: ("artifact_dir",) for name in ("list", "check")}
    | {"prune": ("artifact_dir", "older_than_days")},
    "configs": {"list": (), "copy": ("out",)},
}


def check_read(name: str, action: str | None, words: Sequence[str]) -> None:
    """Refuse an option that an action does nothing with, such as a filter of ``runs list`` behind ``runs rm``.

    Args:
        name: The command.
        action: Its action; None where it has none.
        words: What was typed behind the command.
    """
    if action is None or (known := READ.get(name, {}).get(action)) is None:
        return
    typed = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
    if idle := [option for option in typed if option not in known]:
        takes = ", ".join(f"--{option}" for option in known) or "no option"
        raise UserError(f"--{idle[0]} has no effect here: {name} {action} takes {takes}. Leave it out.")


def command_parser(name: str) -> ArgumentParser:
    """The parser of a command."""
    parser = ArgumentParser(
        prog=f"spd_lightning {name}", description=command_help(name), exit_on_error=False, allow_abbrev=False
    )
    own = OWN.get(name, {})
    first = {key: settings for key, settings in own.items() if settings.get("nargs") == "+"}  # before what may follow
    for key, settings in first.items():
        parser.add_argument(key, **settings)
    skip: set[str | int] = {key.removeprefix("--") for key in own}
    parser.add_function_arguments(COMMANDS[name], as_group=False, as_positional=True, skip=skip)
    for key in [key for key in own if key not in first]:
        parser.add_argument(key, **own[key])
    return parser


def options_last(name: str, args: list[str]) -> list[str]:
    """What was typed behind a command with its options at the end, where one may be named between several folders.

    argparse gives a list of any length what stands before the first option, and knows no more of it then.
    """
    own = OWN.get(name, {})
    if not any(settings.get("nargs") == "*" for settings in own.values()):
        return args
    words, options, rest = [], [], iter(args)
    for word in rest:
        if not word.startswith("-"):
            words.append(word)
            continue
        options.append(word)
        alone = "=" in word or "action" in own.get(word, {}) or word in ("-h", "--help")
        options += [] if alone else [value for value in (next(rest, None),) if value is not None]
    return words + options


def command_help(name: str) -> str:
    """The first line of a command's docstring."""
    return (COMMANDS[name].__doc__ or "").strip().splitlines()[0]
