"""A home that cannot be written, or is not there, ends nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from spd_lightning.cli import home
from tests.settings import PYTHONPATH

NOBODYS = "/proc/none"  # no user can make a folder there, root neither


def test_a_home_that_can_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    environ: dict[str, str] = {}
    assert home.caches_elsewhere(environ) is None and environ == {}


def test_caches_go_to_one_folder_of_the_user_and_what_is_set_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", NOBODYS)
    environ = {"HF_HOME": "/somewhere"}
    own = tmp_path / f"spd_lightning-{os.getuid()}"
    assert home.caches_elsewhere(environ) == f"The home folder {NOBODYS} cannot be written: caches stand in {own}."
    assert environ["HF_HOME"] == "/somewhere" and environ["MPLCONFIGDIR"] == str(own / "matplotlib")
    assert set(environ) == set(home.CACHES) and (own / "matplotlib").is_dir()
    assert own.stat().st_mode & 0o077 == 0, "nobody else reads or plants anything there"
    assert home.caches_elsewhere(environ) is None, "a process that this one starts says nothing again"


def test_a_folder_that_another_planted_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", NOBODYS)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / f"spd_lightning-{os.getuid()}").symlink_to(theirs)
    environ: dict[str, str] = {}
    home.caches_elsewhere(environ)
    folder = Path(environ["XDG_CACHE_HOME"])
    assert folder.resolve() == folder and folder.parent == tmp_path and not any(theirs.iterdir())


@pytest.mark.slow
def test_a_whole_run_without_a_home(tiny_model_dir: str, tmp_path: Path) -> None:
    """W&B offline, a program that is run, plots: nothing looks for the home, and nothing but the line is said of it."""
    config = tmp_path / "c.yaml"
    config.write_text(
        f"subspace: {{model_name_or_path: {tiny_model_dir}, task: arithmetic, num_examples: 4, layers: [0, 1], "
        "max_length: 1024}\n"
        "data: {num_prompts: 6, max_prompt_length: 1024, max_new_tokens: 6, dtype: float32}\n"
        "model: {max_length: 1024, batch_size: 4}\n"
        "trainer: {max_epochs: 1, accelerator: cpu, devices: 1}\n"
        "evaluation: {tasks: [arithmetic, functions], limit: 3, allow_code_execution: true}\n"
    )
    unset = {"XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR", *home.CACHES}
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    environment |= {"HOME": NOBODYS, "TMPDIR": str(tmp_path), "WANDB_MODE": "offline", "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-m", "spd_lightning", "fit", f"--config={config}", f"--run_dir={tmp_path / 'run'}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count(NOBODYS) == 1 and "Traceback" not in done.stderr
    assert (tmp_path / "run" / "results.json").is_file() and list((tmp_path / "run").glob("plots/*.png"))
