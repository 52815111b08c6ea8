"""A fault of the disk ends a command with one line."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.cli.program import main
from spd_lightning.cli.start import main as start
from spd_lightning.errors import disk_fault


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
    import subprocess

    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "spd_lightning", "configs", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "the output" in done.stderr and "No space left" in done.stderr
