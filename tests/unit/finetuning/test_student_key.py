"""What a student's key covers: everything that changes its weights, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.student_key import StudentStore, same_student, student_key
from spd_lightning.finetuning.texts import TrainingText

TRAINER = {
    "max_epochs": 5,
    "precision": None,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 1.0,
    "callbacks": None,
    "devices": "auto",
    "log_every_n_steps": 1,
}


def key(**changes: Any) -> dict[str, Any]:
    hparams = {**SPDFineTuningModule("tiny").hparams, **changes.pop("model", {})}
    trainer = {**TRAINER, **changes.pop("trainer", {})}
    texts = (TrainingText("a:0", (1, 2), (3,)), TrainingText("b:0", (1, 2), (4,)))
    rest: dict[str, Any] = {"base": "base", "corpus": "corpus", "train": texts, "val": (), "processes": 1}
    rest |= {k: v for k, v in changes.items() if k != "evaluation"}
    options = {"trainer": trainer, "evaluation": changes.get("evaluation", {"limit": 5})}
    return student_key(hparams=hparams, options=options, **rest)


STOP = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}
BEST = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "eval/gsm8k/exact_match_flexible"}}


@pytest.mark.parametrize(
    "change",
    [
        {"base": "other"},
        {"corpus": "other"},
        {"train": (TrainingText("a:0", (1, 2), (3, 257)),)},
        {"train": (TrainingText("a:0", (1, 9), (3,)), TrainingText("b:0", (1, 2), (4,)))},
        {"val": (TrainingText("c:0", (1,), (2,)),)},
        {"continued_from": "checkpoint"},
        {"processes": 2},
        *({"model": {n: v}} for n, v in {"learning_rate": 1.0, "lora_r": None, "seed": 1, "packing": True}.items()),
        *({"model": {n: v}} for n, v in {"loss_on": "completion", "target_modules": ["q_proj"]}.items()),
        *({"trainer": {n: v}} for n, v in {"max_epochs": 1, "max_steps": 9, "precision": "bf16-mixed"}.items()),
        *({"trainer": {n: v}} for n, v in {"accumulate_grad_batches": 2, "gradient_clip_val": None}.items()),
        *({"trainer": {n: v}} for n, v in {"limit_train_batches": 2, "callbacks": [STOP]}.items()),
    ],
    ids=str,
)
def test_what_changes_weights_is_another_student(change: dict[str, Any]) -> None:
    assert key(**change) != key()


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"rounds": 2}},
        {"model": {"model_name_or_path": "elsewhere"}},
        {"evaluation": {"limit": 7}},
        *({"trainer": {n: v}} for n, v in {"devices": 2, "logger": False, "log_every_n_steps": 9}.items()),
        *({"trainer": {n: v}} for n, v in {"accelerator": "gpu", "enable_progress_bar": False}.items()),
    ],
    ids=str,
)
def test_what_does_not_is_the_same(change: dict[str, Any]) -> None:
    assert key(**change) == key()


def test_the_number_of_processes_counts_only_where_dropout_is_drawn() -> None:
    for none in ({"lora_dropout": 0.0}, {"lora_r": None}):
        assert key(model=none, processes=2) == key(model=none)
    assert same_student(key(processes=2)) == same_student(key()), "a run may go on elsewhere"


def test_scores_count_where_a_callback_watches_them() -> None:
    watched = {"trainer": {"callbacks": [BEST]}}
    assert key(**watched, evaluation={"limit": 7}) != key(**watched)
    watched = {"trainer": {"callbacks": [STOP]}}
    assert key(**watched, evaluation={"limit": 7}) == key(**watched)


def test_a_student_that_is_not_whole_is_not_there(tmp_path: Path) -> None:
    stored = StudentStore(ArtifactStore(tmp_path), key())

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"weights")

    def fail(folder: Path) -> None:
        write(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        stored.keep(fail, 3, {})
    assert not stored.has()
    stored.keep(write, 3, {"texts": 4, "cut": 0, "left_out": 1})
    assert stored.has() and stored.facts()["step"] == 3
    (stored.path / "adapter_model.safetensors").write_bytes(b"wrights")
    assert not stored.has()
