"""Two processes on two cores against one process on one: seconds of every stage, through the command line.

    python -m experiments.benchmarks scaling [--rounds 3] [--processes 2] [--quick]

Every round runs ``fit`` with one process and with several, one thread a process, each in a new folder, on little and on
much work. A stage's seconds are those of results.json, without the start of the interpreters. Much less little is what
the work itself takes, without loading the model: the ratio of that, paired within a round, is the speed-up; the seconds
of the stage on much work and of the whole command stand beside it. Fine-tuning is cut to one step. What the machine
allows stands under the table: the speed of as many independent processes at once over that of one.
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

OPTIONS = {
    "--subspace.task": "arithmetic",
    "--subspace.batch_tokens": "1024",
    "--data.batch_size": "16",
    "--data.max_new_tokens": "64",
    "--model.max_length": "64",
    "--evaluation.tasks": "[arithmetic, letters]",
    "--evaluation.methods": "[base]",
    "--evaluation.batch_size": "8",
    "--trainer.max_steps": "1",
    "--trainer.accelerator": "cpu",
    "--trainer.enable_progress_bar": "false",
}
LITTLE = {
    "--subspace.num_examples": "8",
    "--data.num_prompts": "32",
    "--evaluation.limit": "{arithmetic: 16, letters: 32}",
}
MUCH = {
    "--subspace.num_examples": "56",
    "--data.num_prompts": "256",
    "--evaluation.limit": "{arithmetic: 64, letters: 128}",
}
SPEEDS = """
import json, torch
from spd_lightning.cost.machine import measure_machine
print("imported", flush=True)
input()
found = [measure_machine("cpu", (torch.float32, torch.bfloat16)) for _ in range(5)]
speeds = {f"products in {str(dtype)[6:]}": max(m.flops[dtype] for m in found) for dtype in found[0].flops}
print(json.dumps(speeds | {"reading memory": max(m.bandwidth for m in found)}))
"""
STAGES = ("extract", "generate", "evaluate")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one round: a check, not a measurement")
    args = parser.parse_args(argv)
    rounds = []
    for number in range(1 if args.quick else args.rounds):
        rounds.append([[run(n, work) for work in (LITTLE, MUCH)] for n in (1, args.processes)])
        print(f"round {number + 1}: {rounds[-1]}", flush=True)
        report(rounds, args.processes)
    limit(args.processes)
    return 0


def report(rounds: list[list[list[dict[str, float]]]], processes: int) -> None:
    """Print the table of the rounds so far; a round holds, for one and for several processes, little and much work."""
    print(
        f"\n| median of {len(rounds)} | one process, s | {processes} processes, s | ratio | work alone | each round |"
    )
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for stage in (*STAGES, "whole command"):
        whole = [[many[1][stage] for many in pair] for pair in rounds]
        work = [[many[1][stage] - many[0][stage] for many in pair] for pair in rounds]
        ratios = [one / more for one, more in work]
        medians = [statistics.median(seconds) for seconds in zip(*whole)]
        ratio = statistics.median(one / more for one, more in whole)
        each = ", ".join(f"{one:.1f}/{more:.1f} s" for one, more in work)
        speedup = statistics.median(ratios)
        print(f"| {stage} | {medians[0]:.1f} | {medians[1]:.1f} | {ratio:.2f} | {speedup:.2f} | {each} |", flush=True)


def limit(processes: int) -> None:
    """Print what independent processes, one thread each, reach together over what one reaches alone."""
    alone, together = speeds(1), speeds(processes)
    for what, one in alone[0].items():
        print(f"machine, {what}: {sum(many[what] for many in together) / one:.2f}", flush=True)


def speeds(processes: int) -> list[dict[str, float]]:
    """Speed of the machine as each of several processes measures it at the same time."""
    command = [sys.executable, "-c", SPEEDS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, env=environment, **pipes) for _ in range(processes)]  # type: ignore[call-overload]
    for process in running:
        process.stdout.readline()  # imported
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate()[0]) for process in running]


def run(processes: int, work: dict[str, str]) -> dict[str, float]:
    """Seconds of every stage of one run, and of the whole command."""
    options = {**OPTIONS, **work, "--trainer.devices": str(processes)}
    options["--trainer.strategy"] = "auto" if processes == 1 else "ddp"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    with tempfile.TemporaryDirectory() as folder:
        given = [f"{name}={value}" for name, value in {**options, "--run_dir": f"{folder}/run"}.items()]
        start = time.perf_counter()
        command = [sys.executable, "-m", "spd_lightning", "fit", *given]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stderr[-3000:]}")
        results = json.loads((Path(folder) / "run" / "results.json").read_text(encoding="utf-8"))
    return {row["stage"]: row["seconds"] for row in results["stages"]} | {"whole command": round(seconds, 1)}
