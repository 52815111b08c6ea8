"""Fine-tuning that is interrupted equals fine-tuning that is not; two processes equal one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from spd_lightning.errors import UserError
from spd_lightning.finetuning.lora import AdapterDropout
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.optimiser import cosine_factor
from tests.conftest import byte_tokenizer, tiny_model
from tests.settings import PYTHONPATH
from tests.unit.finetuning.test_module import Texts, fit, trained

SETTINGS: dict[str, Any] = {"learning_rate": 1e-2, "lora_dropout": 0.3}


def same_state(one: Any, other: Any) -> bool:
    """Whether two optimiser states are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same_state(a, b) for a, b in zip(one, other))
    return bool(one == other)


def run(model: str, accumulate: int, ckpt: str | None = None, **settings: Any) -> tuple[SPDFineTuningModule, Trainer]:
    """10 texts by 4 are 3 steps an epoch, 9 in all."""
    module, data = SPDFineTuningModule(model, **SETTINGS), Texts(10, 4, accumulate=accumulate, val=2)
    return fit(model, module, data, ckpt, accumulate_grad_batches=accumulate, max_epochs=3, **settings)


@pytest.fixture(scope="module", params=[1, 2])
def straight_run(
    request: pytest.FixtureRequest, tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, SPDFineTuningModule, Trainer, Path]:
    """How many batches are a step, a run without interruption, and the checkpoints of another after every step."""
    folder = tmp_path_factory.mktemp("steps")
    torch.manual_seed(0)
    straight, trainer = run(tiny_model_dir, request.param)
    saver = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    run(tiny_model_dir, request.param, callbacks=[saver], enable_checkpointing=True)
    return request.param, straight, trainer, folder


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 5])
def test_resumed_run_equals_straight_run(
    straight_run: tuple[int, SPDFineTuningModule, Trainer, Path],
    tiny_model_dir: str,
    stop_at: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Steps 1, 2, 4, 5 stop within an epoch, step 3 at its end."""
    accumulate, straight, straight_trainer, folder = straight_run
    torch.manual_seed(12345)  # a resumed process starts from any random state
    with caplog.at_level("INFO"):
        resumed, resumed_trainer = run(tiny_model_dir, accumulate, str(folder / f"step={stop_at}.ckpt"))
    assert f"Continuing from optimiser step {stop_at} of 9" in caplog.text
    assert resumed_trainer.global_step == straight_trainer.global_step == 9
    one, other = trained(straight), trained(resumed)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert same_state(straight_trainer.optimizers[0].state_dict(), resumed_trainer.optimizers[0].state_dict())


class Masks(Callback):
    """What the first adapter's dropout would make of a fixed input, at every training step."""

    def __init__(self) -> None:
        self.seen: dict[int, bytes] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        first = next(m for m in pl_module.modules() if isinstance(m, AdapterDropout))

        def note(module: Any, args: Any) -> None:
            if module.training:
                with torch.random.fork_rng(devices=[]):
                    mask = module.forward(torch.ones(64, 32)) != 0
                self.seen.setdefault(trainer.global_step, mask.numpy().tobytes())

        first.register_forward_pre_hook(note)


def test_dropout_masks_differ_by_step_and_seed_and_are_those_of_the_straight_run(
    tiny_model_dir: str, tmp_path: Path
) -> None:
    def run(seed: int, ckpt: Any = None, **settings: Any) -> dict[int, bytes]:
        masks = Masks()
        module = SPDFineTuningModule(tiny_model_dir, **SETTINGS, seed=seed)
        callbacks = [masks, *settings.pop("callbacks", [])]
        fit(tiny_model_dir, module, Texts(96, 4), ckpt, callbacks=callbacks, **settings)
        return masks.seen

    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=9, save_top_k=-1)
    straight = run(42, callbacks=[saver], enable_checkpointing=True)
    other = run(43)
    assert sorted(straight) == sorted(other) == list(range(24))
    assert len({*straight.values(), *other.values()}) == 48
    torch.manual_seed(7)
    resumed = run(42, str(tmp_path / "step=9.ckpt"))
    assert resumed == {step: mask for step, mask in straight.items() if step >= 9}


