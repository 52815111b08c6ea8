"""AdamW's groups and the schedule, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spd_lightning.errors import UserError
from spd_lightning.finetuning.optimiser import cosine_factor, finite_steps, make_optimiser, make_schedule


def test_matrices_decay_and_norms_and_biases_do_not() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    model[2].requires_grad_(False)
    groups = make_optimiser(model, 0.5, 0.1).param_groups
    assert [(len(g["params"]), g["weight_decay"], g["lr"]) for g in groups] == [(1, 0.1, 0.5), (3, 0.0, 0.5)]
    assert len(make_optimiser(nn.Linear(3, 2, bias=False), 0.5, 0.1).param_groups) == 1, "no group is empty"


def test_the_warm_up_ends_within_the_training() -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule(optimiser, warmup_epochs=0.5, steps_per_epoch=4, total_steps=6)
    seen = []
    for _ in range(6):
        seen.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert seen == pytest.approx([cosine_factor(step, 2, 6) for step in range(6)])
    assert seen[:3] == [0.0, 0.5, 1.0] and schedule.get_last_lr()[0] == pytest.approx(0.0)
    assert make_schedule(optimiser, 9.0, 4, 6).lr_lambdas[0](5) == 5 / 6, "no longer than there are steps"


def test_a_schedule_without_an_end_is_refused() -> None:
    assert finite_steps(12.0, 3) == 12
    with pytest.raises(UserError, match=r"max_epochs=-1 has none. Set --trainer.max_epochs"):
        finite_steps(float("inf"), -1)
