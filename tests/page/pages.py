"""Run folders with everything that a report can show, made up here, and their pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.files import write_jsonl
from spd_lightning.report.page import write_report
from tests.unit.report.test_across import run_of
from tests.unit.report.test_moved import ANSWERS, BASE, SITE, STUDENT, TEXTS
from tests.unit.report.test_report import HOSTILE, make_run

NAMES = ("one", "arms", "sweep", "half")


def full_run(path: Path) -> Path:
    """A run with figures of its movement, warnings, letters with likelihoods, pairs of completions, many samples."""
    make_run(path)
    results = json.loads((path / "results.json").read_text())
    letters = {**ANSWERS, "task": "letters", "other_text": None, "n": 40}
    arithmetic = {**ANSWERS, "task": "arithmetic", "base": BASE, "student": STUDENT}
    results["moved"] = {"held_out": TEXTS, "corpus": TEXTS, "answers": [arithmetic, letters], "subspace": [SITE]}
    warning = "91% of the completions are cut at 64 tokens. Raise --data.max_new_tokens."
    results["health"] = [{"stage": "generate", "figures": {}, "warnings": [warning]}]
    pair = {"prompt": "1 + 1 =", "base": f"2 {HOSTILE}".replace("\ud800", ""), "projected": "3, or 算数 🚀"}
    results["corpus_samples"] = [pair, {**pair, "projected": None}]
    results["stages"] += [{"stage": "fine_tune", "seconds": 200.0, "tokens": 60_000, "skipped": False}]
    results["passes"] = [
        {"task": "arithmetic", "method": "base", "decoding": None, "n": 4, "samples": 4, "pass": {"1": 0.2, "4": 0.6}}
    ]
    (path / "results.json").write_text(json.dumps(results))
    for method in ("base", "spd"):
        row: dict[str, Any] = {"sample": 0, "completion": "", "expected": "B", "reason": "likelihood"}
        rows = [
            {
                **row,
                "id": f"test/{i}",
                "prompt": f"Question {i}: where?\nA. here\nB. there\nAnswer:",
                "answer": "AB"[(i + (method == "spd")) % 2],
                "correct": bool((i + (method == "spd")) % 2),
                "scores": {"A": -0.5 - i / 50, "B": -1.0},
            }
            for i in range(40)
        ]
        write_jsonl(path / "samples" / f"letters.{method}.jsonl", rows)
    return path


def make_pages(folder: Path) -> dict[str, Path]:
    """One page of each kind: one run, arms over seeds, a sweep with a failed point, a run that is half done."""
    sweep = [
        make_run(folder / f"rank{rank}-{i}", rank=rank, layers=layers, gain=rank / 40 + i / 50)
        for rank in (2, 4, 8)
        for i, layers in enumerate(([0], [1], "a name of layers that is long"))
    ]
    (folder / ".sweep").mkdir()
    (folder / ".sweep" / "rank16-0.json").write_text(json.dumps({"status": 1}))
    arms = [run_of(folder / "arms" / f"{m}-{s}", m, s, p) for m, p in (("ssd", 0.35), ("spd", 0.6)) for s in (1, 2, 3)]
    half = make_run(folder / "half" / "run")
    (half / "results.json").unlink()
    runs = {"one": [full_run(folder / "alone" / "run")], "arms": arms, "sweep": sweep, "half": [half]}
    return {name: write_report(runs[name], folder / "pages" / name, plots=()) for name in NAMES}
