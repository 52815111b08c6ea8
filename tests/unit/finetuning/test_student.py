"""Adapters: where they go, that plain PEFT and transformers read what is written, that merging changes nothing."""

from __future__ import annotations

import ast
import errno
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from spd_lightning.errors import UserError
from spd_lightning.finetuning import export as export_files
from spd_lightning.finetuning.export import RunFacts, export_adapter, export_merged, export_projected, model_card
from spd_lightning.finetuning.export_folder import check_empty
from spd_lightning.finetuning.lora import add_lora, lora_targets
from spd_lightning.finetuning.student import merged_copy, save_adapter, save_student, write_merged
from spd_lightning.generation.vllm_engine import write_folded
from spd_lightning.model.adapter_beside import is_adapter, load_adapter
from spd_lightning.model.load import load_model, load_tokenizer
from tests.conftest import byte_tokenizer, tiny_model

IDS = torch.arange(24).reshape(2, 12)


def trained_adapter(model_dir: str, dtype: torch.dtype = torch.float32) -> PeftModel:
    """An adapter whose second factor is not zero, as after training."""
    model = add_lora(load_model(model_dir, dtype), 4, 8, 0.05, None, 1, model_dir)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def adapter_dir(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(trained_adapter(tiny_model_dir), tmp_path_factory.mktemp("run") / "adapter")


@pytest.fixture(scope="module")
def facts(tiny_model_dir: str) -> RunFacts:
    return RunFacts(tiny_model_dir, "spd", "gsm8k", {"lora_r": 4}, "| model | value |\n| --- | ---: |\n| spd | 0.25 |")


# -- targets -------------------------------------------------------------------------------------------------------


def other_model(kind: str):  # type: ignore[no-untyped-def]
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
    config = {
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64),
        "phi3": lambda: transformers.Phi3Config(**size, intermediate_size=64, pad_token_id=0),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**size, intermediate_size=64),
        "falcon": lambda: transformers.FalconConfig(**size),
        "gemma2": lambda: transformers.Gemma2Config(**size, intermediate_size=64, head_dim=8, num_key_value_heads=2),
    }[kind]()
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("gpt2", ["attn.c_proj", "c_attn"]),
        ("phi3", ["o_proj", "qkv_proj"]),
        ("gpt_neox", ["attention.dense", "query_key_value"]),
        ("falcon", ["query_key_value", "self_attention.dense"]),
        ("gemma2", ["k_proj", "o_proj", "q_proj", "v_proj"]),
    ],
)
def test_attention_projections_of_other_architectures(kind: str, expected: list[str]) -> None:
    """Only attention gets adapters, and the loss with its hook on the vocabulary projection is the plain one."""
    from torch.nn import functional as F

    from spd_lightning.finetuning.batching import make_train_loader
    from spd_lightning.finetuning.loss import token_loss_sum
    from spd_lightning.finetuning.texts import TrainingText

    model = other_model(kind)
    assert lora_targets(model) == expected
    texts = [TrainingText("a", (1, 2), (3, 4, 5, 6)), TrainingText("b", (7,), (8, 9))]
    plain = sum(
        F.cross_entropy(
            model(input_ids=(i := torch.tensor([t.prompt_ids + t.completion_ids]))).logits[0, :-1],
            i[0, 1:],
            reduction="sum",
        )
        for t in texts
    )
    wrapped = add_lora(model, 2, 2, 0.0, None, 0, kind)
    adapted = {n.split(".lora_A")[0] for n, _ in wrapped.named_parameters() if "lora_A" in n}
    assert len(adapted) == 2 * len(expected) and not any("mlp" in n for n in adapted)
    for packing in (False, True):
        if packing and kind == "falcon":
            continue
        (batch,) = make_train_loader(texts, 2, 32, 0, 0, 1, 0, packing=packing)
        torch.testing.assert_close(token_loss_sum(wrapped, batch), plain, rtol=1e-4, atol=1e-4)


GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (transformers.GPTJConfig(**GPT, rotary_dim=4), ["attn.out_proj", "k_proj", "q_proj", "v_proj"]),
        (
            transformers.GPTNeoConfig(
                hidden_size=32, num_layers=2, num_heads=4, vocab_size=64, attention_types=[[["global", "local"], 1]]
            ),
            ["attention.out_proj", "k_proj", "q_proj", "v_proj"],
        ),
        (transformers.CodeGenConfig(**GPT, rotary_dim=4), ["attn.out_proj", "qkv_proj"]),
        (transformers.GPTBigCodeConfig(**GPT), ["attn.c_proj", "c_attn"]),
        (transformers.MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=64), ["Wqkv", "attn.out_proj"]),
        (
            transformers.DbrxConfig(
                d_model=32,
                n_heads=4,
                n_layers=2,
                vocab_size=64,
                attn_config={"kv_n_heads": 2, "rope_theta": 1e4},
                ffn_config={"ffn_hidden_size": 32, "moe_num_experts": 2, "moe_top_k": 1},
            ),
            ["Wqkv", "attn.out_proj"],
        ),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_every_projection_of_an_attention_is_adapted(
    config: transformers.PreTrainedConfig, expected: list[str]
) -> None:
    """Its output as well as its keys, queries and values; and nothing outside it."""
    model = AutoModelForCausalLM.from_config(config)
    assert lora_targets(model) == expected
    linear = [
        n for n, m in model.named_modules() if isinstance(m, (torch.nn.Linear, transformers.pytorch_utils.Conv1D))
    ]
    attention = {n for n in linear if ".attn." in n}
    wrapped = add_lora(model, 2, 2, 0.0, None, 0, "base")
    names = (n for n, _ in wrapped.named_parameters() if "lora_A" in n)
    adapted = {n.split(".lora_A")[0].removeprefix("base_model.model.") for n in names}
    assert adapted == attention and len(adapted) == 2 * len(expected)


def test_target_that_matches_nothing_lists_what_exists(tiny_model_dir: str) -> None:
    with pytest.raises(UserError, match=r"target_modules: c_attn matches .*Found: .*self_attn\.q_proj"):
        lora_targets(load_model(tiny_model_dir, torch.float32), ["q_proj", "c_attn"])
    assert lora_targets(load_model(tiny_model_dir, torch.float32), ["up_proj", "q_proj"]) == ["q_proj", "up_proj"]


@pytest.mark.parametrize(("r", "dropout", "message"), [(0, 0.0, "lora_r=0"), (4, 1.0, r"lora_dropout=1\.0")])
def test_shape_out_of_range(tiny_model_dir: str, r: int, dropout: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        add_lora(load_model(tiny_model_dir, torch.float32), r, 8, dropout, None, 0, tiny_model_dir)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    from spd_lightning.finetuning.lora import AdapterDropout

    torch.manual_seed(0)
    dropout, x = AdapterDropout(0.25), torch.ones(999, 1001)
    y = dropout(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.003)  # 7 standard errors
    assert torch.equal(dropout.eval()(x), x)


# -- save and load -------------------------------------------------------------------------------------------------


def test_plain_peft_reads_it(tiny_model_dir: str, adapter_dir: Path) -> None:
    expected = trained_adapter(tiny_model_dir)(input_ids=IDS).logits
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_dir), str(adapter_dir))
    assert torch.equal(plain(input_ids=IDS).logits, expected)
    ours = load_adapter(load_model(tiny_model_dir, torch.float32), adapter_dir)
    assert torch.equal(ours(input_ids=IDS).logits, expected)
    assert not torch.allclose(expected, tiny_model()(input_ids=IDS).logits, atol=1e-3)


