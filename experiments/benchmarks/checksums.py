"""What it costs to know that artifacts are whole: seconds to compare all checksums, beside those of the stage saved.

    python -m experiments.benchmarks checksums RUN_DIR [RUN_DIR ...] [--rounds 9] [--json FILE]

Runs are finished ones that took nothing from their store (``runs/.artifacts`` beside them, or ``--artifact_dir``). Of
each, a round compares every artifact as `ArtifactStore.take` does, once with its files in the page cache and once read
from the disk (as far as the system lets go of them). A share is of the seconds that the same run's stage took, so runs
are paired with themselves; of several runs the median is shown, and the largest share.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from spd_lightning.artifacts import files
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import ArtifactStore

STAGE_OF = {
    "moments": "extract", "subspace": "extract", "corpus": "generate", "student": "fine_tune", "scores": "evaluate",
    "movement": "evaluate",
}  # fmt: skip


def forget(folder: Path) -> None:
    """Have the system let go of what it holds of a folder's files, and the program of their checksums."""
    files._remembered.cache_clear()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def seconds(store: ArtifactStore, folder: Path, cold: bool) -> float:
    """Wall seconds of one comparison."""
    files._remembered.cache_clear()
    if cold:
        forget(folder)
    start = time.perf_counter()
    damage = store.damage(folder)
    passed = time.perf_counter() - start
    assert not damage, f"{folder}: {damage}"
    return passed


def measured(run: RunFolder, store: ArtifactStore, rounds: int) -> dict[str, dict[str, float]]:
    """By stage: its seconds, the bytes of its artifacts, and median seconds to compare them, warm and cold."""
    stages = {row["stage"]: row for row in json.loads(run.results.read_text(encoding="utf-8"))["stages"]}
    if taken := [name for name, row in stages.items() if row["skipped"]]:
        raise SystemExit(f"{run.path} took {', '.join(taken)} from its store: run it with an empty one.")
    found: dict[str, dict[str, float]] = {name: {"seconds": row["seconds"], "bytes": 0} for name, row in stages.items()}
    folders = {name: store.root / name for name in run.artifacts()}
    for folder in folders.values():
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        found[STAGE_OF[folder.name.partition("-")[0]]]["bytes"] += size
    for how in ("warm", "cold"):
        sums: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            of_round: dict[str, float] = defaultdict(float)
            for folder in folders.values():
                of_round[STAGE_OF[folder.name.partition("-")[0]]] += seconds(store, folder, how == "cold")
            for stage, value in of_round.items():
                sums[stage].append(value)
        for stage, values in sums.items():
            found[stage][how] = statistics.median(values)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks checksums", allow_abbrev=False)
    parser.add_argument("run_dir", nargs="+")
    parser.add_argument("--artifact_dir", help="the runs' store, if it is not beside them")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", help="file for the figures")
    given = parser.parse_args(argv)
    rows = []
    for name in given.run_dir:
        run = RunFolder(name)
        store = ArtifactStore(given.artifact_dir or run.path.parent / ".artifacts")
        rows.append(measured(run, store, given.rounds))
    print(f"{'stage':<10} {'MiB':>7} {'stage s':>8} {'warm ms':>8} {'cold ms':>8} {'share':>8} {'largest':>8}", end="")
    print(f"   (medians of {len(rows)} runs, {given.rounds} rounds each; shares are of cold ones)")
    for stage in rows[0]:
        own = [row[stage] for row in rows]
        middle = {name: statistics.median(row[name] for row in own) for name in own[0]}
        shares = [row["cold"] / row["seconds"] for row in own]
        print(
            f"{stage:<10} {middle['bytes'] / 2**20:7.2f} {middle['seconds']:8.1f} {1000 * middle['warm']:8.1f} "
            f"{1000 * middle['cold']:8.1f} {statistics.median(shares):8.4%} {max(shares):8.4%}"
        )
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0
