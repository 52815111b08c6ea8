"""Two processes at once on one store or run folder: each ends as if it were alone, or says who is in its way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.checksums import passing
from tests.integration.stopping import Commands
from tests.integration.test_corruptions import FEW, flip
from tests.settings import PYTHONPATH, in_file

pytestmark = pytest.mark.slow
FILES = ("subspace/subspace.safetensors", "corpus/generations.jsonl", "adapter/adapter_model.safetensors")
SAMPLES = ("samples/letters.base.jsonl", "samples/letters.spd.jsonl")


class Two:
    """Two processes that run commands, the first of which can be held at a point of its run.

    Args:
        model: A model folder.
        folder: Of all runs.
    """

    def __init__(self, model: str, folder: Path) -> None:
        self.model, self.folder, self.made = model, folder, 0
        self.running: list[Future[dict[str, Any]]] = []
        self.pool = ThreadPoolExecutor(2)
        list(self.pool.map(time.sleep, (0.2, 0.2)))  # its threads are there before a test that counts them
        self.sides = [Commands(folder), Commands(folder)]
        self.begin()
        alone = self.run(0, *self.fit("run"))
        assert alone["status"] == 0, alone["shown"][-3000:]
        self.whole = self.end("run")

    def begin(self) -> Path:
        """Take a new folder with a new store, once all that a failed test left has ended."""
        for file in self.folder.glob("*/held-*"):
            file.unlink()
        while self.running:
            self.running.pop().result()
        self.made += 1
        self.here = self.folder / str(self.made)
        self.here.mkdir(parents=True)
        return self.here

    def fit(self, name: str, *options: str) -> list[str]:
        """The command of a run of this name."""
        args = ["fit", f"--subspace.model_name_or_path={self.model}", f"--run_dir={self.here / name}"]
        return [*args, f"--artifact_dir={self.here / 'store'}", *in_file(FEW), *options]

    def run(self, side: int, *args: str, **how: Any) -> dict[str, Any]:
        """A command in one of the processes, to its end."""
        return self.sides[side].run(args, **how)

    def start(self, side: int, *args: str, at: str = "never", do: str = "pause") -> Future[dict[str, Any]]:
        """Begin a command that is held at a point; `held` waits until it is there."""
        self.pause = self.here / f"held-{side}"
        fault: Mapping[str, Any] = {"at": at.format(here=self.here), "do": do, "what": str(self.pause)}
        return self.beside(side, *args, fault=fault)

    def beside(self, side: int, *args: str, **how: Any) -> Future[dict[str, Any]]:
        """A command in one of the processes, while this one goes on."""
        self.running.append(self.pool.submit(self.run, side, *args, **how))
        return self.running[-1]

    def held(self, running: Future[dict[str, Any]]) -> None:
        """Wait until what was started last is held."""
        until(self.pause.exists, running)

    def let_go(self) -> None:
        """Let it go on."""
        self.pause.unlink()

    def end(self, name: str) -> dict[str, str]:
        """SHA-256 of what a finished run holds, by name."""
        files = {file: self.here / name / file for file in (*FILES, *SAMPLES)}
        return {file: hashlib.sha256(path.read_bytes()).hexdigest() for file, path in files.items()}

    def check(self, *ended: tuple[str, dict[str, Any]]) -> None:
        """Runs ended well, as a run alone does, and the store is whole and nothing beside it."""
        for name, done in ended:
            assert done["status"] == 0 and "Traceback" not in done["shown"], done["shown"][-3000:]
            assert self.end(name) == self.whole
            done = self.run(1, "verify", str(self.here / name))
            assert done["status"] == 0, done["shown"]
        done = self.run(1, "artifacts", "check", f"--artifact_dir={self.here / 'store'}")
        assert done["status"] == 0 and "DAMAGED" not in done["shown"], done["shown"]
        left = [p.relative_to(self.here).as_posix() for p in self.here.rglob("*") if passing(p.name)]
        assert not left, left


def until(there: Any, *running: Future[Any]) -> None:
    deadline = time.monotonic() + 200
    while not there():
        assert time.monotonic() < deadline
        assert not any(f.done() for f in running), [f.result()["shown"][-3000:] for f in running if f.done()]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def two(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    made = Two(tiny_model_dir, tmp_path_factory.mktemp("two"))
    yield made
    for side in made.sides:
        side.close()


def test_the_same_command_twice_and_what_may_not_touch_a_running_run(two: Two) -> None:
    here = two.begin()
    first = two.start(0, *two.fit("run"), at="mkdir {here}/run/checkpoints")
    two.held(first)
    second = two.run(1, *two.fit("run"))
    assert second["status"] == 2, second["shown"]
    assert f"error: run_dir={here}/run is in use by another process: " in second["shown"]
    removed = two.run(1, "runs", "rm", str(here / "run"), "--yes")
    assert removed["status"] == 2 and "run is running. Stop it first" in removed["shown"]
    told = two.run(1, "report", str(here / "run"))
    assert told["status"] == 0 and f"Report: {here}/run/report.html" in told["shown"], told["shown"]
    listed = two.run(1, "runs", "list", f"--runs_dir={here}")
    assert listed["status"] == 0 and "running" in listed["shown"]
    exported = two.run(1, "export", str(here / "run"), "--form=adapter", f"--out={here}/out")
    assert exported["status"] == 2 and "Run `fit` to its end first" in exported["shown"] and not (here / "out").exists()
    two.let_go()
    two.check(("run", first.result()))


def test_a_report_of_a_run_that_goes_on(two: Two) -> None:
    """It was whole, and is begun again: the page is of what was there, and the run's own in the end."""
    here = two.begin()
    assert two.run(0, *two.fit("run"))["status"] == 0
    first = two.start(0, *two.fit("run"), at="{here}/run/.results.json-")
    two.held(first)
    told = two.run(1, "report", str(here / "run"))
    assert told["status"] == 0 and "Traceback" not in told["shown"], told["shown"]
    two.let_go()
    two.check(("run", first.result()))


