"""``runs``: the runs of a folder as a list, one of them in full, and the removal of what is no longer wanted."""

from __future__ import annotations

import datetime
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from spd_lightning.artifacts.locks import file_lock
from spd_lightning.artifacts.reading import absent
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.runs import RunSummary, find_runs, showing, summarise
from spd_lightning.artifacts.store import COMPLETE
from spd_lightning.cli.checks import told_changes
from spd_lightning.cli.typed import PROGRAM
from spd_lightning.errors import UserError

MIB = 2**20
Sort = Literal["name", "task", "method", "model", "score", "size", "time"]


def runs(
    action: Literal["list", "show", "rm"],
    run_dir: list[str] | None = None,
    *,
    runs_dir: str = "runs",
    task: str | None = None,
    method: str | None = None,
    model: str | None = None,
    sort: Sort = "name",
    yes: bool = False,
) -> None:
    """List the runs of a folder, show one in full, or remove some; artifacts that runs share are kept.

    Args:
        action: All runs, a line each; everything about those named; or delete those named, after asking.
        run_dir: show, rm: run folders, or their names in runs_dir.
        runs_dir: Folder that is searched for runs, at any depth.
        task: list: only the runs of this task.
        method: list: only the runs of this method.
        model: list: only the runs whose model's name holds this.
        sort: list: by what; score (that of what was trained), size and time with the largest first.
        yes: rm: do not ask.
    """
    if action == "list":
        if run_dir:
            raise UserError(
                f"list takes no run folder, found {run_dir[0]!r}. Set --runs_dir to the folder that holds it."
            )
        _list(Path(runs_dir), {"task": task, "method": method, "model": model}, sort)
        return
    if not run_dir:
        raise UserError(f"{action} needs a run folder. `{PROGRAM} runs list` shows all.")
    found = [_named(name, Path(runs_dir)) for name in run_dir]
    for folder in found:
        if action == "rm":
            _remove(folder, yes)
            continue
        with showing([folder]):
            _show(folder)


def _named(name: str, runs_dir: Path) -> RunFolder:
    """The run folder that a path or a name stands for."""
    for path in (Path(name), runs_dir / name):
        if RunFolder(path).config_file.is_file():
            return RunFolder(path)
    what = "is no run folder: it has no config.yaml" if Path(name).is_dir() else absent(name)
    raise UserError(f"{name} {what}. `{PROGRAM} runs list` shows all runs.")


