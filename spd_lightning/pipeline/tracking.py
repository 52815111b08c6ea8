"""What a run records of itself beside its results: metrics in CSV and W&B, and the environment it ran in."""

from __future__ import annotations

import netrc
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info

from spd_lightning import __version__
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import STAGE_VERSION
from spd_lightning.errors import UserError
from spd_lightning.pipeline.chatter import leave_out_wandb
from spd_lightning.pipeline.run_log import RunLogger
from spd_lightning.scoring.isolation import probe_isolation

PACKAGES = (
    "spd_lightning",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "datasets",
    "evaluate",
    "torchmetrics",
    "wandb",
)


def default_loggers(run_dir: Path, config: dict[str, Any]) -> list[Logger]:
    """CSV always; W&B offline unless the user is logged in (then it says so), none where ``WANDB_MODE=disabled``.

    Args:
        run_dir: Run folder; both write to ``logs/`` in it.
        config: Options of the run. Under a sweep W&B's agent sets them, so they are not handed over again.

    Ranks:
        Both loggers write on rank 0 alone.
    """
    logs = RunFolder(run_dir).logs
    loggers: list[Logger] = [RunLogger(logs, name="", version="")]
    mode, sweep = os.environ.get("WANDB_MODE", ""), "WANDB_SWEEP_ID" in os.environ
    if mode != "disabled":
        offline = mode == "offline" or not (mode == "online" or sweep or logged_in())
        if offline and not mode:
            rank_zero_info(
                f"W&B: not logged in, so it logs offline into {logs}. Type `wandb login`, or set WANDB_MODE=disabled."
            )
        leave_out_wandb()
        loggers.append(
            WandbLogger(
                name=run_dir.name,
                save_dir=logs,
                project="spd_lightning",
                offline=offline,
                config=None if sweep else config,
            )
        )
    return loggers


def log_corpus(
    loggers: Sequence[Logger],
    statistics: Mapping[str, Any],
    lengths: Sequence[int],
    samples: Sequence[dict[str, str]],
) -> None:
    """Log a generated corpus: its figures as ``corpus/...``, and to W&B the lengths and a table of samples.

    Args:
        loggers: Of the run.
        statistics: See `generation.figures.corpus_figures`.
        lengths: Of every completion, in tokens.
        samples: Rows ``id``, ``prompt``, ``base``, ``projected``; no table is logged without any.

    Ranks:
        For rank 0.
    """
    figures = {name: value for name, value in statistics.items() if name != "tasks"}
    for task, own in statistics.get("tasks", {}).items():
        figures |= {f"{task}/{name}": value for name, value in own.items()}
    for logger in loggers:
        logger.log_metrics({f"corpus/{name}": float(value) for name, value in figures.items()}, step=0)
        if isinstance(logger, WandbLogger):
            import wandb  # a second to import, and not wanted by everyone

            logger.experiment.log({"corpus/lengths": wandb.Histogram(lengths)})
            if samples:
                columns = list(samples[0])
                logger.log_table("corpus/samples", columns, [[row[name] for name in columns] for row in samples])


def check_login() -> None:
    """Refuse ``WANDB_MODE=online`` without a key: W&B would ask for one, or end the run, once it is under way."""
    if os.environ.get("WANDB_MODE") == "online" and not logged_in():
        raise UserError(
            "WANDB_MODE=online, but W&B is not logged in: WANDB_API_KEY is not set, and ~/.netrc names no "
            "api.wandb.ai. Type `wandb login`, or set WANDB_MODE=offline or disabled."
        )


def logged_in() -> bool:
    """Whether W&B has a key: in the environment, or in ``~/.netrc``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def git_commit(folder: Path = Path(__file__).parents[1]) -> dict[str, Any] | None:
    """The commit that the program is at (``commit``), and whether its files differ from it (``changed``).

    Args:
        folder: Of the package.

    Returns:
        None where git does not know the package: it was installed, though perhaps into somebody's checkout.
    """

    def git(*args: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, env=environment, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that results depend on; None for one that is not installed.

    This package's is its own, which may lie in a clone that was never installed.
    """
    return {name: __version__ if name == "spd_lightning" else _installed(name) for name in PACKAGES}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def describe_environment(fingerprint: str, command: Sequence[str]) -> dict[str, Any]:
    """What ``environment.json`` holds: the run's fingerprint, its command, commit, versions, devices, sandbox.

    Args:
        fingerprint: Of the run.
        command: What was typed behind ``python -m spd_lightning``; it is kept as a line that can be pasted.
    """
    isolation = probe_isolation()
    return {
        "fingerprint": fingerprint,
        "command": shlex.join(["python", "-m", "spd_lightning", *command]),
        "git": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "stages": STAGE_VERSION,
        "packages": package_versions(),
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "isolation": {"tier": isolation.tier, "name": isolation.name},
    }
