"""Whatever becomes of the disk: one line that says so, nothing lost, and the same command goes on from there."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.cli.program import main
from spd_lightning.cli.start import main as start
from spd_lightning.errors import disk_fault
from tests.integration.test_kills import Runs

FULL, QUOTA, BROKEN, READ_ONLY, STALE = errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE

# Where it begins (see `stopping`), and what the system then says. It stays so until the command has ended.
FAULTS: dict[str, tuple[str, int]] = {
    "environment.json on a full disk": ("write {run}/.environment.json-", FULL),
    "config.yaml over quota": ("write {run}/.config.yaml-", QUOTA),
    "moments on a full disk": ("write {store}/moments-", FULL),
    "the subspace on a disk made read-only": ("mkdir {store}/subspace-", READ_ONLY),
    "the run's copy of the subspace on a full disk": ("write {run}/subspace/.subspace", FULL),
    "lines of the corpus on a full disk": ("/part-0.jsonl", FULL),
    "the sorted corpus on a broken disk": ("fsync {store}/corpus", BROKEN),
    "the record of the corpus over quota": (".complete.json-", QUOTA),
    "metrics.csv on a full disk": ("write {run}/logs/.metrics.csv-", FULL),
    "the checkpoint on a full disk": ("write {run}/checkpoints/.last.ckpt-", FULL),
    "the student on a full disk": ("mkdir {store}/.student-", FULL),
    "the run's copy of the student over quota": ("write {run}/.adapter-new", QUOTA),
    "scores on a broken disk": ("write {store}/scores-", BROKEN),
    "samples on a disk made read-only": ("mkdir {run}/samples", READ_ONLY),
    "results.json on a full disk": ("write {run}/.results.json-", FULL),
    "plots on a stale network disk": ("mkdir {run}/plots", STALE),
    "report.html on a full disk": ("write {run}/.report.html-", FULL),
    "manifest.json over quota": ("write {run}/.manifest.json-", QUOTA),
    "keys.json cannot be read": ("read {run}/keys.json", BROKEN),
}
DONE: dict[str, tuple[str, str, str, int | str]] = {
    "a student larger than files may be": ("mkdir {store}/.student-", "no large files", "4000", errno.EFBIG),
    "too many open files": ("mkdir {run}/checkpoints", "too many files", "", errno.EMFILE),
    "permission lost": ("mkdir {store}/scores-", "not allowed", "{run}", errno.EACCES),
    "the run folder removed before training": ("mkdir {run}/checkpoints", "removed", "{run}", "was removed or moved"),
    "the run folder removed before scoring": ("mkdir {store}/scores-", "removed", "{run}", "was removed or moved"),
    "the store removed under the corpus": ("mkdir {run}/corpus", "removed", "{store}", "was removed from the store"),
    "a small file system filled to the last byte": ("mkdir {store}/.student-", "full", "{store}/full", FULL),
}


REMOVED = ("/run/logs/hparams.yaml", "/run/checkpoints", "/run/checkpoints/last.ckpt")  # the student is in the store


@pytest.fixture(scope="module")
def runs(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("faulty")
    made = Runs(tiny_model_dir, folder / "runs", folder / "other")
    yield made
    made.commands.close()


@pytest.fixture
def small_file_system(runs: Runs) -> Iterator[None]:
    """8 MiB for the store of the run that begins next, and nothing else."""
    place = runs.other / f"{runs.made + 1}"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        place.rmdir()
        pytest.skip("as root, with a kernel that lets tmpfs be mounted, this test runs")
    yield
    subprocess.run(["umount", str(place)], check=True)


def told(runs: Runs, ended: dict[str, Any], what: int | str) -> str | None:
    """What is wrong with how a command ended."""
    shown = ended["shown"]
    errors = [line for line in shown.splitlines() if line.startswith("error: ")]
    last = shown.rstrip().splitlines()[-1]
    if not ended["met"]:
        return f"the fault was not met; status {ended['status']}: {shown[-1500:]}"
    if ended["status"] != 2 or "Traceback" in shown or errors != [last]:
        return f"status {ended['status']}: {shown[-1500:]}"
    if (os.strerror(what) if isinstance(what, int) else what) not in last:
        return f"not what happened: {last}"
    if not re.search(rf"({runs.folder}|{runs.other})/\S+", last):
        return f"no path: {last}"
    if "the same command again" not in last:
        return f"nothing to do: {last}"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAULTS, *DONE])
def test_a_fault_of_the_disk_is_told_and_the_same_command_goes_on(
    runs: Runs, name: str, request: pytest.FixtureRequest
) -> None:
    if "small file system" in name:
        request.getfixturevalue("small_file_system")
    runs.begin()
    places = {"run": str(runs.run), "store": str(runs.store)}
    what: int | str
    if name in FAULTS:
        at, what = FAULTS[name]
        fault: dict[str, Any] = {"at": at.format(**places), "disk": what}
    else:
        at, do, to, what = DONE[name]
        fault = {"at": at.format(**places), "do": do, "what": to.format(**places)}
    if fault["at"].startswith("read"):  # something that is there
        assert runs.go_on(fault={"at": f"mkdir {runs.run}/samples", "disk": FULL})["status"] == 2
    wrong = [told(runs, runs.go_on(fault=fault), what)]
    Path(f"{runs.store}/full").unlink(missing_ok=True)
    wrong.append(runs.differs(name, REMOVED if "run folder removed" in name else ()))
    assert wrong == [None, None], "\n".join(filter(None, wrong))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_fault_of_the_disk_is_one_line_wherever_it_comes_from(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(*_: Any) -> Any:
        raise OSError(number, os.strerror(number), "/data/x")

    monkeypatch.setattr("spd_lightning.cli.program.SPDCLI", raises)
    assert main(["fit"]) == 2
    assert capsys.readouterr().err.startswith(f"error: /data/x: {os.strerror(number)}. ")
    monkeypatch.setattr("spd_lightning.cli.start.at_once", raises)
    assert start(["runs"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_libraries_make_of_a_fault_is_known_and_other_errors_are_not() -> None:
    wrapped = RuntimeError("serialising")
    wrapped.__cause__ = OSError(errno.ENOSPC, "x", "/data/y")
    assert str(disk_fault(wrapped)).startswith("/data/y: No space left on device. Free space")
    rust = disk_fault(ValueError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert rust is not None and "No space left on device. Free space" in rust
    no_folder = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    assert "TMPDIR" in str(disk_fault(no_folder))
    assert disk_fault(FileNotFoundError(errno.ENOENT, "No such file", "/x")) is None
    assert disk_fault(KeyError("(os error 2)")) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_an_output_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "spd_lightning", "configs", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "the output" in done.stderr and "No space left" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "artifacts list --artifact_dir",
        "runs list --runs_dir",
        "sweep",
        "fit --run_dir",
    ],
)
def test_a_name_too_long_for_any_disk_is_told(
    command: str, tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [f"--subspace.model_name_or_path={tiny_model_dir}"] if command.startswith("fit") else []
    assert start([*command.split(), str(tmp_path / ("x" * 300)), *model]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and ("File name too long. Choose a shorter name" in errors[0] or "Shorten it" in errors[0])
