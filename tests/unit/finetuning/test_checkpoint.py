"""What a checkpoint is refused for, and which typed rates go before its own; on plain values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from spd_lightning.errors import UserError
from spd_lightning.finetuning.checkpoint import keep_typed_rates, last_checkpoint, refuse_other, refuse_other_weights

HERE = {"base": "f1", "lora_r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]}


def test_another_base_or_shape_is_named() -> None:
    saved = {**HERE, "model_name_or_path": "there"}
    refuse_other(saved, HERE, "here")
    with pytest.raises(UserError, match="not written by SPDFineTuningModule"):
        refuse_other(None, HERE, "here")
    with pytest.raises(UserError, match=r"base=there, this run has base=here .* Set --subspace.model_name_or_path"):
        refuse_other({**saved, "base": "f2"}, HERE, "here")
    with pytest.raises(UserError, match=r"lora_r=4, this run has lora_r=8 .* Set --model.lora_r"):
        refuse_other({**saved, "lora_r": 4}, HERE, "here")


def test_other_weights_are_named() -> None:
    module = nn.Linear(3, 2)
    refuse_other_weights(module, None)
    refuse_other_weights(module, module.state_dict())
    with pytest.raises(UserError, match=r"this run's 2 trained weights; 1 differ, first weight"):
        refuse_other_weights(module, {**module.state_dict(), "weight": torch.zeros(2, 4)})
    with pytest.raises(UserError, match="1 differ, first bias"):
        refuse_other_weights(module, {"weight": module.weight})


def test_typed_rates_go_before_those_of_the_checkpoint() -> None:
    groups = [{"weight_decay": d, "initial_lr": 0.5, "lr": 0.125} for d in (0.01, 0.0)]
    checkpoint: dict[str, Any] = {
        "hyper_parameters": {"learning_rate": 0.5, "weight_decay": 0.01},
        "optimizer_states": [{"param_groups": groups}],
        "lr_schedulers": [{"base_lrs": [0.5, 0.5]}],
    }
    assert keep_typed_rates(checkpoint, {"learning_rate": 0.5, "weight_decay": 0.01}) == []
    said = keep_typed_rates(checkpoint, {"learning_rate": 1.0, "weight_decay": 0.5})
    assert said[0] == "learning_rate: 0.5 in the checkpoint, 1.0 now; 1.0 is used." and len(said) == 2
    assert [(g["weight_decay"], g["initial_lr"], g["lr"]) for g in groups] == [(0.5, 1.0, 0.25), (0.0, 1.0, 0.25)]
    assert checkpoint["lr_schedulers"] == [{"base_lrs": [1.0, 1.0]}]


def test_the_last_checkpoint_is_named_for_a_message() -> None:
    assert last_checkpoint([SimpleNamespace(last_model_path="")]) == "none was written yet"
    assert last_checkpoint([object(), SimpleNamespace(last_model_path="", best_model_path="b")]) == "b"