def test_files_and_their_order_repeat(tiny_model_dir: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_adapter(trained_adapter(tiny_model_dir), tmp_path / name)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert config["base_model_name_or_path"] == tiny_model_dir


@pytest.mark.slow
def test_adapter_bytes_repeat_over_processes(tiny_model_dir: str, tmp_path: Path) -> None:
    """PEFT keeps its targets as a set, whose order changes with the hash seed of the process."""
    code = (
        "import sys\nfrom spd_lightning.finetuning.lora import add_lora\n"
        "from spd_lightning.finetuning.student import save_adapter\n"
        "from spd_lightning.model.load import load_model\nimport torch\n"
        "model = add_lora(load_model(sys.argv[1], torch.float32), 4, 8, 0.0, None, 1, 'base')\n"
        "save_adapter(model, sys.argv[2])\n"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, tiny_model_dir, str(tmp_path / seed)], env=environment, check=True)
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


def test_embedded_model_is_recorded_by_a_name_that_others_can_load(tiny_model_dir: str, tmp_path: Path) -> None:
    model = add_lora(load_model(tiny_model_dir, torch.float32), 4, 8, 0.0, None, 0, "smollm2-135m-instruct")
    config = json.loads((save_adapter(model, tmp_path) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_saving_leaves_the_model_trainable(tiny_model_dir: str, tmp_path: Path) -> None:
    model = trained_adapter(tiny_model_dir)
    before = {n for n, p in model.named_parameters() if p.requires_grad}
    save_adapter(model, tmp_path)
    assert before and before == {n for n, p in model.named_parameters() if p.requires_grad}
    assert model.peft_config["default"].inference_mode is False


def test_folder_without_adapter_and_adapter_of_another_shape(
    tiny_model_dir: str, adapter_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"holds no PEFT adapter \(adapter_config\.json, adapter_model"):
        load_adapter(load_model(tiny_model_dir, torch.float32), tmp_path)
    with pytest.raises(UserError, match=r"does not fit LlamaForCausalLM: .*size"):
        load_adapter(tiny_model(hidden_size=64), adapter_dir)


# -- merge ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_merged_equals_unmerged(kind: str, tmp_path: Path) -> None:
    tiny_model(kind).save_pretrained(tmp_path)
    model = trained_adapter(str(tmp_path))
    merged = merged_copy(str(tmp_path), model)
    assert not isinstance(merged, PeftModel) and not any("lora" in n for n, _ in merged.named_parameters())
    torch.testing.assert_close(merged(input_ids=IDS).logits, model(input_ids=IDS).logits, rtol=0, atol=1e-5)


def test_merge_is_done_in_float32(tiny_model_dir: str, adapter_dir: Path) -> None:
    exact = merged_copy(tiny_model_dir, adapter_dir)
    cast = merged_copy(tiny_model_dir, adapter_dir, torch.bfloat16)
    for (name, a), (_, b) in zip(exact.named_parameters(), cast.named_parameters()):
        assert torch.equal(a.bfloat16(), b), name
    loaded = load_model(tiny_model_dir, torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(cast.buffers(), loaded.buffers(), strict=True)), "rotary frequencies"


def test_full_checkpoint_in_place_of_an_adapter(tiny_model_dir: str, tmp_path: Path) -> None:
    model = tiny_model(seed=5)
    save_student(model, tmp_path, tiny_model_dir)
    assert not is_adapter(tmp_path)
    assert torch.equal(merged_copy(tiny_model_dir, tmp_path)(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert AutoTokenizer.from_pretrained(tmp_path)("ab")["input_ids"] == byte_tokenizer()("ab")["input_ids"]


def test_export_projected_is_the_folded_base(tiny_model_dir: str, tmp_path: Path, facts: RunFacts) -> None:
    from spd_lightning.subspace.projection import project_kv
    from spd_lightning.subspace.subspace import CapabilitySubspace

    model = load_model(tiny_model_dir, torch.float32)
    basis = torch.linalg.qr(torch.randn(16, 8))[0]
    subspace = CapabilitySubspace(
        {(1, "k"): basis, (1, "v"): basis}, {(1, "k"): torch.ones(16), (1, "v"): torch.ones(16)}
    )
    with project_kv(model, subspace):
        expected = model(input_ids=IDS).logits
    subspace.save(tmp_path / "subspace.safetensors")
    out = export_projected(tmp_path / "subspace.safetensors", tmp_path / "out", facts)
    found = AutoModelForCausalLM.from_pretrained(out)(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found, model(input_ids=IDS).logits, atol=1e-3)
    assert "Not trained" in (out / "README.md").read_text()


# -- export --------------------------------------------------------------------------------------------------------


def test_export_adapter(tiny_model_dir: str, adapter_dir: Path, tmp_path: Path, facts: RunFacts) -> None:
    out = export_adapter(adapter_dir, tmp_path / "out", facts)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_dir), str(out))
    assert torch.equal(plain(input_ids=IDS).logits, trained_adapter(tiny_model_dir)(input_ids=IDS).logits)
    card = (out / "README.md").read_text()
    assert "library_name: peft" in card and "arXiv:2605.22675" in card and "| lora_r | 4 |" in card
    assert "## Scores\n\n| model | value |" in card and card.endswith("| spd | 0.25 |\n")
    assert f"base_model: {tiny_model_dir}" in card


def test_export_merged_loads_in_plain_transformers(
    tiny_model_dir: str, adapter_dir: Path, tmp_path: Path, facts: RunFacts
) -> None:
    out = export_merged(adapter_dir, tmp_path / "out", facts)
    plain = AutoModelForCausalLM.from_pretrained(out)
    merged = merged_copy(tiny_model_dir, adapter_dir)
    assert torch.equal(plain(input_ids=IDS).logits, merged(input_ids=IDS).logits)
    assert plain.dtype == torch.float32
    assert AutoTokenizer.from_pretrained(out)("ab")["input_ids"] == byte_tokenizer()("ab")["input_ids"]
    assert "merged into the weights in float32" in (out / "README.md").read_text()


def test_exported_checkpoints_keep_the_decoding_defaults_of_their_base(
    tiny_model_dir: str, adapter_dir: Path, tmp_path: Path, facts: RunFacts
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model_dir, base)
    GenerationConfig(do_sample=True, top_k=20, eos_token_id=[257, 256], bos_token_id=3).save_pretrained(base)
    out = export_merged(adapter_dir, tmp_path / "out", replace(facts, model_name_or_path=str(base)))
    found = GenerationConfig.from_pretrained(out)
    assert (found.do_sample, found.top_k, found.eos_token_id, found.bos_token_id) == (True, 20, [257, 256], 3)


def test_every_folder_holds_the_tokenizer_of_the_base_unchanged(
    tiny_model_dir: str, adapter_dir: Path, tmp_path: Path, facts: RunFacts
) -> None:
    """A base without a padding token stays without: it is set for our own batches alone."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model_dir, base)
    plain = byte_tokenizer()
    plain.pad_token = None
    plain.save_pretrained(base)
    name = str(base)
    assert load_tokenizer(name).pad_token == "<eos>"
    here = replace(facts, model_name_or_path=name)
    folders = [
        export_adapter(adapter_dir, tmp_path / "adapter", here),
        export_merged(adapter_dir, tmp_path / "merged", here),
        save_student(load_model(name, torch.float32), tmp_path / "student", name),
        write_merged(name, adapter_dir, tmp_path / "round"),
        write_folded(name, None, torch.float32, tmp_path / "folded"),
    ]
    for folder in folders:
        assert AutoTokenizer.from_pretrained(folder).pad_token is None, folder
        for file in ("tokenizer.json", "tokenizer_config.json"):
            assert (folder / file).read_text() == (base / file).read_text(), folder / file


@pytest.mark.parametrize(
    "name", ["a: b #c", "- x", "'it''s'", "{x}", "&a *b", "null", "1e3", "tab\there", "größe/模型", 'q"']
)
def test_the_front_of_a_model_card_is_yaml_whatever_the_names_hold(name: str, facts: RunFacts) -> None:
    settings = {"data.stop": ["a|b", "\n"]}
    card = model_card(
        replace(facts, model_name_or_path=name, settings=settings), "A title", "how.", "from peft import x\n"
    )
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": name,
        "library_name": "peft",
        "tags": ["self-distillation", "spd_lightning"],
    }
    (row,) = (line for line in text.splitlines() if line.startswith("| data.stop"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 3, "two cells"


@pytest.mark.parametrize("folder", ["out", 'my "best" model', "back\\slash"])
def test_what_a_model_card_says_to_type_is_python(
    folder: str, adapter_dir: Path, tmp_path: Path, facts: RunFacts
) -> None:
    out = export_adapter(adapter_dir, tmp_path / folder, facts)
    block = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert block is not None
    calls = [node for node in ast.walk(ast.parse(block[1])) if isinstance(node, ast.Call)]
    named = [arg.value for call in calls for arg in call.args if isinstance(arg, ast.Constant)]
    assert named == [facts.model_name_or_path, folder]


def test_export_refuses_a_folder_that_is_not_empty(adapter_dir: Path, tmp_path: Path, facts: RunFacts) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    for export in (export_adapter, export_merged, export_projected):
        with pytest.raises(UserError, match=f"--out {tmp_path} already exists"):
            export(adapter_dir, tmp_path, facts)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_export_on_a_full_disk_leaves_nothing_and_can_be_repeated(
    adapter_dir: Path, tmp_path: Path, facts: RunFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "there").mkdir()
    for out, exporter in itertools.product(("new/out", "there"), (export_adapter, export_merged)):
        with monkeypatch.context() as patch:
            patch.setattr("spd_lightning.finetuning.export.save_tokenizer", full)
            with pytest.raises(OSError, match="No space left") as told:
                exporter(adapter_dir, tmp_path / out, facts)
        assert str(told.value.filename).startswith(str(tmp_path / out)), "the folder is named"
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    for out in ("new/out", "there"):
        names = {p.name for p in export_adapter(adapter_dir, tmp_path / out, facts).iterdir()}
        assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= names
        assert not any(name.startswith(".") for name in names)


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_of_two_exports_into_one_folder_one_is_written(
    there: bool, adapter_dir: Path, tmp_path: Path, facts: RunFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins, and where it may ends, while the first writes."""
    out, finish = tmp_path / "out", export_files._finish
    if there:
        out.mkdir()

    def meanwhile(*args: Any) -> None:
        monkeypatch.setattr(export_files, "_finish", finish)
        if there:
            with pytest.raises(UserError, match="out is in use by another process"):
                export_merged(adapter_dir, out, facts)
        elif os.fork() == 0:
            os._exit(0 if export_adapter(adapter_dir, out, facts).is_dir() else 1)
        else:
            assert os.wait()[1] == 0
        finish(*args)

    monkeypatch.setattr(export_files, "_finish", meanwhile)
    if there:
        export_merged(adapter_dir, out, facts)
    else:
        with pytest.raises(UserError, match="out already exists and is not an empty folder"):
            export_merged(adapter_dir, out, facts)
    names = {p.name for p in out.iterdir()}
    assert ("model.safetensors" in names) is there and ("adapter_model.safetensors" in names) is not there
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_export_was_writing_is_in_nobodys_way(adapter_dir: Path, tmp_path: Path, facts: RunFacts) -> None:
    (tmp_path / "out" / "..export-new-new").mkdir(parents=True)
    (tmp_path / "out" / "..export-new-new" / "adapter_model.safetensors").write_text("half")
    assert check_empty(tmp_path / "out") == tmp_path / "out"
    out = export_adapter(adapter_dir, tmp_path / "out", facts)
    assert is_adapter(out) and not [p for p in out.iterdir() if p.name.startswith(".")]


def test_export_of_a_run_without_adapter(tiny_model_dir: str, tmp_path: Path, facts: RunFacts) -> None:
    with pytest.raises(UserError, match=f"{tiny_model_dir} holds no adapter"):
        export_adapter(tiny_model_dir, tmp_path / "out", facts)
    assert not (tmp_path / "out").exists()


def test_export_into_a_place_that_cannot_be_made(adapter_dir: Path, tmp_path: Path, facts: RunFacts) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/out cannot be made"):
        export_adapter(adapter_dir, tmp_path / "file" / "out", facts)
