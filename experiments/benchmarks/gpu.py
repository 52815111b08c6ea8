"""The figures that need a GPU, on random weights of real shapes: nothing is downloaded.

    python -m experiments.benchmarks gpu [--part generation|finetuning|extraction] [--json FILE] [--device cpu --quick]

generation: decoding at batch 256 on Qwen2.5-0.5B's shape, as a share of what reading weights and cache would take
(asked: 0.40). finetuning: LoRA on the 7B shape, model operations a second over the card's peak (asked: 0.40; a frozen
base needs 4 operations a weight and token, not 6). extraction: 500 texts of 256 tokens through the 7B shape over a
plain forward of the same tokens (asked: at most 1.5). Everything in bf16 with PyTorch's scaled dot-product attention.
``--device cpu --quick`` runs the same code on a tiny shape.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from lightning.pytorch import Callback, LightningDataModule, Trainer

from experiments.benchmarks.shapes import SHAPES, tiny_config
from spd_lightning.cost.formulas import estimate_fine_tune, estimate_generate
from spd_lightning.cost.machine import Machine, measure_machine
from spd_lightning.cost.shape import model_shape
from spd_lightning.finetuning.batching import TextLoader, make_train_loader
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.texts import TrainingText
from spd_lightning.finetuning.trained_model import set_train_mode
from spd_lightning.generation.engine import EngineStats, generate
from spd_lightning.generation.requests import Request
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.subspace.capture import capture_gradients, collate, form_batches
from spd_lightning.subspace.correctness import EncodedExample
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.sites import kv_sites

# Dense bf16 operations a second from the makers' data sheets, by a part of the device's name.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
DTYPE = torch.bfloat16


def random_model(config: Any, device: torch.device) -> Any:
    """A frozen bf16 model of a shape, made on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=DTYPE, attn_implementation="sdpa")
    model.generation_config.eos_token_id = None  # no row ends early
    return model.eval().requires_grad_(False)


def random_ids(rows: int, length: int, vocab_size: int) -> list[tuple[int, ...]]:
    """Token ids, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    return [tuple(row) for row in torch.randint(0, vocab_size, (rows, length), generator=generator).tolist()]


def synchronised(device: torch.device, work: Callable[[], Any]) -> float:
    """Seconds that work takes on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def generation(device: torch.device, machine: Machine, quick: bool) -> dict[str, float]:
    """Decoding steps against the memory-bandwidth roofline."""
    config = tiny_config() if quick else SHAPES["Qwen2.5-0.5B"]
    rows, length, new, repeats = (4, 8, 6, 1) if quick else (256, 128, 257, 3)
    model, shape = random_model(config, device), model_shape(config)
    bare = {"pad_token_id": 0, "eos_token_id": None, "added_tokens_decoder": {}, "decode": lambda ids, **_: ""}
    tokenizer: Any = SimpleNamespace(**bare)
    prompts = random_ids(rows, length, config.vocab_size)
    requests = [Request(str(i), "", ids) for i, ids in enumerate(prompts)]

    def seconds(tokens: int) -> float:
        stats = EngineStats()
        params = SamplingParams(max_new_tokens=tokens, temperature=0.7, top_p=0.9)
        took = synchronised(device, lambda: generate(model, tokenizer, requests, params, rows, stats=stats))
        assert stats.tokens == rows * tokens, "no row may end early"
        return took

    seconds(2)
    whole = statistics.median(seconds(new) for _ in range(repeats))
    first = statistics.median(seconds(1) for _ in range(repeats))
    traffic = [estimate_generate(shape, [length] * rows, n, DTYPE, rows).traffic for n in (1, new)]
    return {
        "roofline_share": (traffic[1] - traffic[0]) / machine.bandwidth / (whole - first),
        "tokens_per_second": rows * new / whole,
        "ms_per_step": 1e3 * (whole - first) / (new - 1),
        "ms_prefill": 1e3 * first,
    }


