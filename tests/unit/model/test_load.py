"""Loading a model: code that a model's repository brings along is never run, and nothing is asked for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from spd_lightning.errors import UserError
from spd_lightning.model.load import load_config, load_model, load_tokenizer, resolve_dtype

CODE = "open('ran', 'w').close()\n"


@pytest.fixture
def with_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model folder of a type that transformers lacks, whose config names code of its own; standard input is shut."""
    folder = tmp_path / "model"
    folder.mkdir()
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel", "AutoTokenizer": [None, "own.Own"]}
    (folder / "config.json").write_text(json.dumps({"model_type": "own-type", "auto_map": names}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Own", "auto_map": names}))
    save_file({}, folder / "model.safetensors")
    (folder / "own.py").write_text(CODE)

    def asked(*args: Any) -> str:
        pytest.fail("the user was asked whether to run it")

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.chdir(tmp_path)
    return str(folder)


@pytest.mark.parametrize("load", [load_config, load_tokenizer, lambda name: load_model(name, torch.float32)])
def test_a_repository_s_own_code_is_refused_in_one_line(load: Any, with_code: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs code that its repository brings along") as caught:
        load(with_code)
    assert "\n" not in str(caught.value) and with_code in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"config.json is no JSON \(Expecting") as caught:
        load_config(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_loaded_model_is_frozen_and_its_decoding_settings_are_empty(tiny_model_dir: str) -> None:
    model = load_model(tiny_model_dir, torch.float32)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert model.generation_config is not None and model.generation_config.max_new_tokens is None
    assert model.generation_config.eos_token_id == 257


def test_names_of_dtypes() -> None:
    assert resolve_dtype("float32") == torch.float32 and resolve_dtype("bfloat16") == torch.bfloat16
    assert resolve_dtype("auto") in (torch.float32, torch.bfloat16)
    with pytest.raises(UserError, match="dtype='half' is not known"):
        resolve_dtype("half")  # type: ignore[arg-type]
