"""The vLLM engine against a fake module of the same interface; the real one where it is installed."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from spd_lightning import SelfGenerationDataModule
from spd_lightning.errors import UserError
from spd_lightning.generation import recipe, vllm_engine
from spd_lightning.generation.requests import Request, build_requests
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.generation.vllm_engine import generate_vllm
from spd_lightning.model.load import load_model
from spd_lightning.model.source import model_fingerprint
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.projection import fold_projection
from spd_lightning.subspace.sites import kv_sites
from tests.conftest import byte_tokenizer

REQUESTS = [Request("a", "Q a", (1, 2, 3)), Request("a", "Q a", (1, 2, 3), 1), Request("b", "Q b", (7,))]


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for the package: records what it is asked, answers each prompt with its length."""
    seen: dict[str, Any] = {}

    class LLM:
        def __init__(self, **kwargs: Any) -> None:
            seen["llm"] = kwargs

        def generate(self, prompts: list[dict[str, list[int]]], settings: list[dict[str, Any]]) -> list[Any]:
            seen.update(prompts=prompts, settings=settings)
            return [
                types.SimpleNamespace(
                    outputs=[
                        types.SimpleNamespace(
                            text="not looked at",
                            token_ids=[*byte_tokenizer()(f" {len(p['prompt_token_ids'])}")["input_ids"], 257],
                            finish_reason="stop" if len(p["prompt_token_ids"]) > 1 else "length",
                        )
                    ]
                )
                for p in prompts
            ]

    module = types.ModuleType("vllm")
    module.LLM = LLM  # type: ignore[attr-defined]
    module.SamplingParams = lambda **kwargs: kwargs  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    return seen


def test_records_come_back_in_the_order_of_the_requests(fake_vllm: dict[str, Any]) -> None:
    out = generate_vllm("/models/folded", byte_tokenizer(), REQUESTS, SamplingParams(seed=5), tensor_parallel=2)
    assert [(g.id, g.sample, g.prompt, g.completion, g.token_ids) for g in out] == [
        ("a", 0, "Q a", " 3", (220, 18, 257)),
        ("a", 1, "Q a", " 3", (220, 18, 257)),
        ("b", 0, "Q b", " 1", (220, 16, 257)),
    ]
    assert [g.finish_reason for g in out] == ["stop", "stop", "length"]
    assert {g.seed for g in out} == {5} and {g.num_tokens for g in out} == {3}
    assert fake_vllm["llm"] == {
        "model": "/models/folded",
        "tensor_parallel_size": 2,
        "dtype": "auto",
        "seed": 5,
        "trust_remote_code": False,
        "generation_config": "vllm",
    }
    assert fake_vllm["prompts"] == [{"prompt_token_ids": list(r.prompt_ids)} for r in REQUESTS]


def test_every_setting_is_stated(fake_vllm: dict[str, Any]) -> None:
    filters = {"top_p": 0.8, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.1}
    params = SamplingParams(max_new_tokens=9, temperature=0.5, stop=("\n\n",), **filters)
    generate_vllm("/models/folded", byte_tokenizer(), REQUESTS, params)
    first = fake_vllm["settings"][0]
    assert first == {
        "n": 1,
        "temperature": 0.5,
        "top_p": 0.8,
        "top_k": 7,
        "min_p": 0.1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.1,
        "seed": first["seed"],
        "max_tokens": 9,
        "min_tokens": 0,
        "ignore_eos": False,
        "stop": ["\n\n"],
        "stop_token_ids": [257],
        "include_stop_str_in_output": False,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": False,
    }
    seeds = [s["seed"] for s in fake_vllm["settings"]]
    assert len(set(seeds)) == 3, "each row has a seed of its own"
    generate_vllm("/models/folded", byte_tokenizer(), REQUESTS[::-1], params)
    assert [s["seed"] for s in fake_vllm["settings"]] == seeds[::-1], "and keeps it in any order"


def test_every_end_of_sequence_of_the_model_ends_a_completion(fake_vllm: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 256]}', encoding="utf-8")
    generate_vllm(tmp_path, byte_tokenizer(), REQUESTS, SamplingParams())
    assert fake_vllm["settings"][0]["stop_token_ids"] == [7, 256, 257], "and the tokenizer's"


def test_absent_vllm_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install 'spd_lightning\[vllm\]'"):
        generate_vllm("/models/folded", byte_tokenizer(), REQUESTS, SamplingParams())


def test_completions_are_handed_over_in_chunks(fake_vllm: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "CHUNK", 2)
    written: list[list[str]] = []
    out = generate_vllm(
        "/m", byte_tokenizer(), REQUESTS, SamplingParams(), on_batch=lambda done: written.append([g.id for g in done])
    )
    assert written == [["a", "a"], ["b"]] and [g.id for g in out] == ["a", "a", "b"]


def test_the_data_module_feeds_vllm_with_a_folded_checkpoint(
    fake_vllm: dict[str, Any], tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny_model_dir, torch.float32)
    moments = Moments(metadata={"fingerprint": model_fingerprint(tiny_model_dir)})
    for key, site in kv_sites(model).items():
        moments.update({key: torch.randn(50, site.kv_dim)})
    subspace = subspace_from_moments(moments, rank=4)
    subspace.save(tmp_path / "subspace.safetensors")
    data = SelfGenerationDataModule(
        model_name_or_path=tiny_model_dir,
        num_prompts=5,
        engine="vllm",
        dtype="float32",
        subspace=str(tmp_path / "subspace.safetensors"),
        corpus_dir=str(tmp_path / "corpus"),
    )
    seen: list[torch.Tensor] = []
    generated = vllm_engine.generate_vllm

    def look(folder: Path, *args: Any, **kwargs: Any) -> Any:
        seen.append(load_model(str(folder), torch.float32).model.layers[1].self_attn.k_proj.weight)
        return generated(folder, *args, **kwargs)

    monkeypatch.setattr(recipe, "generate_vllm", look)
    data.setup("fit")
    with fold_projection(model, subspace):
        assert torch.allclose(seen[0], model.model.layers[1].self_attn.k_proj.weight, atol=1e-6)
    assert fake_vllm["llm"]["dtype"] == "float32"
    assert {p.name for p in (tmp_path / "corpus").iterdir()} == {"generations.jsonl", "complete.json"}
    assert len(data.train_texts) == 5 and data.recipe.key()["engine"] == "vllm"


def test_vllm_is_not_imported_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import spd_lightning.generation.vllm_engine as module

    monkeypatch.setitem(sys.modules, "vllm", None)  # any import of it now fails
    source = importlib.util.find_spec(module.__name__)
    assert source is not None and source.loader is not None
    source.loader.exec_module(importlib.util.module_from_spec(source))


@pytest.mark.gpu
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="pip install '.[vllm]' to run this test")
def test_real_vllm_completes_greedily_as_transformers(tiny_model_dir: str, tokenizer: Any) -> None:
    from spd_lightning.generation.engine import generate
    from tests.conftest import tiny_model

    requests, _ = build_requests(tokenizer, [("a", "Question: 1 plus 2?"), ("b", "Hello")])
    params = SamplingParams(max_new_tokens=8, temperature=0.0)
    expected = {g.id: g for g in generate(tiny_model(), tokenizer, requests, params)}
    for g in generate_vllm(tiny_model_dir, tokenizer, requests, params):
        assert g.token_ids[0] == expected[g.id].token_ids[0]
        assert list(g.record()) == list(expected[g.id].record())
