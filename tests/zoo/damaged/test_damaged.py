"""Folders that are no usable model: one line with the cause, the file and what to type; no traceback, nothing written.

Each is made from the folder of a tiny model by one change, a function of that folder.
"""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from spd_lightning.cli.program import main
from spd_lightning.errors import UserError
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.student import save_adapter
from spd_lightning.model.adapter_beside import put_beside
from spd_lightning.model.load import load_model
from tests.conftest import tiny_model
from tests.zoo.families import save

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
HTML = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
WEIGHTS = "model.safetensors"
Change = Callable[[Path], None]


def written(name: str, content: str | bytes) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def shortened(name: str, share: float = 0.5) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return change


def configured(name: str = "config.json", **values: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / name).read_text()) | values
        (folder / name).write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    def apply(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS, {"format": "pt"})

    return apply


def as_bin(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def shortened_bin(folder: Path) -> None:
    as_bin(folder)
    shortened("pytorch_model.bin")(folder)


def page_for_bin(folder: Path) -> None:
    as_bin(folder)
    written("pytorch_model.bin", HTML)(folder)


def no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def bin_with_code(folder: Path) -> None:
    """A pickle that would run something; as torch writes it."""
    as_bin(folder)
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in parts.items():
            new.writestr(name, pickle.dumps(Evil()) if name.endswith("data.pkl") else content)


def sharded(folder: Path) -> None:
    tiny_model().save_pretrained(folder, max_shard_size="60KB")
    (folder / WEIGHTS).unlink()
    next(iter(sorted(folder.glob("model-0000*")))).unlink()


def index_without_map(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')


def built(config_class: str, **settings: Any) -> Change:
    """The configuration of another kind of model, by its default sizes; the weights are not looked at."""

    def change(folder: Path) -> None:
        getattr(transformers, config_class)(**settings).save_pretrained(folder)

    return change


def adapter_alone(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "some/base"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


K_PROJ = "model.layers.0.self_attn.k_proj.weight"

# What is done to the folder, and what the message must hold.
DAMAGED: dict[str, tuple[Change, tuple[str, ...]]] = {
    "an empty folder": (empty, ("has no config.json", "save_pretrained")),
    "an adapter in place of a model": (adapter_alone, ("holds an adapter", "(some/base)", "--evaluation.adapter")),
    "config cut short": (shortened("config.json"), ("config.json is no JSON", "may be cut short", "again")),
    "config empty": (written("config.json", ""), ("config.json is empty", "again")),
    "config is a list": (written("config.json", "[1]"), ("config.json holds list", "again")),
    "config is binary": (written("config.json", b"\xff\xfe\x00{}"), ("config.json is no JSON", "again")),
    "config is a pointer": (written("config.json", LFS), ("config.json is a Git LFS pointer", "lfs pull")),
    "config is a page": (written("config.json", HTML), ("config.json is a web page", "again")),
    "config of other types": (configured(hidden_size="wide"), ("cannot be loaded", "hidden_size")),
    "config that divides by zero": (configured(num_attention_heads=0, head_dim=...), ("cannot be loaded",)),
    "weights cut short": (shortened(WEIGHTS), (f"{WEIGHTS} is cut short", "bytes are there", "again")),
    "weights cut in their header": (shortened(WEIGHTS, 0.001), (f"{WEIGHTS} is cut short", "again")),
    "weights empty": (written(WEIGHTS, b""), (f"{WEIGHTS} is empty", "again")),
    "weights are a pointer": (written(WEIGHTS, LFS), (f"{WEIGHTS} is a Git LFS pointer", "lfs pull")),
    "weights are a page": (written(WEIGHTS, HTML), (f"{WEIGHTS} is a web page", "again")),
    "weights are noise": (written(WEIGHTS, b"\x20" + bytes(7) + b"\xff" * 99), ("header that cannot be read", "again")),
    "pickle cut short": (shortened_bin, ("pytorch_model.bin is cut short", "again")),
    "pickle that runs code": (bin_with_code, ("cannot be loaded",)),
    "pickle is a page": (page_for_bin, ("pytorch_model.bin is a web page",)),
    "a shard is missing": (sharded, ("lacks model-00001-of", "Copy the folder again")),
    "an index without a map": (index_without_map, ("has no weight_map", "again")),
    "tokenizer cut short": (shortened("tokenizer.json"), ("tokenizer.json is no JSON", "again")),
    "tokenizer is a pointer": (written("tokenizer.json", LFS), ("tokenizer.json is a Git LFS pointer", "lfs pull")),
    "tokenizer of another format": (written("tokenizer.json", "{}"), ("tokenizer of", "cannot be read", "again")),
    "tokenizer_config is a page": (written("tokenizer_config.json", HTML), ("tokenizer_config.json is a web page",)),
    "no tokenizer": (no_tokenizer, ("holds no tokenizer", "save_pretrained")),
    "a weight is missing": (weights(lambda state: state.pop(K_PROJ)), ("lack 1 weights", K_PROJ, "random")),
    "a reward model": (
        weights(lambda state: state.update(**{"score.weight": state.pop("lm_head.weight")[:1].clone()})),
        ("lm_head.weight", "score.weight", "reward model"),
    ),
    "a layer more in the config": (configured(num_hidden_layers=3), ("lack 9 weights", "model.layers.2")),
    "another width in the config": (configured(intermediate_size=48), ("other shapes", "[64, 32], not [48, 32]")),
    "encoder-decoder": (built("T5Config"), ("(t5) is an encoder-decoder model", "decoder of text")),
    "encoder-decoder among the decoders": (built("BartConfig"), ("(bart) is an encoder-decoder", "decoder of text")),
    "encoder": (built("BertConfig"), ("(bert) is an encoder", "decoder of text")),
    "multimodal": (built("LlavaConfig"), ("(llava) is a multimodal model", "decoder of text")),
    "multimodal, of which no export would load": (
        built("MllamaConfig"),
        ("(mllama) is a multimodal model whose text part does not load alone", "decoder of text"),
    ),
    "of a newer transformers": (
        configured(model_type="llama9", transformers_version="6.1.0"),
        ("model_type='llama9'", "written by version 6.1.0", "pip install -U transformers"),
    ),
    "of no library": (configured(model_type=...), ("names no model_type", "save_pretrained")),
    "with code of its own": (
        configured(model_type="mine", auto_map={"AutoConfig": "mine.Config"}),
        ("needs code that its repository brings along", "never run"),
    ),
    "GPTQ": (
        configured(quantization_config={"quant_method": "gptq", "bits": 4}),
        ("holds gptq weights", "transformers cannot", "base_model in its card"),
    ),
    "AWQ": (configured(quantization_config={"quant_method": "awq", "bits": 4}), ("holds awq weights", "base_model")),
    "bitsandbytes": (
        configured(quantization_config={"load_in_4bit": True, "quant_method": "bitsandbytes"}),
        ("holds bitsandbytes weights", "pip install bitsandbytes"),
    ),
}


@pytest.fixture
def folder(tmp_path: Path, tiny_model_dir: str) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


@pytest.mark.parametrize("name", DAMAGED)
def test_it_is_refused_in_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "bitsandbytes" and find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed: uninstall it to run this test")
    change, told = DAMAGED[name]
    change(folder)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    args = [
        "extract",
        f"--subspace.model_name_or_path={folder}",
        "--subspace.task=letters",
        "--trainer.accelerator=cpu",
    ]
    assert main([*args, "--subspace.num_examples=2"]) == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if "error:" in line]
    assert all(text in line for text in told), line
    assert str(folder) in line and "Traceback" not in error
    assert not (folder.parent / "ran").exists(), "nothing of a model's files is ever run"
    late = told[0].startswith(("lack", "other shapes", "lm_head")) or name == "pickle that runs code"
    assert late or not list(folder.parent.rglob("config.yaml")), "refused before a run folder is taken"
    assert not list(folder.parent.rglob("subspace.safetensors"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (LFS, "is a Git LFS pointer"),
        (HTML, "is a web page"),
        ("what", "is no GGUF file"),
        (b"GGUF\x03\0\0\0", "cannot be read"),
        (b"", "is empty"),
    ],
)
def test_a_damaged_gguf_file_is_refused_in_one_line(content: str | bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=told) as caught:
        load_model(str(path), torch.float32)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_whole_checkpoints_raise_no_alarm(kind: str, tied: bool, tmp_path: Path) -> None:
    model = tiny_model(kind, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    found = load_model(str(tmp_path), torch.float32).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in model.state_dict().items())


def test_old_pickles_load(folder: Path, tiny_model_dir: str) -> None:
    as_bin(folder)
    wanted = load_model(tiny_model_dir, torch.float32).state_dict()
    found = load_model(str(folder), torch.float32).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fp8_is_dense_for_good(dtype: torch.dtype, folder: Path, tmp_path: Path) -> None:
    """Blocks of 16 x 16 with a scale each, as DeepSeek's checkpoints have them: every product is that of W s."""
    state, wanted = load_file(folder / WEIGHTS), {}
    for name in [n for n in state if "proj" in n]:
        weight = state[name]
        blocks = weight.reshape(weight.shape[0] // 16, 16, weight.shape[1] // 16, 16)
        scale = blocks.abs().amax(dim=(1, 3)) / 448
        state[name] = (blocks / scale[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
        state[f"{name}_scale_inv"] = scale
        wanted[name] = (state[name].float().reshape(blocks.shape) * scale[:, None, :, None]).reshape(weight.shape)
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    quantised = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16]}
    configured(quantization_config=quantised)(folder)
    model = load_model(str(folder), dtype)
    found = model.state_dict()
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    for name, weight in wanted.items():
        assert torch.equal(found[name], weight.to(dtype)), name
    model.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in (tmp_path / "saved" / "config.json").read_text()
    ids = torch.randint(0, 256, (1, 300))  # rotary frequencies that were rounded would show
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=dtype)
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


FOUR_BITS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mxfp4_is_dense_for_good(dtype: torch.dtype, tmp_path: Path) -> None:
    """Experts as GPT-OSS's checkpoints have them: 32 numbers of four bits, the lower half first, and a power of two."""
    folder = Path(save("gpt_oss", tmp_path / "model"))
    state, wanted = load_file(folder / WEIGHTS), {}
    for name in [n for n in state if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, width, outputs = state.pop(name).shape
        blocks = torch.randint(0, 256, (experts, outputs, width // 32, 16), dtype=torch.uint8)
        scales = torch.randint(118, 124, blocks.shape[:3], dtype=torch.uint8)
        state |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        numbers = FOUR_BITS[torch.stack([blocks & 15, blocks >> 4], -1).long()].flatten(-2)
        dense = numbers * 2.0 ** (scales[..., None].float() - 127)
        wanted[name] = dense.reshape(experts, outputs, width).transpose(1, 2)
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    configured(quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})(folder)
    model = load_model(str(folder), dtype)
    assert wanted and {p.dtype for p in model.parameters()} == {dtype}
    for name, weight in wanted.items():
        assert torch.equal(model.state_dict()[name], weight.to(dtype)), name
    model.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in (tmp_path / "saved" / "config.json").read_text()
    ids = torch.randint(0, 256, (1, 300))  # rotary frequencies that were rounded would show
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=dtype)
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is absent: pip install it to run this test")
@pytest.mark.parametrize(("bits", "most"), [("load_in_4bit", 1e-6), ("load_in_8bit", 2e-2)])
def test_bitsandbytes_is_dense_for_good(bits: str, most: float, folder: Path, tmp_path: Path) -> None:
    """The logits are those of its own products, which round the activations too in 8 bits."""
    asked: Any = transformers.BitsAndBytesConfig(**{bits: True})  # type: ignore[no-untyped-call]
    packed = AutoModelForCausalLM.from_pretrained(folder, quantization_config=asked, dtype=torch.float32)
    packed.save_pretrained(folder)
    model, ids = load_model(str(folder), torch.float32), torch.randint(0, 256, (1, 300))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    expected = packed(input_ids=ids).logits.float()
    assert float((model(input_ids=ids).logits - expected).abs().max()) <= most * float(expected.abs().max())
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.fixture
def adapter(tmp_path: Path, tiny_model_dir: str) -> Path:
    model = add_lora(load_model(tiny_model_dir, torch.float32), 2, 2, 0.0, None, 0, tiny_model_dir)
    return save_adapter(model, tmp_path / "adapter")


ADAPTERS: dict[str, tuple[Change, str]] = {
    "weights cut short": (shortened("adapter_model.safetensors"), "adapter_model.safetensors is cut short"),
    "weights are a pointer": (
        written("adapter_model.safetensors", LFS),
        "adapter_model.safetensors is a Git LFS pointer",
    ),
    "config cut short": (shortened("adapter_config.json"), "adapter_config.json is no JSON"),
    "config is a page": (written("adapter_config.json", HTML), "adapter_config.json is a web page"),
    "config of other types": (configured("adapter_config.json", r="many"), "does not fit|cannot be read"),
    "config of a newer peft": (configured("adapter_config.json", peft_type="NEWER"), "peft_type is NEWER"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_damaged_adapter_is_refused_in_one_line(name: str, adapter: Path, tiny_model_dir: str) -> None:
    change, told = ADAPTERS[name]
    change(adapter)
    with pytest.raises(UserError, match=told) as caught:
        put_beside(load_model(tiny_model_dir, torch.float32), adapter)
    assert str(adapter) in str(caught.value) and "\n" not in str(caught.value)
