"""What a run logs of its corpus, as a W&B experiment receives it, and what it notes of its surroundings."""

from __future__ import annotations

import shlex
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from spd_lightning import __version__
from spd_lightning.pipeline import tracking
from spd_lightning.pipeline.tracking import describe_environment, git_commit, log_corpus


class Recorder(WandbLogger):
    """A W&B logger whose experiment keeps what it is given."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self._prefix, self._wandb_init = "", {}

    @property
    def experiment(self) -> Any:
        return self

    def log(self, row: dict[str, Any], **kwargs: Any) -> None:
        self.rows |= row

    def define_metric(self, *args: Any, **kwargs: Any) -> None:
        """Not needed."""


def test_corpus_figures_lengths_and_table_of_samples() -> None:
    logger = Recorder()
    samples = [{"id": "a", "prompt": "2 + 2?", "base": " 5", "projected": " 4"}]
    log_corpus([logger], {"n": 3, "stopped": 0.5}, [4, 7, 7], samples)
    assert logger.rows["corpus/n"] == 3.0 and logger.rows["corpus/stopped"] == 0.5
    histogram, table = logger.rows["corpus/lengths"], logger.rows["corpus/samples"]
    assert isinstance(histogram, wandb.Histogram) and sum(histogram.histogram) == 3
    assert table.columns == ["id", "prompt", "base", "projected"] and table.data == [["a", "2 + 2?", " 5", " 4"]]
    log_corpus([again := Recorder()], {"n": 3}, [4], [])
    assert "corpus/samples" not in again.rows


def test_the_command_can_be_pasted_and_the_commit_is_noted() -> None:
    found = describe_environment("f", ["fit", "--evaluation.tasks", "[svamp, gsm8k]", "--run_dir=a b"])
    assert found["command"] == "python -m spd_lightning fit --evaluation.tasks '[svamp, gsm8k]' '--run_dir=a b'"
    assert shlex.split(found["command"])[3:] == ["fit", "--evaluation.tasks", "[svamp, gsm8k]", "--run_dir=a b"]
    assert set(found) >= {"fingerprint", "git", "packages", "isolation"}


def test_a_commit_is_that_of_the_package_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed into a checkout of something else is at none of its commits."""
    package = tmp_path / "spd_lightning"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_commit(package) is None, "no repository"
    who = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false"]

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(tmp_path), *who, *args], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "of something else")
    assert git_commit(package) is None, "not tracked"
    git("add", ".")
    git("commit", "-q", "-m", "the package")
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook
    head = (tmp_path / ".git").is_dir() and git_commit(package)
    assert head and head["changed"] is False and len(head["commit"]) == 40
    (package / "__init__.py").write_text("x = 1\n")
    assert (git_commit(package) or {}).get("changed") is True
    monkeypatch.setenv("PATH", "")
    assert git_commit(package) is None, "no git"


def test_a_clone_that_was_never_installed_knows_its_own_version(monkeypatch):
    def nothing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(tracking, "version", nothing)
    assert tracking.package_versions() == {**dict.fromkeys(tracking.PACKAGES), "spd_lightning": __version__}