def finetuning(device: torch.device, machine: Machine, quick: bool) -> dict[str, float]:
    """The product's training loop with a preset model."""
    config = tiny_config() if quick else SHAPES["Qwen2.5-7B"]
    length, batch_size, steps, skip = (16, 2, 4, 2) if quick else (512, 8, 14, 4)
    ids = random_ids(batch_size * steps, length, config.vocab_size)
    texts = [TrainingText(str(i), row[: length // 2], row[length // 2 :]) for i, row in enumerate(ids)]

    class Data(LightningDataModule):
        def train_dataloader(self) -> TextLoader:
            return make_train_loader(texts, batch_size, length, 0, 0, 1, 0)

    times: list[float] = []

    class Clock(Callback):
        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            synchronised(device, lambda: None)
            times.append(time.perf_counter())

    module = SPDFineTuningModule("random weights", batch_size=batch_size, max_length=length)
    module.model = add_lora(random_model(config, device), 8, 8, 0.05, None, 0, "random weights")
    set_train_mode(module.model)
    Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-true",
        max_epochs=1,
        gradient_clip_val=1.0,
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, Data())
    step = statistics.median(b - a for a, b in zip(times[skip - 1 :], times[skip:]))
    flops = estimate_fine_tune(model_shape(config), [length] * batch_size, 1, 8, batch_size, DTYPE, DTYPE).flops
    peak = _peak(device)
    return {
        "mfu": flops / step / (peak or machine.flops[DTYPE]),
        "share_of_measured_matmul": flops / step / machine.flops[DTYPE],
        "tokens_per_second": batch_size * length / step,
        "ms_per_step": 1e3 * step,
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0,
    }


def extraction(device: torch.device, machine: Machine, quick: bool) -> dict[str, float]:
    """Stage 1 with the published layers over a plain forward, interleaved."""
    config = tiny_config() if quick else SHAPES["Qwen2.5-7B"]
    count, length, batch_tokens, repeats = (6, 16, 64, 1) if quick else (500, 256, 8192, 3)
    model = random_model(config, device)
    mask = (False,) * (length - 8) + (True,) * 8
    examples = [EncodedExample(f"{i:03d}", row, mask) for i, row in enumerate(random_ids(count, length, 300))]
    batches = [collate(batch) for batch in form_batches(examples, batch_tokens)]
    batches = [type(b)(*(tensor.to(device) for tensor in b)) for b in batches]
    depth = config.num_hidden_layers
    sites = kv_sites(model, [depth // 2, depth - 1])

    def plain() -> None:
        with torch.no_grad():
            for batch in batches:
                model(input_ids=batch.input_ids, use_cache=False)

    def ours() -> None:
        moments = Moments()
        for batch in batches:
            moments.update(capture_gradients(model, batch, sites), batch.num_tokens)
        moments.check("bfloat16")

    pairs = [(synchronised(device, plain), synchronised(device, ours)) for _ in range(repeats + 1)]
    pairs = pairs[1:]  # the first is warm-up
    return {
        "over_plain_forward": statistics.median(b / a for a, b in pairs),
        "tokens_per_second": count * length / statistics.median(b for _, b in pairs),
        "seconds": statistics.median(b for _, b in pairs),
    }


def _peak(device: torch.device) -> float | None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


PARTS: dict[str, Callable[[torch.device, Machine, bool], dict[str, float]]] = {
    "generation": generation,
    "finetuning": finetuning,
    "extraction": extraction,
}
ASKED = {"generation": ("roofline_share", 0.40), "finetuning": ("mfu", 0.40), "extraction": ("over_plain_forward", 1.5)}


def main(argv: list[str] | None = None) -> int:
    """Run the parts asked for, print a line each, and write all figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks gpu", description=__doc__)
    parser.add_argument("--part", choices=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a tiny shape: shows that the code runs")
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here. Run on a machine with one, or give --device cpu --quick.")
        return 1
    device = torch.device("cuda", 0) if device.type == "cuda" else device
    machine = measure_machine(device, [DTYPE])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "quick": args.quick}
    found["measured"] = {"matmul_flops": machine.flops[DTYPE], "bandwidth": machine.bandwidth, "peak": _peak(device)}
    print(f"{name}: {machine.flops[DTYPE] / 1e12:.1f} TFLOP/s in bf16, {machine.bandwidth / 1e9:,.0f} GB/s")
    for part in [args.part] if args.part else PARTS:
        found[part] = PARTS[part](device, machine, args.quick)
        key, asked = ASKED[part]
        rest = ", ".join(f"{k} {v:,.2f}" for k, v in found[part].items() if k != key)
        print(f"{part}: {key} {found[part][key]:.3f} (asked {asked}); {rest}", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if args.json:
            Path(args.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