def test_resume_from_the_end_of_an_epoch_cut_short(tiny_model_dir: str, tmp_path: Path) -> None:
    """limit_train_batches leaves the loader in the middle of its pass; the next epoch still begins a new one."""

    def run(max_epochs: int, ckpt: Any = None, **settings: Any) -> SPDFineTuningModule:
        module = SPDFineTuningModule(tiny_model_dir, **SETTINGS, warmup_epochs=0)
        limited = {"limit_train_batches": 2, "max_epochs": max_epochs, **settings}
        return fit(tiny_model_dir, module, Texts(10, 4), ckpt, **limited)[0]

    straight = trained(run(3))
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    run(3, callbacks=[saver], enable_checkpointing=True)
    resumed = trained(run(3, str(tmp_path / "epoch=0.ckpt")))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.fixture(scope="module")
def checkpoint(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    saver = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)
    module = SPDFineTuningModule(tiny_model_dir, **SETTINGS)
    fit(tiny_model_dir, module, callbacks=[saver], enable_checkpointing=True)
    return folder / "last.ckpt"


def test_checkpoint_holds_trained_weights_and_optimiser_only(checkpoint: Path, tiny_model_dir: str) -> None:
    content = torch.load(checkpoint, weights_only=True)
    assert len(content["state_dict"]) == 16 and all("lora_" in name for name in content["state_dict"])
    assert checkpoint.stat().st_size < 100_000
    assert content["spd"]["lora_r"] == 8 and content["spd"]["target_modules"] == [
        "k_proj",
        "o_proj",
        "q_proj",
        "v_proj",
    ]
    loaded = SPDFineTuningModule.load_from_checkpoint(checkpoint, weights_only=True)
    assert all(torch.equal(content["state_dict"][name], value) for name, value in trained(loaded).items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_r": 4}, "made with lora_r=8, this run has lora_r=4"),
        ({"lora_alpha": 16}, "made with lora_alpha=8, this run has lora_alpha=16"),
        (
            {"target_modules": ["q_proj"]},
            r"made with target_modules=\['k_proj', .*this run has target_modules=\['q_proj'\]",
        ),
        ({"lora_r": None}, "made with lora_r=8, this run has lora_r=None"),
    ],
)
def test_checkpoint_of_another_adapter_is_refused(
    tiny_model_dir: str, checkpoint: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit(tiny_model_dir, SPDFineTuningModule(tiny_model_dir, **{**SETTINGS, **change}), ckpt=str(checkpoint))


def test_checkpoint_of_another_base_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    tiny_model(seed=1).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"made with base=.*tiny-llama, this run has base={tmp_path}"):
        fit(str(tmp_path), SPDFineTuningModule(str(tmp_path), **SETTINGS), ckpt=str(checkpoint))


def test_checkpoint_of_another_corpus_or_batch_size_is_refused(tiny_model_dir: str, checkpoint: Path) -> None:
    for data, message in ((Texts(10, 2), "batch_size=4, this run has batch_size=2"), (Texts(9, 4), "num_texts=10")):
        with pytest.raises(UserError, match=message):
            fit(tiny_model_dir, SPDFineTuningModule(tiny_model_dir, **SETTINGS), data, str(checkpoint), max_epochs=2)