@pytest.mark.parametrize("file", ["moments.safetensors", "subspace.safetensors", "records.jsonl"])
def test_two_runs_make_one_artifact(file: str, two: Two) -> None:
    """The first is held while it writes; the second, which made the same meanwhile, waits and takes the first's."""
    here = two.begin()
    first = two.start(0, *two.fit("one"), at=f"/.{file}-")
    two.held(first)
    second = two.beside(1, *two.fit("two"))
    until((here / "two" / "config.yaml").exists, second)
    time.sleep(2)
    two.let_go()
    both = first.result(), second.result()
    two.check(("one", both[0]), ("two", both[1]))
    put = [{p for p in done["points"] if p.startswith("rename") and p.endswith(f"/{file}")} for done in both]
    stored = [{p for p in own if f"{here}/store/" in p} for own in put]
    assert stored[0] and not stored[0] & stored[1], "no artifact is written by both"


def test_two_runs_make_one_student(two: Two) -> None:
    two.begin()
    first = two.start(0, *two.fit("one"), at="{here}/store/.student-")
    two.held(first)
    second = two.run(1, *two.fit("two"))
    two.let_go()
    two.check(("one", first.result()), ("two", second))


def test_a_second_run_waits_for_the_corpus_of_the_first_and_takes_it(two: Two) -> None:
    here = two.begin()
    first = two.start(0, *two.fit("one"), at="fsync {here}/store/corpus-")
    two.held(first)
    second = two.beside(1, *two.fit("two"))
    until((here / "two" / "keys.json").exists, second)
    time.sleep(1)
    two.let_go()
    done = second.result()
    two.check(("one", first.result()), ("two", done))
    assert done["shown"].count("another run generates this corpus; waiting for it") == 1
    assert not [point for point in done["points"] if "/part-0.jsonl" in point], "it generated nothing"


