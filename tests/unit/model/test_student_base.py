"""A student is taken with the model it was trained on, and with no other one, wherever one is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spd_lightning import BenchmarkCallback
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.cli.program import main
from spd_lightning.errors import UserError
from spd_lightning.evaluation.context import RunContext
from spd_lightning.finetuning.export import RunFacts, export_adapter, export_merged
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.student import merged_copy, save_adapter, save_student, write_merged
from spd_lightning.model.load import load_model, load_student
from spd_lightning.model.source import model_fingerprint
from spd_lightning.model.student_base import check_base_of, other_base
from spd_lightning.pipeline.resume import check_checkpoint
from tests.conftest import byte_tokenizer, tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three models of equal shapes: a llama, one of other weights, and a qwen3."""
    root = tmp_path_factory.mktemp("bases")
    for name, kind, seed in (("llama", "llama", 0), ("other", "llama", 1), ("qwen3", "qwen3", 0)):
        tiny_model(kind, seed=seed).save_pretrained(root / name)
        byte_tokenizer().save_pretrained(root / name)
    return {path.name: str(path) for path in root.iterdir()}


@pytest.fixture
def adapter(models: dict[str, str], tmp_path: Path) -> Path:
    base = models["llama"]
    return save_adapter(
        add_lora(load_model(base, torch.float32), 4, 8, 0.05, None, 1, base), tmp_path / "run" / "adapter"
    )


def takers(student: Path, name: str, out: Path) -> dict[str, Any]:
    """Everything that takes a student."""
    facts, module = RunFacts(name, "spd", "gsm8k"), type("M", (), {"hparams": {}})()
    callback = BenchmarkCallback(["arithmetic"], limit=1)
    callback.suite.enter(RunContext(adapter=student, model_name_or_path=name))
    return {
        "score": lambda: callback.setup(None, module, "test"),  # type: ignore[arg-type]
        "copy": lambda: load_student(name, student, torch.float32),
        "merge": lambda: merged_copy(name, student),
        "round": lambda: write_merged(name, student, out / "round"),
        "export adapter": lambda: export_adapter(student, out / "a", facts),
        "export merged": lambda: export_merged(student, out / "m", facts),
    }


@pytest.mark.parametrize("base", ["other", "qwen3"])
@pytest.mark.parametrize("what", ["score", "copy", "merge", "round", "export adapter", "export merged"])
def test_an_adapter_of_another_model_is_refused(
    what: str, base: str, adapter: Path, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("finetuning.student", "finetuning.export", "evaluation.models", "model.load"):
        monkeypatch.setattr(
            f"spd_lightning.{place}.load_model", lambda *args, **more: pytest.fail("weights were loaded")
        )
    with pytest.raises(
        UserError,
        match=rf"was trained on .*llama, not on .*{base}: .*Set model_name_or_path .--subspace.model_name_or_path",
    ):
        takers(adapter, models[base], tmp_path)[what]()


def test_its_own_base_is_taken_by_name_by_content_and_from_another_place(
    adapter: Path, models: dict[str, str], tmp_path: Path
) -> None:
    copy = shutil.copytree(models["llama"], tmp_path / "elsewhere")
    for name in (models["llama"], str(copy)):
        check_base_of(adapter, name)
    config = adapter / "adapter_config.json"
    text = json.loads(config.read_text())
    rows: list[tuple[str | None, bool]] = [("someone/llama", True), ("/gone/llama/", True), ("someone/mistral", False)]
    for named, taken in (*rows, (None, True), ("", True)):
        config.write_text(json.dumps({**text, "base_model_name_or_path": named}))
        assert (other_base(adapter, models["llama"]) is None) is taken, named


def test_the_record_of_a_run_goes_before_the_name(adapter: Path, models: dict[str, str]) -> None:
    record = adapter.parent / "keys.json"
    record.write_text(json.dumps({"student": {"key": {"base": model_fingerprint(models["other"])}}}))
    check_base_of(adapter, models["other"])
    with pytest.raises(UserError, match="was trained on"):
        check_base_of(adapter, models["llama"])


def test_the_record_of_the_store_counts_too(adapter: Path, models: dict[str, str], tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    folder = store.folder("student", {"base": "x"})
    shutil.copytree(adapter, folder / "student")
    store.complete(folder, {"base": model_fingerprint(models["other"])})
    check_base_of(folder / "student", models["other"])
    assert other_base(folder / "student", models["llama"]) is not None


def test_checkpoints_of_all_weights(adapter: Path, models: dict[str, str], tmp_path: Path) -> None:
    whole = save_student(load_model(models["llama"], torch.float32), tmp_path / "whole", models["llama"])
    check_base_of(whole, models["other"])  # nothing tells them apart
    with pytest.raises(UserError, match=r"a model of another architecture \(model_type llama\)"):
        check_base_of(whole, models["qwen3"])
    merged = write_merged(models["llama"], adapter, tmp_path / "round")
    check_base_of(merged, models["llama"])
    check_base_of(merged, str(merged))
    with pytest.raises(UserError, match=r"was trained on .*llama"):
        check_base_of(merged, models["other"])


def test_weights_that_are_missing_or_left_over_are_an_error(adapter: Path, models: dict[str, str]) -> None:
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    first = min(weights)
    save_file({name: value for name, value in weights.items() if name != first}, file)
    with pytest.raises(UserError, match=r"1 weights are missing from its file, the first is .*lora_A"):
        load_student(models["llama"], adapter, torch.float32)
    save_file({**weights, first.replace("layers.0", "layers.9"): weights[first].clone()}, file)
    with pytest.raises(UserError, match=r"1 weights have no place in the model, the first is .*layers\.9"):
        load_student(models["llama"], adapter, torch.float32)


def test_the_command_line_says_so_at_once(
    adapter: Path, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("spd_lightning.evaluation.models.load_model", lambda *args, **more: pytest.fail("loaded"))
    args = ["test", f"--subspace.model_name_or_path={models['qwen3']}", f"--evaluation.adapter={adapter}"]
    args += ["--evaluation.tasks=[arithmetic]", "--evaluation.limit=2", f"--run_dir={tmp_path / 'scored'}"]
    assert main([*args, "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.logger=false"]) == 2
    assert "llama, not on" in capsys.readouterr().err


def test_a_checkpoint_of_another_base_is_refused_before_anything_is_loaded(
    models: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "last.ckpt"
    with pytest.raises(UserError, match="there is no such file"):
        check_checkpoint(str(path), models["llama"])
    path.write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="is no checkpoint"):
        check_checkpoint(str(path), models["llama"])
    base = {"base": model_fingerprint(models["llama"]), "model_name_or_path": models["llama"]}
    torch.save({"spd": base}, path)
    check_checkpoint(str(path), models["llama"])
    with pytest.raises(UserError, match=r"The checkpoint was made with base=.*llama, this run has base=.*qwen3"):
        check_checkpoint(str(path), models["qwen3"])
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match="was not written by SPDFineTuningModule"):
        check_checkpoint(str(path), models["llama"])
