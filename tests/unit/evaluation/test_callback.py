"""The callback alone under a Trainer, as a notebook uses it, and with what the command line attaches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.evaluation import models as models_module
from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.evaluation.context import Occasion, RunContext
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.student import save_adapter
from spd_lightning.model.load import load_model


class Student(LightningModule):
    """A LoRA student with the attributes that the callback reads; every step moves its adapter a lot."""

    def __init__(self, model_name_or_path: str) -> None:
        super().__init__()
        self.save_hyperparameters()
        base = load_model(model_name_or_path, torch.float32)
        self.model = add_lora(base, 2, 8, 0.0, None, 0, model_name_or_path)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.model(input_ids=batch, labels=batch).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=10.0)


def fit(callback: BenchmarkCallback, model_dir: str, folder: Path, **trainer: Any) -> tuple[Trainer, Student]:
    module = Student(model_dir)
    settings: dict[str, Any] = {
        "max_epochs": 2, "accelerator": "cpu", "devices": 1, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder, "logger": False,
        "callbacks": [callback], **trainer,
    }  # fmt: skip
    run = Trainer(**settings)
    data = torch.randint(0, 255, (4, 12), generator=torch.Generator().manual_seed(0))
    run.fit(module, DataLoader(data, batch_size=2))
    return run, module


@pytest.mark.filterwarnings("ignore")
def test_alone_in_a_notebook(tiny_model_dir: str, tmp_path: Path) -> None:
    callback = BenchmarkCallback(["letters"], limit=7, dtype="float32")
    _, module = fit(callback, tiny_model_dir, tmp_path)
    assert [(r["method"], r["n"], r["split"]) for r in callback.score_rows] == [("base", 7, None), ("student", 7, None)]
    (row,) = callback.comparison_rows
    assert (row["a"], row["b"], row["n"], row["test"]) == ("base", "student", 7, "mcnemar_exact")
    base, student = (r.records for r in callback.results)
    assert base != student, "the student must be scored with its adapter"
    assert callback.not_run == []
    assert set(callback.facts) == {"letters.base", "letters.student"}
    assert not list(tmp_path.rglob("*.jsonl")), "nothing is written where no run folder is attached"
    assert any(p.requires_grad for p in module.parameters()), "scoring leaves the student trainable"


@pytest.mark.filterwarnings("ignore")
def test_attached_to_a_run(tiny_model_dir: str, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")

    def run(name: str, limit: int = 5) -> BenchmarkCallback:
        callback = BenchmarkCallback(["letters:easy", "arithmetic"], limit=limit, dtype="float32", batch_size=4)
        callback.suite.enter(
            RunContext(
                trained_task="letters", method="spd", samples=tmp_path / name / "samples", store=store, seed=1,
                model_name_or_path=tiny_model_dir,
            )
        )  # fmt: skip
        logger = CSVLogger(tmp_path / name, name="logs")
        fit(callback, tiny_model_dir, tmp_path, logger=logger, log_every_n_steps=1)
        return callback

    first = run("one")
    samples = tmp_path / "one" / "samples"
    assert sorted(p.name for p in samples.iterdir()) == [
        "arithmetic.base.jsonl", "arithmetic.spd.jsonl", "letters_easy.base.jsonl", "letters_easy.spd.jsonl",
    ]  # fmt: skip
    row = json.loads((samples / "letters_easy.base.jsonl").read_text().splitlines()[0])
    assert list(row) == ["id", "sample", "prompt", "completion", "answer", "expected", "correct", "reason", "scores"]
    assert {(r["task"], r["split"]) for r in first.score_rows} == {("letters:easy", "in"), ("arithmetic", "out")}
    logged = next((tmp_path / "one" / "logs").rglob("metrics.csv")).read_text().splitlines()[0]
    for name in ("eval/letters:easy/acc", "eval_base/letters:easy/acc", "eval/arithmetic/exact_match_strict"):
        assert name in logged
    second = run("two")
    assert [r.facts.get("from_store", False) for r in second.results] == [True, True, False, False]
    assert [r["value"] for r in second.score_rows] == [r["value"] for r in first.score_rows]
    assert not any(r.facts.get("from_store") for r in run("three", limit=4).results)


@pytest.mark.filterwarnings("ignore")
def test_every_n_steps_and_epochs(tiny_model_dir: str, tmp_path: Path) -> None:
    by_steps = BenchmarkCallback(
        ["letters"], limit=2, dtype="float32", methods=["student"], every_n_steps=1, every_n_epochs=1, when=[]
    )
    trainer, _ = fit(by_steps, tiny_model_dir, tmp_path)
    assert [r.method for r in by_steps.results] == ["student"] * 4, "4 steps; an epoch's end is not scored twice"
    assert trainer.callback_metrics["eval/letters/acc"] == pytest.approx(by_steps.score_rows[0]["value"])
    by_epochs = BenchmarkCallback(["letters"], limit=2, dtype="float32", methods=["student"], every_n_epochs=2)
    fit(by_epochs, tiny_model_dir, tmp_path)
    assert len(by_epochs.results) == 2, "after epoch 2, and after training"


@pytest.mark.filterwarnings("ignore")
def test_scoring_does_not_change_the_training(tiny_model_dir: str, tmp_path: Path) -> None:
    def weights(*callbacks: Any) -> list[torch.Tensor]:
        torch.manual_seed(5)
        module = Student(tiny_model_dir)
        trainer = Trainer(
            max_steps=4, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, callbacks=list(callbacks),
        )  # fmt: skip
        data = torch.randint(0, 255, (8, 12), generator=torch.Generator().manual_seed(0))
        trainer.fit(module, DataLoader(data, batch_size=2, shuffle=True))
        return [p.detach() for p in module.parameters() if p.requires_grad]

    plain = weights()
    scored = weights(BenchmarkCallback(["letters"], limit=2, dtype="float32", every_n_steps=2))
    assert all(torch.equal(a, b) for a, b in zip(plain, scored, strict=True))


def test_an_adapter_folder_without_a_trainer(tiny_model_dir: str, tmp_path: Path) -> None:
    adapted = add_lora(load_model(tiny_model_dir, torch.float32), 2, 8, 0.0, None, 0, tiny_model_dir)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_adapter(adapted, tmp_path / "adapter")
    callback = BenchmarkCallback(["letters"], limit=3, dtype="float32", adapter=str(tmp_path / "adapter"))
    callback.suite.enter(replace(callback.suite.context, model_name_or_path=tiny_model_dir))
    callback.score_all()
    assert [r["method"] for r in callback.score_rows] == ["base", "student"]
    assert callback.results[0].records != callback.results[1].records


def test_projected_uses_the_subspace_and_the_store(tiny_model_dir: str, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from contextlib import contextmanager

    path = tmp_path / "subspace.safetensors"
    path.write_bytes(b"first")
    folded = []

    @contextmanager
    def fold(model, subspace):  # type: ignore[no-untyped-def]
        folded.append("in")
        torch.nn.init.normal_(model.get_output_embeddings().weight)
        yield model
        folded.append("out")

    monkeypatch.setattr(models_module, "fold_projection", fold)
    monkeypatch.setattr(models_module.CapabilitySubspace, "load", lambda source: source)

    def run() -> BenchmarkCallback:
        callback = BenchmarkCallback(["letters"], limit=3, dtype="float32", methods=["base", "projected"])
        store = ArtifactStore(tmp_path / "store")
        callback.suite.enter(RunContext(model_name_or_path=tiny_model_dir, store=store, subspace=path))
        callback.score_all()
        return callback

    first = run()
    assert folded == ["in", "out"]
    assert [r["method"] for r in first.score_rows] == ["base", "projected"]
    assert first.results[0].records != first.results[1].records
    assert all(r.facts["from_store"] for r in run().results)
    path.write_bytes(b"second")
    assert [r.facts.get("from_store", False) for r in run().results] == [True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["basis"]}, "Unknown entry of evaluation.methods 'basis'. Did you mean 'base'"),
        ({"when": ["befor"]}, "Unknown entry of evaluation.when 'befor'. Did you mean 'before'"),
        ({"every_n_steps": 0}, "every_n_steps=0"),
        ({"limit": -1}, "limit=-1"),
        ({"limit": {"humanevl": 2}}, "Unknown task in limit 'humanevl'. Did you mean 'humaneval'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"repetition_penalty": -1.0}, "repetition_penalty=-1.0"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"timeout_s": -1.0}, "timeout_s=-1.0 would fail every program"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BenchmarkCallback(["letters"], **settings)


def test_wrong_names_are_told_before_any_work() -> None:
    with pytest.raises(UserError, match=r"Unknown task 'leters'\. Did you mean 'letters'"):
        BenchmarkCallback(["leters"]).setup(None, None, "fit")  # type: ignore[arg-type]
    for subspace, message in ((None, "there is no subspace"), ("/no/file", "subspace='/no/file': there is no such")):
        with pytest.raises(UserError, match=message):
            BenchmarkCallback(["letters"], methods=["projected"], subspace=subspace).setup(None, None, "fit")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="adapter='/no/folder': there is no such folder"):
        BenchmarkCallback(["letters"], adapter="/no/folder").setup(None, None, "test")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no tasks are named"):
        BenchmarkCallback().suite.benchmarks()
    callback = BenchmarkCallback()
    callback.suite.enter(RunContext(trained_task="letters"))
    assert [b.task for b in callback.suite.benchmarks()] == ["letters"]
    with pytest.raises(UserError, match="base model is not known"):
        callback.score_all()
    callback.suite.enter(RunContext(trained_task="letters", model_name_or_path="x"))
    with pytest.raises(UserError, match="there is no subspace"):
        callback.suite.score_projected(Occasion())
