"""What the published main table costs here: a cut run of it on random weights of Qwen2.5-0.5B's shape, scaled up.

    python -m experiments.benchmarks main_table [--prompts 32] [--limit 4] [--json FILE]

`configs/paper/gsm8k.yaml` is run whole, stage by stage, on fewer rows. The processors' seconds are taken, which other
work on the machine disturbs less than the clock's, and shared out by what each stage took on the clock. Random weights
never stop by themselves, so generation and scoring are upper bounds; the tokenizer is the embedded model's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from experiments.benchmarks.shapes import SHAPES
from spd_lightning.model.embedded import EMBEDDED_MODEL
from spd_lightning.model.load import load_tokenizer
from spd_lightning.tasks import load_task

SHAPE = "Qwen2.5-0.5B"
RUN = "configs/paper/gsm8k.yaml"
EPOCHS = 5
RUNS = {"gsm8k": 7473, "mmlu": 285, "mbpp": 464}  # training prompts, as `--estimate` counts them
BENCHMARKS = ("gsm8k", "svamp", "mbpp_sanitized", "codealpaca", "mmlu", "bbh:paper")


def random_folder(folder: Path) -> Path:
    """A model folder of the shape, its weights drawn at random, in bfloat16 (1 GB)."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(SHAPES[SHAPE], dtype=torch.bfloat16).save_pretrained(folder)
    load_tokenizer(EMBEDDED_MODEL).save_pretrained(folder)
    return folder


def measure(folder: Path, prompts: int, limit: int) -> tuple[float, dict[str, float], dict[str, float]]:
    """Run the cut table's run in a process of its own.

    Returns:
        The processors' seconds, and the clock's by stage and by benchmark (base and student together).
    """
    options = {
        "subspace.model_name_or_path": str(random_folder(folder / "model")),
        "data.num_prompts": str(prompts),
        "data.min_completions": "0",
        "data.batch_size": str(prompts),
        "trainer.max_epochs": "1",
        "model.warmup_epochs": "0",
        "model.batch_size": "1",  # a token costs the same, and the logits of 151,936 words fit
        "evaluation.limit": str(limit),
        "evaluation.batch_size": str(limit),
        "evaluation.methods": "[base, student]",
        "evaluation.allow_code_execution": "true",
        "run_dir": str(folder / "run"),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "spd_lightning", "fit", "--config", RUN, *words]
    before = os.times()
    subprocess.run(command, check=True, env={**os.environ, "WANDB_MODE": "disabled"})
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    results = json.loads((folder / "run" / "results.json").read_text(encoding="utf-8"))
    scored = dict.fromkeys(BENCHMARKS, 0.0)
    for name, facts in results["benchmarks"].items():
        scored[name.rsplit(".", 1)[0]] += facts["seconds"]
    return cpu, {stage["stage"]: stage["seconds"] for stage in results["stages"]}, scored


def scaled(
    stages: Mapping[str, float], scored: Mapping[str, float], share: float, limit: int, rows: Mapping[str, int]
) -> dict[str, float]:
    """Seconds of a whole run from those of a cut one, trained on for one epoch.

    Args:
        stages: Of the cut run by stage.
        scored: Of its benchmarks, base and student together.
        share: Training prompts of the whole run for each of the cut one's.
        limit: Rows of each benchmark in the cut run.
        rows: In the whole run, where the projected base, the student and, for one run in three, the base are scored.
    """
    scoring = sum(seconds / (2 * limit) * rows[task] * (2 + 1 / 3) for task, seconds in scored.items())
    by_stage = {"extract": 1.0, "generate": share, "fine_tune": share * EPOCHS}
    return {stage: stages[stage] * factor for stage, factor in by_stage.items()} | {"evaluate": scoring}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the cut run's seconds and the table's hours."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks main_table", allow_abbrev=False)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--json", help="file for the figures")
    given = parser.parse_args(argv)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        cpu, wall, scored = measure(Path(name), given.prompts, given.limit)
    busy = cpu / sum(wall.values())
    stages, scored = ({key: busy * value for key, value in found.items()} for found in (wall, scored))
    rows = {task: len(load_task(task).examples("test")) for task in BENCHMARKS}
    print(f"\ncut run: {cpu:.0f} s of the processors in {time.perf_counter() - began:.0f} s")
    print("  ".join(f"{stage} {value:.0f} s" for stage, value in stages.items()))
    whole = {task: scaled(stages, scored, asked / given.prompts, given.limit, rows) for task, asked in RUNS.items()}
    for task, found in whole.items():
        shown = ", ".join(f"{stage} {value / 3600:.1f}" for stage, value in found.items())
        print(f"a run on {task}: {sum(found.values()) / 3600:.1f} hours of one thread ({shown})")
    total = sum(9 * sum(found.values()) for found in whole.values()) / 3600
    print(f"27 runs: {total:.0f} hours of one thread ({sum(rows.values()):,} rows of six benchmarks)")
    if given.json:
        figures = {"cpu_seconds": cpu, "stages": stages, "benchmarks": scored, "whole": whole, "hours": total}
        Path(given.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0
