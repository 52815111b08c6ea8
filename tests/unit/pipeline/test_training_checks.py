"""What the trainer's options make of stage 3; what is told before stage 1 is in test_preflight.py."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from spd_lightning.errors import UserError
from spd_lightning.pipeline.training_checks import check_training, end_of_training, refusals_told

TRAINER = {
    **{"max_epochs": 5, "max_steps": -1, "max_time": None, "fast_dev_run": False, "limit_train_batches": None},
    **{"overfit_batches": 0.0, "val_check_interval": None, "check_val_every_n_epoch": 1, "limit_val_batches": None},
    **{"accumulate_grad_batches": 2, "callbacks": None},
}


def parts(texts: int = 10, keep: str = "all", val_fraction: float = 0.0, midway: int | None = None) -> Any:
    questions = SimpleNamespace(requests=[None] * texts, num_generations=2)
    return SimpleNamespace(
        data=SimpleNamespace(recipe=SimpleNamespace(questions=questions), keep=keep, val_fraction=val_fraction),
        student=SimpleNamespace(hparams={"batch_size": 4}),
        benchmarks=SimpleNamespace(every_n_steps=midway, every_n_epochs=None),
    )


@pytest.mark.parametrize(
    ("options", "made", "said"),
    [
        ({"max_time": {"seconds": 0}}, {}, r"max_time=\{'seconds': 0\} is no time"),
        ({"max_time": timedelta()}, {}, "is no time"),
        ({"max_epochs": -1}, {}, "max_epochs=-1 without trainer.max_steps is a training without an end"),
        ({"overfit_batches": 0.1}, {}, "overfit_batches=0.1 of the 6 batches of an epoch is none"),
        ({"limit_train_batches": 0.2}, {"keep": "majority"}, "0.2 of the 4 batches of an epoch is none"),
        ({"limit_train_batches": 2, "val_check_interval": 3}, {}, "val_check_interval=3 is more than the 2 batches"),
        ({"limit_val_batches": 0}, {"val_fraction": 0.2}, "trainer.limit_val_batches=0 never validates on them"),
        ({"callbacks": [ModelCheckpoint(monitor="val/loss")]}, {}, "ModelCheckpoint monitors 'val/loss'"),
        ({"callbacks": EarlyStopping("eval/letters/acc")}, {}, "EarlyStopping monitors 'eval/letters/acc'"),
    ],
)
def test_what_is_no_training_is_refused(options: dict[str, Any], made: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_training({**TRAINER, **options}, parts(**made))


def test_what_can_be_trained_is_not() -> None:
    class Own(Callback):
        """May log what it monitors."""

        monitor = "mine"

    for options, made in [
        ({}, {}),
        ({"max_epochs": None, "max_steps": 7, "max_time": "00:00:00:01"}, {}),
        ({"limit_train_batches": 1.0, "val_check_interval": 6}, {"val_fraction": 0.1}),
        ({"limit_train_batches": 0.2}, {}),
        ({"val_check_interval": 60, "check_val_every_n_epoch": None}, {"val_fraction": 0.1}),
        ({"callbacks": [EarlyStopping("val/loss"), ModelCheckpoint(monitor="step")]}, {"val_fraction": 0.1}),
        ({"callbacks": EarlyStopping("eval/letters/acc")}, {"midway": 5}),
        ({"callbacks": [Own(), EarlyStopping("mine")]}, {}),
    ]:
        check_training({**TRAINER, **options}, parts(**made))


def test_what_lightning_refuses_at_the_start_of_a_training_is_a_mistake_of_the_user() -> None:
    with pytest.raises(UserError, match=r"options of the trainer: no logger\. Change"), refusals_told():
        raise MisconfigurationException("no\n logger.")


def test_what_cut_a_training_short_is_said() -> None:
    """One that `max_time` ended before its first step was scored as a student: the base under another name."""
    module: Any = SimpleNamespace(hparams={"warmup_epochs": 0.5})

    def ended(step: int, total: float = 9) -> dict[str, int]:
        trainer: Any = SimpleNamespace(estimated_stepping_batches=total, global_step=step)
        trainer.num_training_batches, trainer.accumulate_grad_batches = 12, 2
        return end_of_training(trainer, module)

    assert ended(9) == {} and ended(4) == {"steps": 4, "of_steps": 9}
    assert ended(3, 3) == {"warmup": 3, "in_steps": 3}
    with pytest.raises(UserError, match="before its first optimiser step, so the student would be the base"):
        ended(0)
