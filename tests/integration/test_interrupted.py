"""A real process, interrupted: its status, its one line, what it leaves, and that the same command goes on."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spd_lightning.pipeline.interruption import PATIENCE
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import PYTHONPATH, in_file

NOISE = (
    "Traceback",
    "`weights_only`",
    "Detected KeyboardInterrupt",
    "Received SIGTERM",
    "SIGTERMException",
    "Exception ignored",
)
STEPS = [s for s in SETTINGS if not s.startswith(("--evaluation", "--trainer.max_epochs"))]
STEPS += ["--trainer.max_epochs=2000", "--evaluation.tasks=[letters]", "--evaluation.limit=2"]


class Process:
    """A command under a terminal, whose keys it hears.

    Args:
        args: Behind the program's name.
        ignored: Signals that are ignored when it starts, as SIGHUP under nohup.
        fail: Where it hangs; see `tests.integration.failing`.
        launch: What starts it.
    """

    def __init__(
        self,
        args: list[str],
        folder: Path,
        ignored: tuple[int, ...] = (),
        fail: str = "",
        launch: tuple[str, ...] = (sys.executable,),
    ) -> None:
        self.master, slave = pty.openpty()
        environment = {**os.environ, "WANDB_MODE": "disabled", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        environment |= {"SPD_TEST_FAIL": fail, "PYTHONPATH": PYTHONPATH}
        module = "tests.integration.failing" if fail else "spd_lightning"

        def begin() -> None:
            os.setsid()
            import fcntl
            import termios

            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whatever the tests were started under
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

        self.process = subprocess.Popen(
            [*launch, "-m", module, *args],
            stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, preexec_fn=begin,
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str, seconds: float = 180) -> None:
        """Read until a text was shown."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} was not shown: {self.shown[-3000:]}"
            if not self._read(deadline):
                raise AssertionError(f"it ended without showing {text!r}: {self.shown[-3000:]}")

    def end(self, seconds: float = 60) -> int:
        """The exit status, all output read."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        status = self.process.wait(timeout=max(1.0, deadline - time.monotonic()))
        os.close(self.master)
        return status

    def press(self, key: bytes) -> None:
        """Type a key, such as Ctrl-C."""
        os.write(self.master, key)

    def _read(self, deadline: float) -> bool:
        """Read what is shown next; False at the end, or where nothing is shown until the deadline."""
        if not select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            part = os.read(self.master, 4096)
        except OSError:  # the other end is closed
            return False
        self.shown += part.decode(errors="replace")
        return bool(part)


def command(model: str, run: Path) -> list[str]:
    return ["fit", *in_file(STEPS), f"--subspace.model_name_or_path={model}", f"--run_dir={run}"]


def quiet(shown: str) -> bool:
    return not [word for word in NOISE if word in shown]


@pytest.mark.parametrize(
    "how", ["ctrl-c", pytest.param("sigterm", marks=pytest.mark.slow), pytest.param("sighup", marks=pytest.mark.slow)]
)
def test_training_is_saved_at_the_step_and_goes_on_from_there(how: str, tiny_model_dir: str, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run"
    process = Process(command(tiny_model_dir, run), tmp_path)
    process.wait_for("Starting at optimiser step 0 of")
    time.sleep(1.0)
    number = {"ctrl-c": signal.SIGINT, "sigterm": signal.SIGTERM, "sighup": signal.SIGHUP}[how]
    start = time.monotonic()
    if how == "ctrl-c":
        process.press(b"\x03")
    else:
        process.process.send_signal(number)
    assert process.end() == 128 + number, process.shown[-3000:]
    assert time.monotonic() - start < 30, "10 s on a machine that is not shared"
    assert quiet(process.shown), process.shown[-3000:]
    line = process.shown.strip().splitlines()[-1]
    assert line.startswith("Interrupted in stage 3 at step ")
    assert line.endswith(". The same command goes on from there.")
    step = int(line.split(" step ")[1].split(" ")[0])
    if how == "ctrl-c":
        again = Process(command(tiny_model_dir, run), tmp_path)
        again.wait_for(f"Continuing from optimiser step {step} of")
        again.process.send_signal(signal.SIGTERM)
        assert again.end() == 143


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2])
def test_a_step_that_does_not_end_is_given_up(signals: int, tiny_model_dir: str, tmp_path: Path) -> None:
    """After `PATIENCE`, at once where a second signal comes; the same command then starts from the last checkpoint."""
    run = tmp_path / "runs" / "run"
    process = Process(command(tiny_model_dir, run), tmp_path, fail="fine_tune:0:hang")
    process.wait_for("rank 0: hang in fine_tune")
    start = time.monotonic()
    for _ in range(signals):
        process.press(b"\x03")
        time.sleep(1.0)
    assert process.end() == 130, process.shown[-3000:]
    took = time.monotonic() - start
    assert PATIENCE <= took < PATIENCE + 8 if signals == 1 else took < 6
    assert quiet(process.shown), process.shown[-3000:]
    if signals == 1:
        assert process.shown.strip().splitlines()[-1] == "Interrupted in stage 3. The same command goes on from there."
    again = Process(command(tiny_model_dir, run), tmp_path)
    again.wait_for("Starting at optimiser step 0 of")
    again.process.send_signal(signal.SIGTERM)
    assert again.end() == 143


def test_before_the_first_stage_nothing_is_left(tiny_model_dir: str, tmp_path: Path) -> None:
    """The estimate included: here amid what is imported, or just behind it."""
    process = Process([*command(tiny_model_dir, tmp_path / "runs" / "run"), "--estimate"], tmp_path)
    status, deadline = Path(f"/proc/{process.process.pid}/status"), time.monotonic() + 60
    while not int(status.read_text().split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1:
        assert time.monotonic() < deadline, "it never began to listen: " + process.shown
        time.sleep(0.02)
    time.sleep(0.5)
    process.press(b"\x03")
    assert process.end() == 130, process.shown
    assert quiet(process.shown) and "Interrupted. Give the same command again." in process.shown, process.shown
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_under_nohup_a_hangup_is_ignored(tiny_model_dir: str, tmp_path: Path) -> None:
    process = Process(command(tiny_model_dir, tmp_path / "runs" / "run"), tmp_path, (signal.SIGHUP,))
    process.wait_for("[extract]")
    process.process.send_signal(signal.SIGHUP)
    process.wait_for("Starting at optimiser step 0 of")
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 143 and quiet(process.shown), process.shown[-3000:]


def test_a_closed_output_ends_quietly(tmp_path: Path) -> None:
    line = f"{sys.executable} -m spd_lightning fit --help | head -1; echo status ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout.startswith("usage:") and done.stdout.splitlines()[-1] in ("status 141", "status 0")
    assert quiet(done.stderr) and not done.stderr.strip()
