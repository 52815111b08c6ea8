"""Seconds from a signal to the process's end, with a real model, at random moments of the estimate and every stage.

    python -m experiments.benchmarks interruption [--model gemma3-270m] [--stages STAGE ...] [-- OPTIONS OF fit]

SIGINT and SIGTERM in turns. The run is that of ``configs/demo.yaml``, given again after each interruption, so it goes
on from what was finished; a moment is drawn within ``--within`` seconds of the stage's beginning (that of the estimate
half a second from the start of the process on: before, the interpreter itself starts). A stage that ends meanwhile
leaves its turn to the next, and the table counts each interruption where the run itself says that it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGES = ("estimate", "extract", "generate", "fine_tune", "evaluate")
FIRST = 0.5  # seconds until the interpreter has started
LINE = re.compile(r"^Interrupted(?: in stage (\d)(?: at step (\d+) of \d+)?)?\.", re.MULTILINE)


@dataclass
class Seen:
    """One interruption: its stage, signal, seconds to the end, status, the line that was told, and the load then."""

    stage: str
    number: int
    seconds: float
    status: int
    told: str
    load: float


def interrupted(command: Sequence[str], folder: Path, stage: str, number: int, delay: float) -> Seen:
    """Start a command, send it a signal so long after a stage has begun, and wait for its end.

    Raises:
        RuntimeError: If it ended by itself before.
    """
    output = folder / "output"
    with open(output, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "spd_lightning", *command],
            stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, "WANDB_MODE": "offline"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        marks = [""] if stage == "estimate" else [f"[{s}] estimate" for s in STAGES[STAGES.index(stage) :]]
        while not any(m in output.read_text(errors="replace") for m in marks) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(delay)
        if process.poll() is not None:
            raise RuntimeError(f"{stage} was over: {output.read_text(errors='replace')[-1000:]}")
        start = time.perf_counter()
        process.send_signal(number)
        status = process.wait()
    seconds = time.perf_counter() - start
    found = LINE.search(output.read_text(errors="replace"))
    stage = STAGES[int(found[1])] if found and found[1] else stage
    return Seen(stage, int(number), seconds, status, found[0] if found else "", os.getloadavg()[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; status 1 where a run took over 10 s to end, or ended otherwise than by its signal."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks interruption", allow_abbrev=False)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--times", type=int, default=6, help="interruptions in each stage")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES, metavar="STAGE")
    parser.add_argument("--within", type=float, default=6.0, help="seconds behind the stage's beginning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file for the single figures")
    parser.add_argument("options", nargs="*", help="of fit, behind --")
    given = parser.parse_args(argv)
    draw, rows = random.Random(given.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ["fit", "--config", str(ROOT / "configs/demo.yaml"), "--subspace.model_name_or_path", given.model]
        command += ["--run_dir", str(folder / "runs/run"), *given.options]
        for stage in given.stages:
            for time_of in range(given.times):
                number = (signal.SIGINT, signal.SIGTERM)[time_of % 2]
                args = [*command, "--estimate"] if stage == "estimate" else command
                first, last = (FIRST, min(given.within, 6.0)) if stage == "estimate" else (0.0, given.within)
                rows.append(interrupted(args, folder, stage, number, draw.uniform(first, last)))
                print(rows[-1], file=sys.stderr, flush=True)
                if given.json:
                    Path(given.json).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(f"{'stage':<10} {'n':>2} {'median s':>9} {'longest s':>10}   statuses, load")
    for stage in STAGES:
        if not (own := [row for row in rows if row.stage == stage]):
            continue
        seconds = [row.seconds for row in own]
        statuses = sorted({row.status for row in own})
        loads = f"{min(row.load for row in own):.1f} to {max(row.load for row in own):.1f}"
        print(f"{stage:<10} {len(own):>2} {statistics.median(seconds):9.2f} {max(seconds):10.2f}   {statuses}, {loads}")
    bad = [row for row in rows if row.seconds > 10 or row.status != 128 + row.number or not row.told]
    print(f"{len(rows)} interruptions, {len(bad)} of them over 10 s, without a line or with another status")
    return int(bool(bad))
