"""The package as others get it: wheel and sdist, installed apart from the checkout, run in an empty folder and home."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_wheel(out); b.build_sdist(out)"
LEFT_OUT = (".git", ".venv", "build", "runs", "spd_lightning.egg-info", "__pycache__", ".mypy_cache", ".ruff_cache")


def ok(command: list[str], cwd: Path, **environ: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SPD_DATA_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(command, cwd=cwd, env={**environment, **environ}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    from shutil import copytree, ignore_patterns

    folder = tmp_path_factory.mktemp("build")
    copytree(ROOT, folder / "source", symlinks=True, ignore=ignore_patterns(*LEFT_OUT))
    ok([sys.executable, "-c", BUILD, str(folder / "dist")], folder / "source")
    return folder / "dist"


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel in it; what it depends on is that of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    ok([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
    python = folder / "bin" / "python"
    own = ok([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    # A line of a .pth file is a folder to import from; the .pth files in it, an editable install's too, are not read.
    Path(own, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = built.glob("*.whl")
    ok([sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)], folder)
    return python


def shipped_files() -> set[str]:
    """Files of the package that are not Python: in the wheel, or a command misses them."""
    package = ROOT / "spd_lightning"
    found = {p.relative_to(ROOT) for p in package.rglob("*") if p.is_file()}
    found |= {Path("spd_lightning", p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*") if p.is_file()}
    return {p.as_posix() for p in found if p.suffix != ".pyc"}


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_whole_package(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert shipped_files() <= inside and {"spd_lightning/py.typed", "spd_lightning/configs/demo.yaml"} <= inside
    assert {name.split("/")[0] for name in inside if ".dist-info" not in name} == {"spd_lightning"}
    with tarfile.open(sdist) as tar:
        files = {member.name.split("/", 1)[-1] for member in tar.getmembers() if member.isfile()}
    assert shipped_files() <= files and {"pyproject.toml", "README.md", "LICENSE"} <= files


@pytest.mark.slow
def test_commands_know_the_configurations(python: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert str(ROOT) not in ok([str(python), "-c", "import spd_lightning; print(spd_lightning.__file__)"], tmp_path)
    command = str(python.parent / "spd-lightning")
    assert "paper/gsm8k" in ok([command, "configs", "list"], tmp_path, **home)
    ok([command, "configs", "copy", "sweeps/rank"], tmp_path, **home)
    assert "all 5 points are accepted" in ok([command, "sweep", "rank.yaml", "--check"], tmp_path, **home)


@pytest.mark.slow
def test_the_demo_runs_from_an_empty_folder_with_an_empty_home(python: Path, smollm2: str, tmp_path: Path) -> None:
    """Its configuration on fewer examples: what is shown is that nothing of the checkout is missing."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    few = ["--subspace.num_examples=4", "--data.num_prompts=8", "--data.max_new_tokens=16", "--trainer.max_epochs=1"]
    few += ["--data.min_completions=0", "--evaluation.limit=4"]
    shown = ok(
        [str(python.parent / "spd-lightning"), "fit", "--config", "demo", *few],
        here,
        HOME=str(home),
        HF_HUB_OFFLINE="1",
        WANDB_MODE="disabled",
    )
    assert "arithmetic" in shown and "Report: runs/arithmetic-spd-" in shown
    assert [p.name for p in here.iterdir()] == ["runs"] and (
        next(here.glob("runs/*/report.html"))
    ).stat().st_size > 1000