def test_foreign_checkpoint_is_refused(tiny_model_dir: str, checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    without = {k: v for k, v in content.items() if k != "spd"}
    torch.save(without, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="not written by SPDFineTuningModule"):
        fit(tiny_model_dir, SPDFineTuningModule(tiny_model_dir, **SETTINGS), ckpt=str(tmp_path / "foreign.ckpt"))
    name = next(iter(content["state_dict"]))
    content["state_dict"]["renamed"] = content["state_dict"].pop(name)
    torch.save(content, tmp_path / "renamed.ckpt")
    with pytest.raises(UserError, match="this run's 16 trained weights; 2 differ"):
        fit(tiny_model_dir, SPDFineTuningModule(tiny_model_dir, **SETTINGS), ckpt=str(tmp_path / "renamed.ckpt"))


SCRIPT = """
import json, sys, torch
from lightning.pytorch import Trainer
from spd_lightning.finetuning.lora import AdapterDropout
from spd_lightning.finetuning.module import SPDFineTuningModule
from tests.unit.finetuning.test_module import Texts

def train(model, devices, accumulate):
    module = SPDFineTuningModule(model, learning_rate=1e-2, lora_dropout=0.0)
    module.configure_model()
    module.model.double()
    trainer = Trainer(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_epochs=2,
                      logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, gradient_clip_val=1.0, accumulate_grad_batches=accumulate,
                      use_distributed_sampler=False)
    trainer.fit(module, Texts(7, 3, val=3, accumulate=accumulate))
    metrics = {k: float(trainer.callback_metrics[k]) for k in ("train/loss", "val/loss")}
    return trainer, {"weights": {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}, **metrics}


if __name__ == "__main__":
    for accumulate in (1, 2):
        trainer, result = train(sys.argv[1], 2, accumulate)
        if trainer.is_global_zero:
            torch.save(result, f"{sys.argv[2]}-{accumulate}.pt")
"""


@pytest.mark.ddp
def test_two_processes_equal_one(tiny_model_dir: str, tmp_path: Path) -> None:
    """7 texts by 3: the last batch of an epoch is one text, so one process has an empty share.

    In float64, since Adam divides by the gradient's size: in float32 an entry whose gradient is rounding noise may move
    by up to a learning rate.
    """
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, str(script), tiny_model_dir, str(tmp_path / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    names: dict[str, Any] = {"__name__": "one process"}
    exec(compile(SCRIPT, str(script), "exec"), names)
    _, one = names["train"](tiny_model_dir, 1, 1)
    for other in (torch.load(tmp_path / f"two-{accumulate}.pt", weights_only=True) for accumulate in (1, 2)):
        assert other["train/loss"] == pytest.approx(one["train/loss"], rel=1e-6)
        assert other["val/loss"] == pytest.approx(one["val/loss"], rel=1e-6)
        for name, value in one["weights"].items():
            torch.testing.assert_close(other["weights"][name], value, rtol=1e-8, atol=1e-10)


def test_rates_that_the_user_typed_are_not_overridden(
    tiny_model_dir: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Lightning restores an optimiser with its rates; the checkpoint's must not win over the command line's."""
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fit(
        tiny_model_dir,
        SPDFineTuningModule(tiny_model_dir, **SETTINGS, weight_decay=0.1),
        callbacks=[saver],
        enable_checkpointing=True,
    )
    rates: list[tuple[float, float]] = []

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
            rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]))

    typed = SPDFineTuningModule(tiny_model_dir, **{**SETTINGS, "learning_rate": 3e-3}, weight_decay=0.2)
    with caplog.at_level("INFO"):
        fit(tiny_model_dir, typed, ckpt=str(tmp_path / "step=2.ckpt"), callbacks=[Rates()], max_epochs=2)
    # 3 steps an epoch: warm-up 2, the step in hand from the schedule of one epoch, the rest from that of two
    factors = [cosine_factor(2, 2, 3), *(cosine_factor(step, 2, 6) for step in (3, 4, 5))]
    assert rates == [(pytest.approx(3e-3 * factor), 0.2) for factor in factors]
    assert "learning_rate: 0.01 in the checkpoint, 0.003 now; 0.003 is used." in caplog.text
    assert "weight_decay: 0.1 in the checkpoint, 0.2 now; 0.2 is used." in caplog.text
