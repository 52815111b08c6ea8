"""A model spread over devices computes what it computes on one: moments, tokens, likelihoods, students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from spd_lightning.cli.program import main
from spd_lightning.errors import UserError
from spd_lightning.evaluation.continuations import LikelihoodItem
from spd_lightning.evaluation.likelihood import score_choices
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.student import save_adapter
from spd_lightning.generation.engine import generate
from spd_lightning.generation.requests import build_requests
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.anatomy import attention_of, decoder_layers, hook_of, input_device
from spd_lightning.model.load import check_one_process, load_model, load_student, spread
from spd_lightning.subspace.capture import Batch, capture_gradients
from spd_lightning.subspace.projection import fold_projection, project_kv
from spd_lightning.subspace.sites import kv_sites, weights_digest
from spd_lightning.subspace.subspace import CapabilitySubspace
from tests.integration.test_cli_fit import SETTINGS

PARTS = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")


def places(*where: Any) -> dict[str, Any]:
    return dict(zip(PARTS, where, strict=True))


# On a CPU, "disk" weights are on the meta device until a layer runs: what accelerate does to a model too large.
MAPS = {
    "one device": {"": "cpu"},
    "last layer on disk": places("cpu", "cpu", "disk", "cpu", "cpu", "cpu"),
    "embeddings and head on disk": places("disk", "cpu", "cpu", "cpu", "cpu", "disk"),
    "two GPUs": places(0, 0, 1, 1, 0, 1),
}


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.gpu] if "GPU" in n else []) for n in MAPS])
def pair(request: pytest.FixtureRequest, tiny_model_dir: str) -> tuple[Any, Any]:
    """The model on one device and the same spread."""
    if "GPU" in request.param and torch.cuda.device_count() < 2:
        pytest.skip("fewer than two CUDA devices: run on a machine with two to test a model spread over them")
    plain = load_model(tiny_model_dir, torch.float32)
    return plain, load_model(tiny_model_dir, torch.float32, device_map=MAPS[request.param])


def subspace_of(model: Any, layers: list[int]) -> CapabilitySubspace:
    generator = torch.Generator().manual_seed(0)
    sites = kv_sites(model, layers)
    bases = {k: torch.linalg.qr(torch.randn(s.kv_dim, 4, generator=generator)).Q for k, s in sites.items()}
    return CapabilitySubspace(bases, {key: torch.ones(len(basis)) for key, basis in bases.items()})


def test_gradients_are_the_same(pair: tuple[Any, Any]) -> None:
    ids, mask = torch.arange(80).view(4, 20), torch.zeros(4, 20, dtype=torch.bool)
    mask[:, -4:] = True
    found = []
    for model in pair:
        batch = Batch(*(t.to(input_device(model)) for t in (ids, torch.ones_like(mask), mask)))
        found.append({k: g.cpu() for k, g in capture_gradients(model, batch, kv_sites(model)).items()})
    assert found[0].keys() == found[1].keys()
    for key, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][key], rtol=1e-5, atol=1e-9)
    assert weights_digest(kv_sites(pair[0])) == weights_digest(kv_sites(pair[1]))


def test_tokens_are_the_same_with_and_without_projection(pair: tuple[Any, Any], tokenizer: Any) -> None:
    requests, _ = build_requests(tokenizer, [(str(i), "abc" * (i + 1)) for i in range(5)])
    params = SamplingParams(max_new_tokens=8, temperature=0.7, top_p=0.9)
    subspace = subspace_of(pair[0], [0, 1])

    def tokens(model: Any) -> list[Any]:
        return [g.token_ids for g in generate(model, tokenizer, requests, params, batch_size=3)]

    assert tokens(pair[0]) == tokens(pair[1])
    with project_kv(pair[0], subspace), project_kv(pair[1], subspace):
        projected = tokens(pair[0])
        assert projected == tokens(pair[1])
    assert projected != tokens(pair[0])


def test_likelihoods_are_the_same(pair: tuple[Any, Any], tokenizer: Any) -> None:
    items = [LikelihoodItem(str(i), "shared " * 8 + str(i), (" A", " B"), "group") for i in range(5)]
    one, other = ([s.log_likelihoods for s in score_choices(m, tokenizer, items)] for m in pair)
    torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=1e-5, atol=1e-5)


def test_folding_needs_the_weights_on_a_device(tiny_model_dir: str) -> None:
    model = load_model(tiny_model_dir, torch.float32, device_map=MAPS["last layer on disk"])
    with (
        pytest.raises(UserError, match=r"model\.layers\.1\.self_attn\.k_proj are held outside the devices"),
        fold_projection(model, subspace_of(model, [0, 1])),
    ):
        pass
    before = model.model.layers[0].self_attn.k_proj.weight.clone()
    with fold_projection(model, subspace_of(model, [0])):
        assert not torch.equal(model.model.layers[0].self_attn.k_proj.weight, before)
    assert torch.equal(model.model.layers[0].self_attn.k_proj.weight, before)


def test_a_student_is_spread(tiny_model_dir: str, tmp_path: Path) -> None:
    student = add_lora(load_model(tiny_model_dir, torch.float32), 4, 8, 0.0, None, 0, tiny_model_dir)
    for name, weight in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    save_adapter(student, tmp_path)
    ids = torch.arange(12).view(1, 12)
    one, other = (
        load_student(tiny_model_dir, tmp_path, torch.float32, device_map=m)(input_ids=ids).logits
        for m in (None, "auto")
    )
    assert torch.equal(one, other.cpu())
    with pytest.raises(UserError, match="device_map='balanced' is not known"):
        spread(load_model(tiny_model_dir, torch.float32), "balanced")


@pytest.mark.parametrize(
    "kind", ["LlamaConfig", "Qwen3Config", "Gemma2Config", "GPT2Config", "FalconConfig", "MptConfig"]
)
def test_what_stays_whole_is_a_decoder_layer(kind: str) -> None:
    """As the authors of the architectures say it, in a name of transformers' own."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)())
    assert {type(layer).__name__ for layer in decoder_layers(model)} == set(model._no_split_modules)


def test_several_processes_cannot_each_take_all_devices() -> None:
    check_one_process(None, 2)
    check_one_process("auto", 1)
    with pytest.raises(UserError, match=r"device_map=auto .* but 2 processes .* --trainer\.devices 1"):
        check_one_process("auto", 2)


def test_one_option_for_all_stages(tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    runs = [tmp_path / name / "run" for name in ("plain", "spread")]
    options = [*SETTINGS, "--evaluation.tasks=[letters]", "--evaluation.limit=3", "--trainer.max_epochs=1"]
    for run, extra in zip(runs, ([], ["--subspace.device_map=auto"])):
        args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", f"--run_dir={run}", *options, *extra]
        assert main(args) == 0
    for name in ("corpus/generations.jsonl", "subspace/subspace.safetensors", "samples/letters.spd.jsonl"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()


def test_the_names_that_libraries_keep_to_themselves_still_mean_the_same(tiny_model_dir: str) -> None:
    layer = torch.nn.Linear(2, 2)
    assert hook_of(layer) is None
    add_hook_to_module(layer, AlignDevicesHook(execution_device="cpu"))
    assert hook_of(layer).execution_device == "cpu"
    model = load_model(tiny_model_dir, torch.float32)
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        assert attention_of(model.config) == attention
