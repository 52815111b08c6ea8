"""What a command costs before it does anything: CPU seconds and wall seconds of short commands, each in a process.

    python -m experiments.benchmarks startup [--rounds 5] [--run RUN_DIR] [--json FILE]

The commands take turns, so that a busy machine disturbs all of them alike; the table shows medians. ``--run`` names a
finished run, of which the report is written anew.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

COMMANDS = {
    "--version": ["--version"],
    "--help": ["--help"],
    "configs list": ["configs", "list"],
    "artifacts list": ["artifacts", "list", "--artifact_dir", "."],
    "fit --help": ["fit", "--help"],
    "a command misspelt": ["fitt"],
    "an option misspelt": ["fit", "--data.num_promts", "3"],
    "a wrong value": ["fit", "--data.num_prompts", "many"],
}


def cost(args: Sequence[str], folder: Path) -> tuple[float, float]:
    """CPU and wall seconds of ``python -m spd_lightning ARGS``."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "spd_lightning", *args], cwd=folder, capture_output=True, check=False)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks startup", allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run", help="a finished run, for the report's seconds")
    parser.add_argument("--json", help="file for the figures")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        commands = dict(COMMANDS)
        if given.run:
            commands["report"] = ["report", str(Path(given.run).resolve()), "--out", str(Path(name) / "report")]
        seen: dict[str, list[tuple[float, float]]] = {title: [] for title in commands}
        for _ in range(given.rounds):
            for title, args in commands.items():
                seen[title].append(cost(args, Path(name)))
    table = {title: [statistics.median(column) for column in zip(*rows)] for title, rows in seen.items()}
    print(f"{'command':<20} {'CPU s':>6} {'wall s':>7}   (medians of {given.rounds})")
    for title, (cpu, wall) in table.items():
        print(f"{title:<20} {cpu:6.2f} {wall:7.2f}")
    if given.json:
        Path(given.json).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0
