"""Lengths and endings of completions, counted by hand, without a model library."""

from __future__ import annotations

import subprocess
import sys

from spd_lightning.generation.lengths import length_figures


def test_lengths_and_endings_counted_by_hand() -> None:
    rows = [
        {"num_tokens": 4, "finish_reason": "stop", "completion": "4"},
        {"num_tokens": 2, "finish_reason": "length", "completion": "a b"},
        {"num_tokens": 1, "finish_reason": "stop", "completion": " "},
        {"num_tokens": 1, "finish_reason": "stop", "completion": ""},
    ]
    assert length_figures(rows) == {
        "n": 4,
        "tokens_mean": 2.0,
        "tokens_median": 1.5,
        "tokens_max": 4,
        "tokens_total": 8,
        "stopped": 0.75,
        "empty": 0.5,
    }


def test_a_report_that_counts_loads_no_model_library() -> None:
    code = "import spd_lightning.report.corpus, sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
