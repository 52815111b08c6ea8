"""``runs``: listing by every key, one run in full, and a removal that takes one run and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from spd_lightning.artifacts.locks import file_lock
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cli import start
from tests.unit.artifacts.test_runs import begun
from tests.unit.report.test_report import make_run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two finished runs and one that was begun, as ``runs/`` of this folder."""
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "low", gain=0.1)
    make_run(tmp_path / "runs" / "high", gain=0.3)
    begun(tmp_path / "runs" / "other", "gemma", "ssd")
    return tmp_path / "runs"


def listed(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    assert start.main(["runs", "list", *args]) == 0
    return [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]


def test_runs_are_listed_by_what_is_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys) == ["runs/high", "runs/low", "runs/other"]
    assert listed(capsys, "--sort", "score") == ["runs/high", "runs/low", "runs/other"]
    (root / "other" / "big").write_bytes(b"x" * 10**6)
    assert listed(capsys, "--sort=size")[0] == "runs/other"
    assert listed(capsys, "--sort=time")[0] == "runs/other"
    assert listed(capsys, "--method=ssd") == listed(capsys, "--model", "EMMA") == ["runs/other"]
    assert listed(capsys, "--task", "arithmetic", "--method", "spd") == ["runs/high", "runs/low"]
    assert start.main(["runs", "list"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[:9] == ["runs/high", "arithmetic", "spd", "tiny", "scored", "arithmetic", "20.0", "->", "50.0"]
    begun(root / "several", task="{letters: 2, arithmetic: 1}")
    assert listed(capsys, "--task=letters") == ["runs/several"] and len(listed(capsys, "--task=arithmetic")) == 4
    assert start.main(["runs", "list", "--task=letters"]) == 0
    assert "letters + arithmetic  spd" in capsys.readouterr().out
    assert start.main(["runs", "list", "--task=mmlu"]) == 0
    assert capsys.readouterr().out == "No run of --task mmlu in runs.\n"


def test_a_run_in_full(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder(root / "low").note_artifacts(["moments-1"])
    assert start.main(["runs", "show", "low", "runs/other"]) == 0
    shown = capsys.readouterr().out
    for text in ("state       scored", "stages      extract 4.0 s, generate taken from the store", "moments-1"):
        assert text in shown, text
    assert "exact_match_flexible (%)" in shown and "humaneval" in shown, "the table of the run"
    assert "It goes on with: python -m spd_lightning fit --config runs/other/config.yaml" in shown


def test_a_run_is_removed_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / ".artifacts" / "moments-1").mkdir(parents=True)
    assert start.main(["runs", "rm", "--yes", "low"]) == 0
    assert capsys.readouterr().out.startswith("Removed: runs/low (scored, spd on arithmetic, ")
    assert sorted(p.name for p in root.iterdir()) == [".artifacts", "high", "other"]
    assert (root / ".artifacts" / "moments-1").is_dir()


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("\n", False), ("no\n", False), ("", False)])
def test_a_terminal_is_asked(
    answer: str, gone: bool, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = io.StringIO(answer)
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    assert start.main(["runs", "rm", "low"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("Delete runs/low (scored, spd on arithmetic, ") and said.err.endswith("? [y/N] ")
    assert (root / "low").exists() is not gone and ("Kept: runs/low" in said.out) is not gone


REFUSED = {
    "nobody to ask": ([], "low", "nobody can be asked here. Type --yes"),
    "nothing named": ([], None, "rm needs a run folder."),
    "not there": (["--yes"], "lwo", "lwo does not exist."),
    "no run": (["--yes"], "runs", "runs is no run folder: it has no config.yaml."),
    "running": (["--yes"], "running", "runs/running is running. Stop it first"),
    "a link": (["--yes"], "link", "runs/link is a link."),
    "holds the store": (["--yes"], "store", "holds artifacts that other runs may use (runs/store/.artifacts)"),
    "holds a run": (["--yes"], "outer", "runs/outer holds another run, runs/outer/inner."),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_removed(why: str, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sys.stdin", io.StringIO())
    running = begun(root / "running")
    (root / "link").symlink_to("low")
    store = begun(root / "store").path / ".artifacts" / "moments-1"
    store.mkdir(parents=True)
    (store / "complete.json").write_text("{}")
    begun(root / "outer")
    begun(root / "outer" / "inner")
    before = sorted(root.rglob("*"))
    options, name, message = REFUSED[why]
    with file_lock(running.lock_file, "x"):
        assert start.main(["runs", "rm", *options, *([name] if name else [])]) == 2
    assert message in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before


def test_a_folder_is_not_removed_from_within(root: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(root / "low" / "subspace")
    assert start.main(["runs", "rm", "--yes", str(root / "low")]) == 2
    assert "is the folder that this command runs in" in capsys.readouterr().err and (root / "low").is_dir()
