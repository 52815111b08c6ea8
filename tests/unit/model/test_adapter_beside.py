"""Adapters beside their base: what one product keeps of them in bf16, that it is exact, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from spd_lightning.errors import UserError
from spd_lightning.evaluation.continuations import LikelihoodItem
from spd_lightning.evaluation.likelihood import score_choices
from spd_lightning.finetuning.export import RunFacts, export_merged
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.share_kept import share_kept
from spd_lightning.finetuning.student import merged_copy, save_student, write_merged
from spd_lightning.generation.vllm_engine import write_folded
from spd_lightning.model.adapter_beside import LinearBeside, all_weights_trained, merge_inside, put_beside, read_record
from spd_lightning.model.load import load_model, load_student, load_tokenizer
from spd_lightning.model.packed_linear import packed_linears
from spd_lightning.model.written import FILE
from spd_lightning.subspace.projection import fold_projection, project_kv
from spd_lightning.subspace.sites import kv_sites, weights_digest
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks import load_task
from tests.conftest import byte_tokenizer, tiny_model

IDS = torch.arange(24).reshape(2, 12)
UNITS = 0.2  # rms of an update, in units in the last place of the median weight
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def saved_adapter(model: Any, folder: Path, seed: int = 3, scale: float = 0.1, **config: Any) -> Path:
    """A PEFT folder as anyone may have written it, none of whose factors is zero."""
    targets = config.pop("target_modules", list(PROJECTIONS))
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, **config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * scale)
    wrapped.save_pretrained(str(folder))
    return folder


def gpt2(folder: Path) -> str:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=258, n_positions=64)
    transformers.GPT2LMHeadModel(config).eval().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


# -- it is the adapter -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"layers.1.self_attn.v_proj": 3}},
        {"target_modules": ["gate_proj", "down_proj", "k_proj"], "layers_to_transform": [1]},
        {"target_modules": ["lm_head", "q_proj"]},
    ],
)
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_in_float32_it_is_what_peft_computes(kind: str, config: dict[str, Any], tmp_path: Path) -> None:
    folder = saved_adapter(tiny_model(kind), tmp_path, **config)
    peft = PeftModel.from_pretrained(tiny_model(kind), str(folder)).eval()
    beside = put_beside(tiny_model(kind), folder)
    assert sum(isinstance(m, LinearBeside) for m in beside.modules()) == len(
        [n for n, _ in peft.named_parameters() if n.endswith("lora_A.default.weight")]
    )
    assert not any(p.requires_grad for p in beside.parameters()) and not beside.training
    expected = peft(input_ids=IDS).logits
    assert not torch.allclose(expected, tiny_model(kind)(input_ids=IDS).logits, atol=1e-2)
    torch.testing.assert_close(beside(input_ids=IDS).logits, expected, rtol=0, atol=1e-5)
    with packed_linears(beside):
        torch.testing.assert_close(beside(input_ids=IDS).logits, expected, rtol=0, atol=1e-5)


def test_conv1d_projections_and_fused_ones(tmp_path: Path) -> None:
    name = gpt2(tmp_path / "gpt2")
    base = load_model(name, torch.float32)
    folder = saved_adapter(load_model(name, torch.float32), tmp_path / "a", target_modules=["c_attn", "attn.c_proj"])
    beside = load_student(name, folder, torch.float32)
    expected = PeftModel.from_pretrained(load_model(name, torch.float32), str(folder)).eval()(input_ids=IDS).logits
    torch.testing.assert_close(beside(input_ids=IDS).logits, expected, rtol=0, atol=1e-5)
    one, other = kv_sites(base), kv_sites(beside)
    assert [(s.index, s.kv_dim) for s in one.values()] == [(s.index, s.kv_dim) for s in other.values()]
    assert isinstance(one[0, "k"].module, Conv1D) and weights_digest(one) == weights_digest(other)


def test_gradients_with_respect_to_activations_pass_through(tiny_model_dir: str, tmp_path: Path) -> None:
    """Stage 1 of a later round: the gradients are PEFT's, in float64 to the last digits, packed or not."""
    folder = saved_adapter(tiny_model(max_position_embeddings=2048), tmp_path / "a")
    base = load_model(tiny_model_dir, torch.float32)

    def gradient(model: Any, context: Any) -> torch.Tensor:
        embedded = model.get_input_embeddings()(IDS).detach().requires_grad_()
        with context(model):
            model(inputs_embeds=embedded).logits.pow(2).sum().backward()
        return embedded.grad.double()

    expected = gradient(PeftModel.from_pretrained(base, str(folder)).double().eval(), keep)
    exact = gradient(load_student(tiny_model_dir, folder, torch.float32).double(), keep)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-7 * float(expected.abs().max()))
    for context in (packed_linears, keep):
        found = gradient(load_student(tiny_model_dir, folder, torch.float32), context)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@contextmanager
