"""What results and report say of the arithmetic: dtype, measured noise, what a cast of all weights keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.evaluation.callback import BenchmarkCallback, occasion
from spd_lightning.evaluation.rounding import rounding_noise
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.student import save_student
from spd_lightning.model.load import load_model
from spd_lightning.report.render import render_markdown
from spd_lightning.report.sections import arithmetic_blocks
from spd_lightning.tasks import load_task
from tests.conftest import byte_tokenizer, tiny_model


def test_noise_is_that_of_the_dtype(tiny_model_dir: str) -> None:
    benchmark = load_task("chains").benchmark("standard", 20)
    found = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model = load_model(tiny_model_dir, torch.float32).to(dtype)  # type: ignore[arg-type]
        noise = rounding_noise(model, byte_tokenizer(), benchmark)
        assert noise is not None and (noise["examples"], noise["batch_sizes"]) == (8, [1, 8])
        found[dtype] = noise["nats_per_token"]
    assert found[torch.float64] < 1e-12 and found[torch.float32] < 1e-6, found
    assert 10 * found[torch.float32] < found[torch.bfloat16] < 0.1, found


def test_without_targets_there_is_none(tiny_model_dir: str) -> None:
    benchmark = load_task("arithmetic").benchmark("standard", 1)
    assert rounding_noise(load_model(tiny_model_dir, torch.float32), byte_tokenizer(), benchmark) is None


@pytest.fixture
def whole(tiny_model_dir: str, tmp_path: Path) -> str:
    """A student all of whose weights were trained, by less than bf16 shows."""
    model = tiny_model("llama", max_position_embeddings=2048)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1 + 1e-4)
    return str(save_student(model, tmp_path / "whole", tiny_model_dir))


def scored(name: str, folder: Path, student: str, **settings: Any) -> BenchmarkCallback:
    callback = BenchmarkCallback(["letters"], limit=3, adapter=student, **settings)
    known = {"model_name_or_path": name, "store": ArtifactStore(folder), "trained_task": "letters", "method": "spd"}
    callback.suite.enter(replace(callback.suite.context, **known))
    callback.score_all()
    return callback


def test_students_without_an_adapter(
    tiny_model_dir: str, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto scores base and student in float32; bfloat16 by name says what is lost, also from the store."""
    monkeypatch.setattr("spd_lightning.model.load._cpu_has_fast_bf16", lambda: True)
    auto = scored(tiny_model_dir, tmp_path / "store", whole)
    assert {name: f["dtype"] for name, f in auto.facts.items()} == dict.fromkeys(
        ("letters.base", "letters.spd"), "float32"
    )
    assert not any("update_kept" in f for f in auto.facts.values())
    for _ in range(2):
        cast = scored(tiny_model_dir, tmp_path / "store", whole, dtype="bfloat16").facts
        assert {f["dtype"] for f in cast.values()} == {"bfloat16"}
        assert cast["letters.spd"]["update_kept"] < 1.2 and "update_kept" not in cast["letters.base"]
        assert "rounding" in cast["letters.base"] and "rounding" not in cast["letters.spd"]
    assert cast["letters.spd"]["from_store"]
    module = SPDFineTuningModule(tiny_model_dir, lora_r=None)
    assert BenchmarkCallback(["letters"]).suite.base(occasion(None, module)).dtype == torch.float32
    adapted = occasion(None, SPDFineTuningModule(tiny_model_dir))
    assert BenchmarkCallback(["letters"]).suite.base(adapted).dtype == torch.bfloat16


def test_the_report_names_dtype_noise_and_what_is_lost(tmp_path: Path) -> None:
    benchmarks = {
        "gsm8k.base": {
            "dtype": "bfloat16",
            "rounding": {"nats_per_token": 0.0031, "examples": 16, "batch_sizes": [1, 16]},
        },
        "gsm8k.spd": {"dtype": "bfloat16", "update_kept": 0.021},
        "bbh:paper.base": {"dtype": "float32"},
    }
    run: Any = SimpleNamespace(results={"benchmarks": benchmarks})
    text = render_markdown("title", arithmetic_blocks(run), tmp_path)
    assert "Computed in bfloat16: base, spd." in text and "Computed in float32: base." in text
    assert "(bfloat16, batches of 1 and 16): gsm8k 3.1e-03 nats a token (16 examples)" in text
    assert "its dtype keeps 2.1% of what they learned" in text
    assert arithmetic_blocks(SimpleNamespace(results={})) == []  # type: ignore[arg-type]
