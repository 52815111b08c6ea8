"""A run that is killed, anywhere and at any moment, ends by the same command as one that never was."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.checksums import passing
from tests.integration.stopping import Commands
from tests.integration.test_corruptions import FEW
from tests.settings import in_file

KINDS = ("write", "fsync", "rename", "mkdir", "open", "remove")
MEMORY = Path("/dev/shm")
FACTS = ("scores", "comparisons", "corpus", "corpus_samples", "overlap", "moved", "calibration", "health")
CLOCK = ("seconds", "_second")  # end the names of what is measured by one


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """All that nested dicts and lists hold, by its place, but what a clock measured."""
    if not isinstance(value, dict | list) or not value:
        return {name: value}
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    parts = [leaves(v, f"{name}/{k}") for k, v in inside if not str(k).endswith(CLOCK)]
    return {place: leaf for part in parts for place, leaf in part.items()}


class Runs:
    """Runs of one command that are killed, each in folders of its own.

    Args:
        model: A model folder.
        folder: Of the runs.
        other: Of their stores and temporary folders; on another file system or not.
    """

    def __init__(self, model: str, folder: Path, other: Path) -> None:
        self.model, self.folder, self.other, self.made = model, folder, other, 0
        self.commands = Commands(folder, other)
        self.begin()
        first = self.go_on()
        assert first["status"] == 0, first["shown"][-3000:]
        self.points, self.seconds, self.whole = first["points"], first["seconds"], self.end()

    def begin(self) -> None:
        """Take new folders."""
        self.made += 1
        self.run = self.folder / f"{self.made}" / "run"
        self.store, self.temporary = (self.other / f"{self.made}" / name for name in ("store", "temporary"))
        self.temporary.mkdir(parents=True)

    def go_on(
        self, point: int = 0, after: float = 0, fault: Mapping[str, Any] | None = None, temporary: Path | None = None
    ) -> dict[str, Any]:
        """The command, stopped at a point or after some seconds, or on a disk that fails."""
        names = [f"--run_dir={self.run}", f"--artifact_dir={self.store}"]
        args = ["fit", f"--subspace.model_name_or_path={self.model}", *in_file(FEW), *names]
        return self.commands.run(args, point, after, {"TMPDIR": str(temporary or self.temporary)}, fault)

    def end(self) -> dict[str, Any]:
        """All that a finished run left, but what a clock measured, and what is aside in the store."""
        files = {p.relative_to(self.run).as_posix(): p for p in self.run.rglob("*") if p.is_file()}
        results = json.loads(files["results.json"].read_text())
        kept = [n for n in files if n.startswith("samples/")]
        kept += ["subspace/subspace.safetensors", "corpus/generations.jsonl", "adapter/adapter_model.safetensors"]
        with files["logs/metrics.csv"].open(newline="") as table:
            logged = list(csv.DictReader(table))
        stored = [p.relative_to(self.store).as_posix() for p in self.store.rglob("*")]
        found = {
            "run": {p.relative_to(self.run).as_posix(): True for p in self.run.rglob("*")},
            "store": {name: True for name in stored if not any(passing(part) for part in name.split("/"))},
            "bytes": {name: hashlib.sha256(files[name].read_bytes()).hexdigest() for name in kept},
            "manifest": sorted(json.loads(files["manifest.json"].read_text())),
            "logged": logged,
            **{name: results.get(name) for name in FACTS},
        }
        return leaves(found)

    def differs(self, how: str, removed: Sequence[str] = ()) -> str | None:
        """Run the command until it ends; how the run then differs from one that was not killed.

        Args:
            how: It was stopped.
            removed: Files that somebody removed, and that nothing needs.
        """
        last = self.go_on()
        if last["status"] != 0:
            return f"{how}: status {last['status']}: {last['shown'][-1500:]}"
        now = self.end()
        names = sorted(n for n in now | self.whole if now.get(n) != self.whole.get(n) and n not in removed)
        wrong = [f"{name}: {now.get(name)}, not {self.whole.get(name)}" for name in names]
        shutil.rmtree(self.run.parent)
        shutil.rmtree(self.store.parent, ignore_errors=True)  # a file system may be mounted there
        return "\n    ".join([f"{how}:", *wrong[:20]]) if wrong else None


@pytest.fixture(scope="module", params=["one file system", "two file systems"])
def runs(
    request: pytest.FixtureRequest, tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("killed")
    if request.param == "one file system":
        made = Runs(tiny_model_dir, folder / "runs", folder / "other")
        yield made
        made.commands.close()
        return
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == folder.stat().st_dev:
        pytest.skip(f"{MEMORY} is no other file system than {folder}: give --basetemp on a disk to run this test")
    with tempfile.TemporaryDirectory(dir=MEMORY) as other:
        made = Runs(tiny_model_dir, folder / "runs", Path(other))
        yield made
        made.commands.close()


@pytest.mark.slow
def test_at_twelve_crash_points(runs: Runs) -> None:
    kinds = [point.split()[0] for point in runs.points]
    wrong = []
    for i in range(12):
        places = [n for n, kind in enumerate(kinds, start=1) if kind == KINDS[i % len(KINDS)]]
        point = places[int(len(places) * (i + 0.5) / 12)]
        runs.begin()
        stopped = runs.go_on(point)
        assert stopped["status"] == -9, stopped["shown"][-3000:]
        wrong.append(runs.differs(f"point {point}, {stopped['points'][-1]}"))
    assert wrong == [None] * 12, "\n".join(filter(None, wrong))


@pytest.mark.slow
def test_at_twenty_moments(runs: Runs) -> None:
    drawn = random.Random(int(os.environ.get("SPD_TEST_SEED", "0")))
    wrong: list[str | None] = []
    moment = runs.seconds * drawn.random() / 20
    while len(wrong) < 20:
        runs.begin()
        stopped = runs.go_on(after=moment)
        if stopped["status"] == 0:  # the machine was faster than the first time
            moment *= 0.9
            continue
        assert stopped["status"] == -9, stopped["shown"][-3000:]
        wrong.append(runs.differs(f"after {moment:.2f} s, behind {(stopped['points'] or ['the start'])[-1]}"))
        moment = runs.seconds * (len(wrong) + drawn.random()) / 20
    assert wrong == [None] * 20, "\n".join(filter(None, wrong))