def test_one_is_killed_while_it_holds_the_corpus_and_the_other_waits(two: Two) -> None:
    here = two.begin()
    first = two.start(0, *two.fit("one"), at="fsync {here}/store/corpus-")
    two.held(first)
    second = two.beside(1, *two.fit("two"))
    until((here / "two" / "keys.json").exists, second)
    time.sleep(1)
    lock = next(here.glob("store/corpus-*/.lock")).read_text()
    os.kill(int(lock.partition('"pid": ')[2].partition(",")[0]), signal.SIGKILL)
    assert first.result()["status"] == -signal.SIGKILL
    two.let_go()
    two.check(("two", second.result()), ("one", two.run(0, *two.fit("one"))))


def test_prune_and_check_while_a_run_works(two: Two) -> None:
    here = two.begin()
    first = two.start(0, *two.fit("run"), at="mkdir {here}/run/checkpoints")
    two.held(first)
    store = f"--artifact_dir={here / 'store'}"
    checked = two.run(1, "artifacts", "check", store)
    assert checked["status"] == 0, checked["shown"]
    pruned = two.run(1, "artifacts", "prune", "--older_than_days=0", store)
    assert pruned["status"] == 0 and pruned["shown"].count("in use, kept") == 3, pruned["shown"]
    two.let_go()
    two.check(("run", first.result()))


def test_two_go_on_with_one_interrupted_run(two: Two) -> None:
    here = two.begin()
    points = two.run(0, *two.fit("run"), point=10**6)["points"]
    there = next(n for n, point in enumerate(points, start=1) if point.startswith("rename") and "last.ckpt" in point)
    here = two.begin()
    assert two.run(0, *two.fit("run"), point=there + 2)["status"] == -signal.SIGKILL
    first = two.start(0, *two.fit("run"), at="{here}/store/.student-")
    two.held(first)
    second = two.run(1, *two.fit("run"))
    assert second["status"] == 2 and "is in use by another process" in second["shown"], second["shown"]
    two.let_go()
    two.check(("run", first.result()))
    assert here == two.here


def test_two_come_upon_one_damaged_artifact(two: Two) -> None:
    """One sets it aside; by the time the other would, it has been made anew, and stays."""
    here = two.begin()
    assert two.run(0, *two.fit("run"))["status"] == 0
    for file in (
        *here.glob("store/moments-*/moments.safetensors"),
        *here.glob("store/student-*/student/*.safetensors"),
    ):
        flip(file)
    first = two.start(0, *two.fit("one"), at="open {here}/store/.set-aside-lock")
    two.held(first)
    second = two.run(1, *two.fit("two"))
    two.let_go()
    done = first.result()
    two.check(("one", done), ("two", second))
    assert second["shown"].count("set aside as") == 2 and "set aside as" not in done["shown"]
    assert len(list(here.glob("store/*.damaged*"))) == 2


def test_two_on_a_store_without_locks(two: Two) -> None:
    here = two.begin()
    without = {"at": "", "do": "without locks", "what": ""}
    first = two.beside(0, *two.fit("one"), fault=without)
    second = two.beside(1, *two.fit("two"), fault=without)
    two.check(("one", first.result()), ("two", second.result()))
    for told in (first.result()["shown"], second.result()["shown"]):
        assert told.count("its file system has no locks") == 1
    assert not list(here.rglob("*exclusive-lock"))


SCORES = """
from spd_lightning.evaluation.metrics import LetterAccuracy
for n in range(1, 20):
    found = LetterAccuracy().compute(predictions=["B", "A", "C", "A"] * n, references=["B", "A", "A", "A"] * n)
print(found)
"""


def test_two_score_under_one_home_of_the_libraries(tmp_path: Path) -> None:
    """`evaluate` would keep predictions in files there, locked by the first; ours stay in memory."""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", SCORES]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=120)[0] == "{'acc': 0.75}\n" and process.returncode == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