def keep(model: nn.Module) -> Iterator[nn.Module]:
    yield model


# -- what bf16 keeps -------------------------------------------------------------------------------------------------


def unit(weight: torch.Tensor) -> float:
    """The median unit in the last place of bf16 weights."""
    return float(torch.exp2(torch.floor(torch.log2(weight.abs().clamp(min=1e-30))) - 7).median())


def small_update(weight: torch.Tensor, seed: int, r: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """A and s B whose product has the size of `UNITS`."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.randn(r, weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
    outer = torch.randn(weight.shape[0], r, generator=generator)
    return inner, outer * (UNITS * unit(weight) / (outer @ inner).pow(2).mean().sqrt())


def layer(weight: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear


def slope(found: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """Numerator and denominator of the least-squares slope through zero."""
    return float((found.double() * expected.double()).sum()), float(expected.double().pow(2).sum())


@pytest.mark.slow
@pytest.mark.parametrize("projected", [False, True])
def test_bf16_keeps_small_updates_at_the_layers_of_a_pretrained_model(
    pretrained: str, data_dir: str, projected: bool
) -> None:
    """16 sites, 600 tokens of GSM8K; with ``projected`` the rows of the product are folded first."""
    tokenizer = load_tokenizer(pretrained)
    model = (
        load_model(pretrained, torch.float32).to(torch.bfloat16).float()
    )  # the grid on which checkpoints are published
    text = "".join(e.prompt + e.target for e in load_task("gsm8k", data_dir=data_dir).examples("test", 8))
    ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :600]
    four = torch.linspace(0, model.config.num_hidden_layers - 1, 4).int().tolist()
    sites = {f"{i}.{n}": model.get_submodule(f"model.layers.{i}.self_attn.{n}") for i in four for n in PROJECTIONS}
    inputs: dict[str, torch.Tensor] = {}
    for name, module in sites.items():
        module.register_forward_hook(lambda m, args, out, name=name: inputs.update({name: args[0][0].bfloat16()}))
    with torch.no_grad():
        model(input_ids=ids)
    assert len(sites) == 16 and ids.shape[1] >= 500
    sums = {"beside": [0.0, 0.0], "merged": [0.0, 0.0], "peft": [0.0, 0.0]}
    for seed, (name, module) in enumerate(sites.items()):
        weight, x = module.weight.detach(), inputs[name]
        inner, outer = small_update(weight, seed)
        fold = torch.eye(len(weight), dtype=torch.float64)
        if projected:
            basis = torch.linalg.qr(torch.randn(len(weight), len(weight) // 2, dtype=torch.float64))[0]
            fold = basis @ basis.T
        base = layer((fold @ weight.double()).bfloat16())
        beside = LinearBeside(layer(weight.bfloat16()), inner, outer)
        if projected:  # as `fold_projection` does
            beside.weight.copy_((fold @ beside.weight.double()).bfloat16())
        expected = x.double() @ (fold @ outer.double() @ inner.double()).T
        merged = layer((fold @ (weight + outer @ inner).bfloat16().double()).bfloat16())
        peft = base(x) + x @ inner.bfloat16().T @ (fold @ outer.double()).bfloat16().T
        for key, output in {"beside": beside(x), "merged": merged(x), "peft": peft}.items():
            for at, value in enumerate(slope(output.float() - base(x).float(), expected)):
                sums[key][at] += value
        with packed_linears(beside):
            torch.testing.assert_close(beside(x).float(), nn.Module.__call__(beside, x).float())
    kept = {key: above / below for key, (above, below) in sums.items()}
    print(kept)
    assert 0.97 < kept["beside"] < 1.03
    assert kept["peft"] < 0.9 and (projected or kept["merged"] < 0.9), "the sites are such that it matters"


@pytest.mark.slow
def test_the_loss_moves_in_bf16_as_it_does_in_float32(pretrained: str, data_dir: str) -> None:
    """Everything in float32 but the outputs of the adapted layers, rounded once: the loss of each token moves as it
    does without rounding. The adapter goes down the loss, so that there is a movement to see."""
    tokenizer = load_tokenizer(pretrained)
    model = load_model(pretrained, torch.float32).to(torch.bfloat16).float()
    rows = load_task("gsm8k", data_dir=data_dir).examples("test", 12)
    texts = [tokenizer(e.prompt + e.target, return_tensors="pt")["input_ids"] for e in rows]

    def losses() -> torch.Tensor:
        with torch.no_grad():
            parts = [model(input_ids=t).logits[0, :-1].log_softmax(-1).gather(1, t[0, 1:, None])[:, 0] for t in texts]
        return -torch.cat(parts).double()

    layers = [
        model.get_submodule(f"model.layers.{i}.self_attn.{n}")
        for i in range(model.config.num_hidden_layers)
        for n in PROJECTIONS
    ]
    rounding = False

    def rounded(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor | None:
        return output.bfloat16().float() if rounding else None

    gradients = []
    for module in layers:
        module.weight.requires_grad_()
    for text in texts[:8]:
        model(input_ids=text, labels=text).loss.backward()
    for module in layers:
        gradients.append(module.weight.grad)
        module.weight.requires_grad_(False)
        module.register_forward_hook(rounded)
    exact_base = losses()
    rounding = True
    rounded_base = losses()
    beside = []
    for module, gradient in zip(layers, gradients, strict=True):
        u, s, v = torch.svd_lowrank(gradient, q=8)
        outer, inner = -u * s, v.T
        outer = outer * (UNITS * unit(module.weight) / (outer @ inner).pow(2).mean().sqrt())
        path = next(name for name, m in model.named_modules() if m is module)
        beside.append((path, LinearBeside(module, inner, outer)))
    for path, module in beside:
        model.set_submodule(path, module)
        module.register_forward_hook(rounded)
    rounded_change = losses() - rounded_base
    rounding = False
    exact_change = losses() - exact_base
    above, below = slope(rounded_change, exact_change)
    found, left = above / below, rounded_change - above / below * exact_change
    error = float((left.pow(2) * exact_change.pow(2)).sum().sqrt()) / below  # heteroscedastic, by token
    print(f"slope {found:.4f} +- {error:.4f}, n = {len(left)}, mean change {float(exact_change.mean()):.5f} nats")
    assert error <= 0.05
    assert abs(found - 1) < 3 * error


# -- with everything else --------------------------------------------------------------------------------------------


def subspace_of(model: nn.Module) -> CapabilitySubspace:
    bases = {key: torch.linalg.qr(torch.randn(site.kv_dim, 3))[0] for key, site in kv_sites(model, [0, 1]).items()}
    spectra = {key: torch.ones(len(basis)) for key, basis in bases.items()}
    return CapabilitySubspace(bases, spectra, {"weights_digest": weights_digest(kv_sites(model, [0, 1]))})


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_folded_and_hooked_projections_agree_with_an_adapter_beside(kind: str, tmp_path: Path) -> None:
    if kind == "gpt2":
        name, targets = gpt2(tmp_path / "m"), ["c_attn"]
    else:
        tiny_model().save_pretrained(tmp_path / "m")
        name, targets = str(tmp_path / "m"), list(PROJECTIONS)
    folder = saved_adapter(load_model(name, torch.float32), tmp_path / "a", target_modules=targets)
    base, model = load_model(name, torch.float32), load_student(name, folder, torch.float32)
    subspace = subspace_of(base)  # found on the base: an adapter is left out of what it is compared by
    before = [p.clone() for p in model.parameters()]
    with project_kv(model, subspace):
        expected = model(input_ids=IDS).logits
    with fold_projection(model, subspace), packed_linears(model):
        torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(expected, model(input_ids=IDS).logits, atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_head_with_an_adapter_is_scored_in_float32(tiny_model_dir: str, tmp_path: Path) -> None:
    base = load_model(tiny_model_dir, torch.float32)
    folder = saved_adapter(base, tmp_path / "a", target_modules=["lm_head"])
    items = [LikelihoodItem("a", "three plus four is", (" seven", " 8")), LikelihoodItem("b", "x", ("y",))]
    values = []
    for dtype in (torch.float32, torch.bfloat16):
        scores = score_choices(load_student(tiny_model_dir, folder, dtype), byte_tokenizer(), items)
        values.append([v for s in scores for v in s.log_likelihoods])
    assert values[0] == pytest.approx(values[1], rel=0.02) and values[0] != values[1]


def test_rounds_run_on_the_base_with_all_adapters(tiny_model_dir: str, tmp_path: Path) -> None:
    """``write_merged`` twice: a float32 checkpoint for others, base and adapters for us, in every dtype."""
    first = saved_adapter(load_model(tiny_model_dir, torch.float32), tmp_path / "one", seed=1)
    second_base = write_merged(tiny_model_dir, first, tmp_path / "round-2" / "base")
    second = saved_adapter(merged_copy(tiny_model_dir, first), tmp_path / "two", seed=2)
    student = write_merged(str(second_base), second, tmp_path / "round-2" / "student")
    record = read_record(student)
    assert record is not None and record.base == tiny_model_dir and len(record.adapters) == 2
    assert all(path.parent == student for path in record.adapters), "complete without the folders it was made from"
    merged = transformers.AutoModelForCausalLM.from_pretrained(student)
    assert merged.dtype == torch.float32
    expected = merged(input_ids=IDS).logits
    for model in (load_model(str(student), torch.float32), load_student(str(second_base), second, torch.float32)):
        assert sum(isinstance(m, LinearBeside) for m in model.modules()) == 8
        torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=0, atol=2e-5)
    half = load_model(str(student), torch.bfloat16)
    base = load_model(tiny_model_dir, torch.bfloat16)
    for i in (0, 1):
        own, theirs = half.model.layers[i].self_attn.k_proj, base.model.layers[i].self_attn.k_proj
        assert torch.equal(own.base_weight(), theirs.weight), "the base is that of the first round, untouched"
    digests = {weights_digest(kv_sites(load_model(str(student), d))) for d in (torch.float32, torch.bfloat16)}
    assert len(digests) == 1, "stage 1 in float32 and stage 2 in bf16 know each other"
    base_file = Path(tiny_model_dir) / "config.json"
    moved = tmp_path / "other"
    tiny_model(seed=9).save_pretrained(moved)
    byte_tokenizer().save_pretrained(moved)
    file = student / "beside.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base": str(moved)}))
    with pytest.raises(UserError, match=r"is not as it was written: beside\.json was changed"):
        load_model(str(student), torch.float32)
    (student / FILE).unlink()
    with pytest.raises(UserError, match=r"no longer that which they were trained on"):
        load_model(str(student), torch.float32)
    assert base_file.is_file()


@pytest.mark.parametrize("lora_r", [2, None])
def test_a_later_round_trains_on_base_and_adapters(lora_r: int | None, tiny_model_dir: str, tmp_path: Path) -> None:
    first = saved_adapter(load_model(tiny_model_dir, torch.float32), tmp_path / "one", seed=1)
    base = str(write_merged(tiny_model_dir, first, tmp_path / "base"))
    module = SPDFineTuningModule(base, lora_r=lora_r)
    module.configure_model()
    expected = transformers.AutoModelForCausalLM.from_pretrained(base)(input_ids=IDS).logits
    assert module.model is not None
    torch.testing.assert_close(module.model(input_ids=IDS).logits, expected, rtol=0, atol=2e-5)
    folder = Path(save_student(module.model, tmp_path / "student", base))
    found = load_student(base, folder, torch.float32)(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert all_weights_trained(folder) == (lora_r is None)


def test_a_checkpoint_with_all_weights_trained_is_never_cast(tiny_model_dir: str, tmp_path: Path) -> None:
    save_student(tiny_model(seed=5), tmp_path / "whole", tiny_model_dir)
    folder = write_merged(tiny_model_dir, tmp_path / "whole", tmp_path / "base")
    assert load_model(str(folder), torch.bfloat16).dtype == torch.float32
    assert all_weights_trained(folder) and all_weights_trained(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_stands_beside_can_be_merged_for_other_tools(kind: str, tmp_path: Path) -> None:
    if kind == "gpt2":
        name, targets = gpt2(tmp_path / "m"), ["c_attn"]
    else:
        tiny_model("qwen2").save_pretrained(tmp_path / "m")
        name, targets = str(tmp_path / "m"), list(PROJECTIONS)
    folder = saved_adapter(load_model(name, torch.float32), tmp_path / "a", target_modules=targets)
    model = load_student(name, folder, torch.float32)
    expected = model(input_ids=IDS).logits
    merge_inside(model).save_pretrained(tmp_path / "out")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(found(input_ids=IDS).logits, expected, rtol=0, atol=1e-5)


def test_vllm_takes_the_student_of_a_round_in_float32_alone(tiny_model_dir: str, tmp_path: Path) -> None:
    """vLLM would round it; in float32 the folded checkpoint holds base, adapter and projection."""
    folder = saved_adapter(load_model(tiny_model_dir, torch.float32), tmp_path / "a")
    base = str(write_merged(tiny_model_dir, folder, tmp_path / "base"))
    with pytest.raises(UserError, match=r"engine=vllm would round what .*base learned .* to bfloat16"):
        write_folded(base, None, torch.bfloat16, tmp_path / "out")
    model = load_model(base, torch.float32)
    subspace = subspace_of(model)
    written = write_folded(base, subspace, torch.float32, tmp_path / "out")
    with project_kv(model, subspace):
        expected = model(input_ids=IDS).logits
    found = transformers.AutoModelForCausalLM.from_pretrained(written)(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_predictions_come_from_the_student_as_it_is_scored(tiny_model_dir: str, tmp_path: Path) -> None:
    module = SPDFineTuningModule(tiny_model_dir)
    module.configure_model()
    names = set(module.state_dict())
    module.on_predict_start()
    assert any(isinstance(m, LinearBeside) for m in module._predicting.modules())  # type: ignore[union-attr]
    assert set(module.state_dict()) == names, "the copy is no part of the module"
    module.on_predict_end()
    assert module._predicting is None


# -- exports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_the_share_of_an_update_that_a_dtype_keeps(whole: bool, tmp_path: Path) -> None:
    model = tiny_model(hidden_size=64).to(torch.bfloat16).float()
    model.save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    student = saved_adapter(model, tmp_path / "a", scale=2e-3)
    name = str(tmp_path / "base")
    if whole:
        save_student(merged_copy(name, student), tmp_path / "whole", name)
        student = tmp_path / "whole"
    assert share_kept(name, student, torch.float32) == pytest.approx(1, abs=1e-3)
    small = share_kept(name, student, torch.bfloat16)
    large = share_kept(name, saved_adapter(load_model(name, torch.float32), tmp_path / "b"), torch.bfloat16)
    assert small < 0.9 and 0.99 < large < 1.01


def test_an_export_says_what_its_dtype_keeps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model(hidden_size=64).to(torch.bfloat16).float()
    model.save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    folder = saved_adapter(model, tmp_path / "a", scale=2e-3)
    facts = RunFacts(str(tmp_path / "base"), "spd", "gsm8k")
    with caplog.at_level("INFO"):
        exact = export_merged(folder, tmp_path / "exact", facts)
        assert not [r for r in caplog.records if r.levelname == "WARNING" and "keeps" in r.getMessage()]
        cast = export_merged(folder, tmp_path / "cast", facts, torch.bfloat16)
    assert "float32 keeps 100.00% of the update that was trained." in (exact / "README.md").read_text()
    share = 100 * share_kept(facts.model_name_or_path, folder, torch.bfloat16)
    assert f"bfloat16 keeps {share:.2f}% of the update" in (cast / "README.md").read_text()
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "keeps" in r.getMessage()]
    assert f"bfloat16 keeps {share:.2f}%" in warning and "float32" in warning


# -- what it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias=all"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, r"embed_tokens \(Embedding\)"),
        ({"init_lora_weights": "olora"}, "init_lora_weights=olora"),
    ],
)
def test_what_one_product_cannot_express_is_refused(config: dict[str, Any], what: str, tmp_path: Path) -> None:
    folder = saved_adapter(tiny_model("qwen2"), tmp_path, **config)
    with pytest.raises(UserError, match=rf"not plain LoRA on linear layers: .*{what}"):
        put_beside(tiny_model("qwen2"), folder)


def test_other_kinds_of_adapters_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(UserError, match="peft_type is IA3"):
        put_beside(tiny_model(), tmp_path)
