"""Fine-tuning: loss and gradients against plain oracles, what is trained, what a checkpoint holds, what is refused."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import model_checkpoint
from torch.nn import functional as F

from spd_lightning.errors import UserError
from spd_lightning.finetuning.batching import TextLoader, make_train_loader, make_val_loader
from spd_lightning.finetuning.loss import check_packing, token_loss_sum
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.optimiser import cosine_factor
from spd_lightning.finetuning.texts import TrainingText
from spd_lightning.model.packed_linear import packed_linears
from spd_lightning.pipeline.trainers import StepCheckpoint
from tests.conftest import TINY, byte_tokenizer, tiny_model


def random_texts(count: int = 10, seed: int = 0, longest: int = 24) -> list[TrainingText]:
    generator = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (), generator=generator))
        return tuple(torch.randint(0, 256, (length,), generator=generator).tolist())

    return [TrainingText(f"t{i}:0", tokens(2, 8), (*tokens(1, longest - 8), 257)) for i in range(count)]


class Texts(LightningDataModule):
    """The smallest data module that fine-tuning needs."""

    def __init__(self, count: int = 10, batch_size: int = 4, val: int = 0, accumulate: int = 1, **loader: Any) -> None:
        super().__init__()
        self.texts, self.batch_size, self.val = random_texts(count), batch_size, val
        self.accumulate, self.loader = accumulate, loader

    def train_dataloader(self) -> TextLoader:
        t = self.trainer
        return make_train_loader(
            self.texts,
            self.batch_size,
            64,
            42,
            t.global_rank,
            t.world_size,
            256,
            accumulate=self.accumulate,
            **self.loader,
        )

    def val_dataloader(self) -> TextLoader | list[Any]:
        t = self.trainer
        return make_val_loader(random_texts(self.val, 7), 2, 64, t.global_rank, t.world_size, 256) if self.val else []


def fit(folder: str, module: SPDFineTuningModule | None = None, data: Texts | None = None, ckpt: Any = None, **kw: Any):  # type: ignore[no-untyped-def]
    module = module or SPDFineTuningModule(folder, learning_rate=1e-2)
    settings: dict[str, Any] = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, **kw}
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        **settings,
    )
    trainer.fit(module, data or Texts(), ckpt_path=ckpt, weights_only=True)
    return module, trainer


def trained(module: SPDFineTuningModule) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


# -- loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loss_equals_text_by_text(kind: str, packing: bool, attention: str) -> None:
    model = tiny_model(kind).double()
    model.set_attn_implementation(attention)
    texts = random_texts(7)
    (batch,) = make_train_loader(texts, 7, 64, 0, 0, 1, 256, packing=packing)
    expected = torch.zeros((), dtype=torch.float64)
    for text in texts:
        ids = torch.tensor([text.prompt_ids + text.completion_ids])
        logits = model(input_ids=ids).logits[0, :-1]
        expected = expected + F.cross_entropy(logits, ids[0, 1:], reduction="sum")
    (wanted,) = torch.autograd.grad(expected, model.model.layers[0].mlp.up_proj.weight)
    loss = token_loss_sum(model, batch)
    (found,) = torch.autograd.grad(loss, model.model.layers[0].mlp.up_proj.weight)
    assert batch["global_loss_tokens"] == sum(len(t.prompt_ids + t.completion_ids) - 1 for t in texts)
    bound = 1e-12 if attention == "sdpa" else 1e-7  # the softmax of eager attention is float32 in every model
    torch.testing.assert_close(loss, expected, rtol=bound, atol=0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=bound * float(wanted.abs().max()))
    with torch.no_grad():
        torch.testing.assert_close(token_loss_sum(model, batch), expected, rtol=bound, atol=0)


def test_loss_on_completion_counts_only_completion_tokens() -> None:
    model, texts = tiny_model(), random_texts(3)
    (batch,) = make_train_loader(texts, 3, 64, 0, 0, 1, 256, loss_on="completion")
    expected = torch.zeros(())
    for text in texts:
        ids = torch.tensor([text.prompt_ids + text.completion_ids])
        losses = F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        expected = expected + losses[len(text.prompt_ids) - 1 :].sum()
    assert batch["global_loss_tokens"] == sum(len(t.completion_ids) for t in texts)
    torch.testing.assert_close(token_loss_sum(model, batch), expected)


def test_bf16_loss_is_near_float32() -> None:
    (batch,) = make_train_loader(random_texts(4), 4, 64, 0, 0, 1, 256)
    exact = token_loss_sum(tiny_model(), batch)
    assert token_loss_sum(tiny_model().bfloat16(), batch).item() == pytest.approx(exact.item(), rel=1e-2)


def test_share_without_texts_gives_zero_loss_and_zero_gradients() -> None:
    model = tiny_model()
    batch = next(iter(make_train_loader(random_texts(1), 4, 64, 0, 1, 2, 256)))
    loss = token_loss_sum(model, batch)
    loss.backward()
    assert loss.item() == 0 and batch["num_tokens"] == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


# -- gradients of a step -------------------------------------------------------------------------------------------


class Gradients(Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []
        self.losses: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.steps.append({n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None})

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.losses.append(float(trainer.callback_metrics.get("train/loss", math.nan)))


@pytest.mark.parametrize("packing", [False, True])
def test_accumulation_equals_one_batch(tiny_model_dir: str, packing: bool) -> None:
    """8 texts of unlike lengths as one batch and as micro-batches of 3, 3 and 2: same gradients, same weights.

    In float64: the gradients (up to 0.09) then differ by 5e-16 at most, in float32 by 9e-7, which is rounding.
    """
    runs = []
    for accumulate in (1, 3):
        seen = Gradients()
        module = SPDFineTuningModule(tiny_model_dir, learning_rate=1e-2, lora_dropout=0.0)
        module.configure_model()
        module.model.double()
        data = Texts(10, 8, accumulate=accumulate, packing=packing)
        _, trainer = fit(
            tiny_model_dir, module, data, callbacks=[seen], accumulate_grad_batches=accumulate, max_epochs=2
        )
        assert trainer.global_step == 4
        runs.append((seen.steps, trained(module)))
    for one, many in zip(*(r[0] for r in runs)):
        for name in one:
            torch.testing.assert_close(many[name], one[name], rtol=1e-10, atol=1e-14)
    for name, value in runs[0][1].items():
        torch.testing.assert_close(runs[1][1][name], value, rtol=1e-10, atol=1e-12)


def test_gradient_is_that_of_the_token_mean(tiny_model_dir: str) -> None:
    seen = Gradients()
    module = SPDFineTuningModule(tiny_model_dir, lora_dropout=0.0)
    module.configure_model()
    module.model.double()
    fit(tiny_model_dir, module, Texts(10, 10), callbacks=[seen], accumulate_grad_batches=1)
    fresh = SPDFineTuningModule(tiny_model_dir, lora_dropout=0.0)
    fresh.configure_model()
    fresh.model.double()
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for text in random_texts(10):
        ids = torch.tensor([text.prompt_ids + text.completion_ids])
        total = total + F.cross_entropy(fresh.model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum")
        count += ids.shape[1] - 1
    (total / count).backward()
    for name, p in fresh.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(seen.steps[0][name], p.grad, rtol=1e-10, atol=1e-14)
    assert seen.losses[0] == pytest.approx((total / count).item(), rel=1e-6)


def test_accumulation_that_the_loader_does_not_know_is_refused(tiny_model_dir: str) -> None:
    with pytest.raises(UserError, match=r"accumulate=1, but trainer\.accumulate_grad_batches=2"):
        fit(tiny_model_dir, accumulate_grad_batches=2)


# -- what is trained -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_only_adapter_changes_and_it_is_float32(tiny_model_dir: str, precision: str) -> None:
    module = SPDFineTuningModule(tiny_model_dir, learning_rate=1e-2)
    before: dict[str, torch.Tensor] = {}

    class Before(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            before.update({n: p.detach().clone() for n, p in pl_module.named_parameters()})
            before.update({n: b.detach().clone() for n, b in pl_module.named_buffers()})

    fit(tiny_model_dir, module, callbacks=[Before()], precision=precision)
    base_dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    names = {n for n, p in module.named_parameters() if p.requires_grad}
    assert names == {n for n, _ in module.named_parameters() if "lora_" in n} and len(names) == 2 * 2 * 4
    for name, p in module.named_parameters():
        assert p.dtype == (torch.float32 if name in names else base_dtype), name
        assert torch.equal(p, before[name]) == (name not in names), name
    for name, b in module.named_buffers():
        if "inv_freq" in name:
            assert b.dtype == torch.float32 and torch.equal(b, before[name])


def test_lora_at_start_equals_base(tiny_model_dir: str) -> None:
    module = SPDFineTuningModule(tiny_model_dir)
    module.configure_model()
    ids = torch.arange(20)[None]
    assert torch.equal(module.model(input_ids=ids).logits, tiny_model()(input_ids=ids).logits)
    assert module.model.training is False
    assert {n for n, m in module.named_modules() if m.training and "lora_dropout" in n}
    assert all("lora_dropout" in n for n, m in module.model.named_modules() if m.training)


def test_same_seed_same_adapter_and_the_process_state_is_left_alone(tiny_model_dir: str) -> None:
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        module = SPDFineTuningModule(tiny_model_dir)
        module.configure_model()
        runs.append((trained(module), torch.rand(1)))
    assert all(torch.equal(runs[0][0][n], runs[1][0][n]) for n in runs[0][0])
    torch.manual_seed(1)
    assert runs[0][1] == torch.rand(1)


def test_dropout_is_that_of_the_step_and_off_in_validation(tiny_model_dir: str) -> None:
    """The base's own dropout never acts; the adapter's does in training, drawn from the seed alone."""
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        module = SPDFineTuningModule(tiny_model_dir, learning_rate=1e-2, lora_dropout=0.5)
        fit(tiny_model_dir, module, Texts(val=3))
        assert all("lora_dropout" in n for n, m in module.model.named_modules() if m.training)
        runs.append(trained(module))
    without, _ = fit(tiny_model_dir, SPDFineTuningModule(tiny_model_dir, learning_rate=1e-2, lora_dropout=0.0))
    assert all(torch.equal(runs[0][n], runs[1][n]) for n in runs[0])
    assert any(not torch.equal(runs[0][n], p) for n, p in trained(without).items())


def test_full_fine_tuning_trains_everything(tiny_model_dir: str) -> None:
    module = SPDFineTuningModule(tiny_model_dir, lora_r=None, learning_rate=1e-3)
    fit(tiny_model_dir, module)
    base = dict(tiny_model().named_parameters())
    assert all(not torch.equal(p, base[n]) for n, p in module.model.named_parameters())
    with pytest.raises(UserError, match="bf16-true with lora_r=null"):
        fit(tiny_model_dir, SPDFineTuningModule(tiny_model_dir, lora_r=None), precision="bf16-true")


def test_gradient_checkpointing_recomputes_and_changes_nothing(tiny_model_dir: str) -> None:
    """In float64: without checkpointing float32 layers are packed, which rounds otherwise."""
    calls = []
    results = []
    for checkpointing in (False, True):
        module = SPDFineTuningModule(tiny_model_dir, learning_rate=1e-2, gradient_checkpointing=checkpointing)
        module.configure_model()
        module.model.double()
        count = [0]
        layer = module.model.get_base_model().model.layers[0]
        layer.mlp.register_forward_pre_hook(lambda *a, count=count: count.__setitem__(0, count[0] + 1))
        fit(tiny_model_dir, module)
        calls.append(count[0])
        results.append(trained(module))
    assert calls[1] == 2 * calls[0]
    for name in results[0]:
        torch.testing.assert_close(results[1][name], results[0][name], rtol=1e-10, atol=1e-12)


def test_weight_decay_spares_norms_and_biases(tmp_path: Path) -> None:
    tiny_model("qwen2").save_pretrained(tmp_path)
    from tests.conftest import byte_tokenizer

    byte_tokenizer().save_pretrained(tmp_path)
    module = SPDFineTuningModule(str(tmp_path), lora_r=None, weight_decay=0.1)
    _, trainer = fit(str(tmp_path), module)
    decayed, spared = trainer.optimizers[0].param_groups
    names = {id(p): n for n, p in module.named_parameters()}
    assert decayed["weight_decay"] == 0.1 and spared["weight_decay"] == 0
    assert {names[id(p)].split(".")[-1] for p in decayed["params"]} == {"weight"}
    assert all("norm" in names[id(p)] or names[id(p)].endswith("bias") for p in spared["params"])
    assert not any("norm" in names[id(p)] for p in decayed["params"])


def test_schedule_warms_up_and_ends_at_zero(tiny_model_dir: str) -> None:
    assert [round(cosine_factor(s, 2, 6), 4) for s in range(7)] == [0, 0.5, 1, 0.8536, 0.5, 0.1464, 0]
    rates: list[float] = []

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    # 10 texts by 2 are 5 steps an epoch, warm-up 0.5 of that (rounded to even: 2), 10 in all
    fit(tiny_model_dir, data=Texts(10, 2), callbacks=[Rates()], max_epochs=2)
    assert rates == pytest.approx([1e-2 * cosine_factor(s, 2, 10) for s in range(10)])


def test_what_is_cut_and_what_is_left_out_is_said(tiny_model_dir: str, caplog: pytest.LogCaptureFixture) -> None:
    data = Texts(4, loss_on="completion")
    data.texts += [TrainingText("long:0", (1,) * 10, (2,) * 60), TrainingText("all prompt:0", (1,) * 64, (2,))]
    with caplog.at_level("INFO"):
        fit(tiny_model_dir, data=data)
    assert (
        "Training on 5 texts, 2 of them cut at max_length=64 tokens, 1 without a token to learn left out" in caplog.text
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_frozen_layers_are_packed_in_training_alone(tiny_model_dir: str, precision: str) -> None:
    """Not under bf16-mixed, where a packed layer would compute in float32, nor where memory is to be saved."""
    packed: list[int] = []

    def count(model: torch.nn.Module) -> int:
        return sum("forward" in m.__dict__ for m in model.modules())

    class Count(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
            packed.append(count(pl_module.model))

    for checkpointing in (False, True):
        module = SPDFineTuningModule(tiny_model_dir, gradient_checkpointing=checkpointing)
        fit(tiny_model_dir, module, Texts(4), callbacks=[Count()], precision=precision)
        assert count(module.model) == 0
    with packed_linears(module.model):
        layers = count(module.model)
    # two decoder layers and the vocabulary projection, not the adapter's; none where the processor cannot
    assert layers in (2 * 7 + 1, 0)
    assert packed == [0 if precision == "bf16-mixed" else layers, 0]


def test_logged_values(tiny_model_dir: str) -> None:
    _, trainer = fit(tiny_model_dir, data=Texts(val=5))
    metrics = trainer.callback_metrics
    assert {
        "train/loss",
        "train/lr",
        "train/grad_norm",
        "train/tokens_per_second",
        "train/padding_share",
        "val/loss",
    } <= set(metrics)
    assert 0 <= metrics["train/padding_share"] < 0.5 and metrics["train/tokens_per_second"] > 0


def test_validation_loss_is_the_mean_over_tokens(tiny_model_dir: str) -> None:
    module = SPDFineTuningModule(tiny_model_dir)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (values,) = trainer.validate(module, Texts(val=5), verbose=False)
    total, count = 0.0, 0
    for text in random_texts(5, 7):
        ids = torch.tensor([text.prompt_ids + text.completion_ids])
        with torch.no_grad():
            total += float(F.cross_entropy(tiny_model()(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    assert values["val/loss"] == pytest.approx(total / count, rel=1e-5)


# -- what is refused -----------------------------------------------------------------------------------------------


def test_loss_that_is_not_a_number_stops_before_the_weights_change(tiny_model_dir: str, tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    module = SPDFineTuningModule(tiny_model_dir, learning_rate=1e-2)

    class Break(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 2:
                norm = pl_module.model.get_base_model().model.norm
                with torch.no_grad():
                    norm.weight[0] = math.nan

    saver = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    with pytest.raises(UserError, match=r"train/loss is nan .* at optimiser step 2 .*last\.ckpt"):
        fit(tiny_model_dir, module, callbacks=[Break(), saver], enable_checkpointing=True)
    assert all(bool(p.isfinite().all()) for p in trained(module).values())


def test_token_outside_the_vocabulary(tiny_model_dir: str) -> None:
    data = Texts(3)
    data.texts.append(TrainingText("x:0", (1, 2), (300,)))
    with pytest.raises(UserError, match=r"token id 300, but the vocabulary of .* has 258 rows"):
        fit(tiny_model_dir, data=data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds=0 is too small"),
        ({"batch_size": 0}, "batch_size=0 is too small"),
        ({"max_length": 1}, "max_length=1 is too small"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0 is not above 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SPDFineTuningModule(**settings)


def test_precision_and_endless_training_are_refused(tiny_model_dir: str) -> None:
    with pytest.raises(UserError, match=r"^precision=64-true is not supported"):
        fit(tiny_model_dir, precision="64-true")
    with pytest.raises(UserError, match=r"max_epochs=-1 has none"):
        fit(tiny_model_dir, max_epochs=-1)


def sliding_model():  # type: ignore[no-untyped-def]
    """A random Mistral that looks back over eight tokens."""
    torch.manual_seed(0)
    config = transformers.MistralConfig(**TINY, sliding_window=8, attn_implementation="sdpa")  # type: ignore[call-arg]
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def test_packing_beyond_a_sliding_window_or_with_alibi_is_refused() -> None:
    texts = random_texts(7)
    model, longest = sliding_model(), max(len(t.prompt_ids + t.completion_ids) for t in texts)
    with pytest.raises(UserError, match=rf"sliding window of 8 tokens .* has {longest}.*--model\.packing=false"):
        check_packing(model, longest)
    check_packing(model, 8)
    for length, same in ((8, True), (64, False)):  # texts within the window lose nothing, longer ones would
        (packed,), (plain,) = (
            make_train_loader(texts, 7, length, 0, 0, 1, 256, packing=packing) for packing in (True, False)
        )
        difference = float(token_loss_sum(model, packed) - token_loss_sum(model, plain))
        assert (abs(difference) < 1e-3) == same, difference
    config = transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=258)
    with pytest.raises(UserError, match=r"ALiBi positions of this bloom model.*--model\.packing=false"):
        check_packing(transformers.AutoModelForCausalLM.from_config(config), 5)


def test_packing_is_checked_before_training(tmp_path: Path) -> None:
    sliding_model().save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="sliding window of 8 tokens"):
        fit(str(tmp_path), data=Texts(packing=True))


def test_a_checkpoint_by_the_clock_waits_for_the_optimiser_step(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One between two micro-batches would lose the gradient of the first, so a resumed run would differ."""
    clock = [0.0]
    monkeypatch.setattr(model_checkpoint, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Strike(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            clock[0] = 60.0 * (batch_idx >= 2)  # in the first micro-batch of the second step

    settings: dict[str, Any] = {"data": Texts(10, 4, accumulate=2), "accumulate_grad_batches": 2}
    saver = StepCheckpoint(tmp_path, "{step}", save_top_k=-1, train_time_interval=timedelta(seconds=50))
    straight, _ = fit(tiny_model_dir, callbacks=[Strike(), saver], enable_checkpointing=True, **settings)
    (path,) = tmp_path.iterdir()
    assert path.stem == "step=2" and torch.load(path, weights_only=True)["spd"]["loader"]["batch_index"] == 4
    resumed, _ = fit(tiny_model_dir, ckpt=path, **settings)
    assert all(torch.equal(value, trained(resumed)[name]) for name, value in trained(straight).items())


def test_trained_tokens_are_those_of_this_fit(tiny_model_dir: str, tmp_path: Path) -> None:
    saver = StepCheckpoint(tmp_path, "{step}", save_top_k=-1, train_time_interval=timedelta(microseconds=1))
    straight, trainer = fit(tiny_model_dir, callbacks=[saver], max_epochs=2, enable_checkpointing=True)
    assert straight.trained_tokens == 2 * trainer.train_dataloader.num_tokens
    resumed, _ = fit(tiny_model_dir, ckpt=tmp_path / "step=4.ckpt", max_epochs=2)
    assert 0 < resumed.trained_tokens < trainer.train_dataloader.num_tokens
    short, _ = fit(tiny_model_dir, max_epochs=-1, max_steps=1)
    assert 0 < short.trained_tokens < trainer.train_dataloader.num_tokens
