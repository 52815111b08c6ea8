"""Models as sources: what each is loaded from, and which of them the store may know again."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from spd_lightning.errors import UserError
from spd_lightning.evaluation.models import Base, base_of, base_source, student_source
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.student import save_adapter
from spd_lightning.model.load import load_model

CPU = torch.device("cpu")


def find(name: str | None, wanted: Any = "auto", **more: Any) -> tuple[Base, list[str]]:
    said: list[str] = []
    return base_of(name, wanted, CPU, None, **{"adapter": None, "hparams": None, "say": said.append} | more), said


def test_all_weights_trained_means_float_32_for_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spd_lightning.model.load._cpu_has_fast_bf16", lambda: True)
    assert find("m") == (Base("m", torch.bfloat16, CPU), [])
    assert find("m", hparams={"lora_r": 8})[0].dtype == torch.bfloat16
    base, said = find(None, hparams={"lora_r": None, "model_name_or_path": "m"})
    assert base == Base("m", torch.float32, CPU) and "scored in float32" in said[0]
    assert find("m", "bfloat16", hparams={"lora_r": None}) == (Base("m", torch.bfloat16, CPU), [])
    with pytest.raises(UserError, match="base model is not known"):
        find(None, hparams={})


def test_what_scores_depend_on(tiny_model_dir: str, tmp_path: Path) -> None:
    base = Base(tiny_model_dir, torch.float32, CPU)
    live = add_lora(load_model(tiny_model_dir, torch.float32), 2, 8, 0.0, None, 0, tiny_model_dir)
    save_adapter(live, tmp_path / "adapter")
    plain, folder = base_source(base).key, student_source(base, tmp_path / "adapter").key
    assert plain is not None and folder is not None
    assert plain() == base.key() and folder() == base.key(adapter=folder()["adapter"])
    assert plain()["dtype"] == "float32"
    assert student_source(base, None, live).key is None, "a live model is never seen again"


def test_a_live_student_is_scored_as_a_copy(tiny_model_dir: str) -> None:
    base = Base(tiny_model_dir, torch.float32, CPU)
    live = load_model(tiny_model_dir, torch.float32)
    with ExitStack() as stack:
        model, _ = student_source(base, None, live).load(stack, {})
        assert model is not live and torch.equal(model.lm_head.weight, live.lm_head.weight)
        with pytest.raises(UserError, match="no trained model to score"):
            student_source(base, None).load(stack, {})