def _list(root: Path, wanted: dict[str, str | None], sort: Sort) -> None:
    if not root.is_dir():
        raise UserError(f"runs_dir={root} {absent(root)}. Set --runs_dir to a folder of runs.")
    found = [
        run
        for run in map(summarise, find_runs(root))
        if wanted["task"] in (None, run.task, *run.tasks)
        and wanted["method"] in (None, run.method)
        and (wanted["model"] or "").lower() in run.model.lower()
    ]
    if not found:
        chosen = " ".join(f"--{name} {value}" for name, value in wanted.items() if value)
        print(f"No run{f' of {chosen}' if chosen else ''} in {root}.")
        return
    orders: dict[Sort, Callable[[RunSummary], Any]] = {
        "task": lambda run: run.task,
        "method": lambda run: run.method,
        "model": lambda run: run.model,
        "score": lambda run: -((run.headline()[1] or run.headline()[0] or {}).get("value") or 0.0),
        "size": lambda run: -run.bytes,
        "time": lambda run: -run.changed,
    }
    if sort in orders:
        found.sort(key=orders[sort])
    header = ("run", "task", "method", "model", "state", "score", "MiB", "changed")
    rows = [
        (
            str(run.folder.path),
            run.task,
            run.method,
            run.model,
            run.state,
            _score(run),
            f"{run.bytes / MIB:.1f}",
            datetime.datetime.fromtimestamp(run.changed).isoformat(" ", "minutes"),
        )
        for run in found
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [cell.rjust(width) if i == 6 else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


def _score(run: RunSummary) -> str:
    """``gsm8k 34.0 -> 36.5``: base and student on one benchmark; one number where the other was not scored."""
    base, student = run.headline()
    row = student or base
    if row is None:
        return "-"
    from spd_lightning.scoring.verdicts import is_share

    def shown(one: dict[str, Any]) -> str:
        return f"{100 * one['value']:.1f}" if is_share(str(one.get("metric"))) else f"{one['value']:.3f}"

    numbers = [shown(one) for one in (base, student) if one is not None]
    who = "" if len(numbers) == 2 else f" ({row['method']})"
    return f"{row['task']} {' -> '.join(numbers)}{who}"


def _show(folder: RunFolder) -> None:
    run, environment = summarise(folder), folder.environment()
    model, revision = (run.config.get("subspace") or {}).get("model_name_or_path"), run.config.get("model_revision")
    facts = {
        "run": str(folder.path),
        "state": run.state,
        "task": run.task,
        "method": run.method,
        "model": f"{model} @ {revision}" if revision else model,
        "seed": run.config.get("seed_everything"),
        "command": environment.get("command"),
        "fingerprint": environment.get("fingerprint"),
        "size": f"{run.bytes / MIB:.1f} MiB ({_parts(folder)})",
        "changed": datetime.datetime.fromtimestamp(run.changed).isoformat(" ", "seconds"),
        "stages": ", ".join(map(_stage, run.results.get("stages") or [])) or None,
    }
    for name, value in facts.items():
        if value not in (None, ""):
            print(f"{name:<11} {value}")
    for i, name in enumerate(folder.artifacts()):
        print(f"{'artifacts' if i == 0 else '':<11} {name}")
    if not folder.results.is_file():
        print(f"\nIt goes on with: {folder.command()}")
        return
    from spd_lightning.report import read_run, render_table

    told_changes(folder)
    print(f"\n{render_table(read_run(folder.path))}")
    page = folder.path / "report.html"
    print(f"\nReport: {page}" if page.is_file() else f"\nFor its report: {PROGRAM} report {folder.path}")


def _stage(row: dict[str, Any]) -> str:
    return f"{row.get('stage')} {'taken from the store' if row.get('skipped') else str(row.get('seconds')) + ' s'}"


def _parts(folder: RunFolder) -> str:
    """The size of each folder in a run, the largest first."""
    sizes = {
        path.name: sum(p.lstat().st_size for p in path.rglob("*") if p.is_file())
        for path in folder.path.iterdir()
        if path.is_dir()
    }
    shown = [f"{name} {size / MIB:.1f}" for name, size in sorted(sizes.items(), key=lambda item: -item[1])]
    return ", ".join(shown) or "no folders in it"


def _remove(folder: RunFolder, yes: bool) -> None:
    """Delete a run folder; it is put aside first, so that an interruption leaves no half of a run.

    Raises:
        UserError: If a process works in it, others need what is in it, or nobody can be asked.
    """
    path = folder.path
    _check_removable(folder)
    run = summarise(folder)
    if run.state == "running":
        raise UserError(f"{path} is running. Stop it first (Ctrl-C, or SIGTERM to its process).")
    what = f"{path} ({run.state}, {run.method} on {run.task}, {run.bytes / MIB:.1f} MiB)"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"{what} would be deleted, and nobody can be asked here. Type --yes to delete it.")
        print(f"Delete {what}? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print(f"Kept: {path}")
            return
    aside = path.with_name(f".{path.name}-removed")
    with file_lock(folder.lock_file, str(path)):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            path.rename(aside)
        except OSError as error:
            raise UserError(f"{path} cannot be removed: {error.strerror}.") from error
        shutil.rmtree(aside)
    print(f"Removed: {what}; the artifacts that it shared are kept.")


def _check_removable(folder: RunFolder) -> None:
    """Refuse a folder whose removal would take more than one run."""
    path = folder.path
    if path.is_symlink():
        raise UserError(f"{path} is a link. Name the folder that it leads to: {path.resolve()}.")
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise UserError(f"{path} is the folder that this command runs in, or holds it. Type it from another folder.")
    for file in path.rglob(COMPLETE):
        raise UserError(
            f"{path} holds artifacts that other runs may use ({file.parent.parent}). Move that folder out of it first."
        )
    for file in path.rglob("environment.json"):
        if file.parent != path and (file.parent / "config.yaml").is_file():
            raise UserError(f"{path} holds another run, {file.parent}. Remove or move that first.")
