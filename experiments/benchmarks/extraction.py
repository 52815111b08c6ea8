"""Stage 1 against its plain reading: the same subspace, how much faster, in how much memory.

    python -m experiments.benchmarks extraction --data_dir DATA [--quick] [--part accuracy|speed|memory|gpu]

Accuracy: captured energy and principal angles at every site, for GSM8K, MBPP and MMLU, both span rules, centred or not.
Speed: paired and interleaved, medians of the ratios, with as many threads as there are cores. Memory: peak resident set
above the loaded model, each case in a process of its own. GPU (where there is one): extraction against a plain forward
pass over the same tokens, random weights of Qwen2.5-7B's shape.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks.reference import gradient_rows, leading_directions
from spd_lightning.model.anatomy import resolve_layers
from spd_lightning.model.load import load_model, load_tokenizer, resolve_dtype
from spd_lightning.model.packed_linear import packed_linears
from spd_lightning.subspace.capture import BATCH_TOKENS, capture_gradients, collate, form_batches
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.compare import principal_angles
from spd_lightning.subspace.correctness import EncodedExample, encode_examples
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.sites import kv_sites
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks import load_task

MODEL = "smollm2-135m-instruct"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for and print a table each."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks extraction", description=__doc__)
    parser.add_argument("--data_dir", default=os.environ.get("SPD_DATA_DIR"))
    parser.add_argument("--part", choices=["accuracy", "speed", "memory", "gpu", "memory-case"])
    parser.add_argument("--quick", action="store_true", help="few examples, one repetition: a check, not a measurement")
    parser.add_argument("--examples", type=int, help="calibration examples (accuracy 50, speed 20, or 6 and 2)")
    parser.add_argument("--task", nargs="+", default=["gsm8k", "mbpp", "mmlu"], help="of the accuracy part")
    parser.add_argument("--dtype", nargs="+", default=["float32", "float64", "bfloat16"], help="of the accuracy part")
    parser.add_argument("--rule", nargs="+", default=["overlap", "contained"], help="of the accuracy part")
    parser.add_argument("--repeats", type=int, help="repetitions of each pair (default 5)")
    args = parser.parse_args(argv)
    parts = {"accuracy": accuracy, "speed": speed, "memory": memory, "gpu": gpu, "memory-case": memory_case}
    for name in [args.part] if args.part else ["accuracy", "speed", "memory", "gpu"]:
        parts[name](args)
    return 0


def moments_of(model: Any, encoded: Sequence[EncodedExample], layers: Sequence[int]) -> Moments:
    """Stage 1 as the module runs it, without a Trainer."""
    sites, moments = kv_sites(model, layers), Moments()
    device = next(model.parameters()).device
    with packed_linears(model):
        for examples in form_batches(encoded, BATCH_TOKENS):
            batch = collate(examples)
            on_device = type(batch)(*(tensor.to(device) for tensor in batch))
            moments.update(capture_gradients(model, on_device, sites), batch.num_tokens)
    return moments


def agreement(rows: torch.Tensor, subspace: CapabilitySubspace, key: Any, center: bool) -> dict[str, float]:
    """Captured energy relative to the best possible, and cosines, against the SVD of the stacked rows."""
    exact = rows.double() - (rows.double().mean(dim=0) if center else 0.0)
    basis = subspace.basis(*key).double()
    best, values = leading_directions(rows.double(), basis.shape[1], center)
    cosines = principal_angles(basis, best).cos()
    energy = (exact @ basis).square().sum() / values[: basis.shape[1]].square().sum()
    return {
        "energy": abs(float(energy) - 1),
        "mean_squared": float(cosines.square().mean()),
        "smallest": float(cosines.min()),
        "numerical_rank": int((values > 1e-6 * values[0]).sum()),
    }


def accuracy(args: argparse.Namespace) -> None:
    """Worst site of every setting, float32 and float64, and what bf16 changes."""
    count = args.examples or (6 if args.quick else 50)
    tokenizer = load_tokenizer(MODEL)
    dtypes = [torch.float32] if args.quick else [getattr(torch, name) for name in args.dtype]
    print(f"\n{count} examples; the worst of 4 sites; reference in the same dtype (bf16: in float32)")
    print("| task | rule | center | dtype | energy, relative | mean cos² | smallest cos | rank of G |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: | ---: |")
    known: dict[Any, Any] = {}  # the reference's rows by task, rule and dtype: bf16 is held against those of float32
    for dtype in dtypes:
        model = load_model(MODEL, dtype)
        exact_model = load_model(MODEL, torch.float32) if dtype == torch.bfloat16 else model
        layers = [len(model.model.layers) // 2, len(model.model.layers) - 1]
        for task in args.task:
            examples = load_task(task, args.data_dir).examples("train", count)
            for rule in args.rule:
                encoded, _ = encode_examples(tokenizer, examples, span_rule=rule)
                moments = moments_of(model, encoded, layers)
                key = task, rule, exact_model.dtype
                if key not in known:
                    known[key] = gradient_rows(exact_model, tokenizer, examples, layers, rule, freeze=True)
                rows = known[key]
                for center in (False, True):
                    subspace = subspace_from_moments(moments, center=center)
                    sites = [agreement(rows[site], subspace, site, center) for site in rows]
                    print(
                        f"| {task} | {rule} | {center} | {str(dtype)[6:]} | {max(s['energy'] for s in sites):.1e} | "
                        f"{min(s['mean_squared'] for s in sites):.7f} | {min(s['smallest'] for s in sites):.7f} | "
                        f"{min(s['numerical_rank'] for s in sites)} |",
                        flush=True,
                    )


def speed(args: argparse.Namespace) -> None:
    """Seconds from encoded or plain text to bases; every round runs each variant once, in turn."""
    count = args.examples or (2 if args.quick else 20)
    repeats = args.repeats or (1 if args.quick else 5)
    tokenizer = load_tokenizer(MODEL)
    examples = load_task("gsm8k", args.data_dir).examples("train", count)
    models = {torch.float32: load_model(MODEL, torch.float32)}
    if resolve_dtype("auto") == torch.bfloat16:
        models[torch.bfloat16] = load_model(MODEL, torch.bfloat16)
    layers = [15, 29]

    def ours(dtype: torch.dtype) -> None:
        encoded, _ = encode_examples(tokenizer, examples)
        subspace_from_moments(moments_of(models[dtype], encoded, layers))

    def reference(dtype: torch.dtype, freeze: bool) -> None:
        rows = gradient_rows(models[dtype], tokenizer, examples, layers, freeze=freeze)
        for stacked in rows.values():
            leading_directions(stacked, stacked.shape[1] // 2, False)

    variants: dict[str, Callable[[], None]] = {}
    for dtype in models:
        short = str(dtype)[6:]
        variants[f"ours, {short}"] = lambda dtype=dtype: ours(dtype)  # type: ignore[misc]
        variants[f"reference, {short}"] = lambda dtype=dtype: reference(dtype, False)  # type: ignore[misc]
        variants[f"frozen reference, {short}"] = lambda dtype=dtype: reference(dtype, True)  # type: ignore[misc]
    flops = products(models[torch.float32], encode_examples(tokenizer, examples)[0], layers)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            seconds[name].append(time.perf_counter() - start)
    print(f"\nGSM8K, {count} examples, {torch.get_num_threads()} threads, median of {repeats}; speed-ups are paired")
    print(
        "| variant | seconds | x faster than the float32 reference | than the frozen float32 one | same dtype, frozen |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in variants:
        against = ["reference, float32", "frozen reference, float32"]
        short = name.rsplit(" ", 1)[-1]
        pairs = [against[0], against[1], f"reference, {short}", f"frozen reference, {short}"]
        ratio = [statistics.median(b / a for a, b in zip(seconds[name], seconds[other])) for other in pairs]
        print(
            f"| {name} | {statistics.median(seconds[name]):.2f} | {ratio[0]:.2f} | {ratio[1]:.2f} | "
            f"{ratio[2]:.2f}, {ratio[3]:.2f} |"
        )
    for dtype in models:
        rate = peak(dtype)
        print(
            f"ours, {str(dtype)[6:]}: {flops / 1e12:.2f} TFLOP of products, at the peak of a large one "
            f"({rate / 1e9:.0f} GFLOP/s) {flops / rate:.2f} s"
        )


def products(model: Any, encoded: Sequence[EncodedExample], layers: Sequence[int]) -> int:
    """Floating point operations of all matrix products of `moments_of`, attention's among them."""
    sites = kv_sites(model, layers)
    with FlopCounterMode(display=False) as counter:  # on unpacked layers, whose products it knows
        for examples in form_batches(encoded, BATCH_TOKENS):
            capture_gradients(model, collate(examples), sites)
    return counter.get_total_flops()


def peak(dtype: torch.dtype) -> float:
    """Floating point operations a second of a product of 2048 x 2048 matrices, the best of 9."""
    layer, x = torch.nn.Linear(2048, 2048, bias=False, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    seconds = []
    with torch.no_grad(), packed_linears(layer):
        for _ in range(9):
            start = time.perf_counter()
            layer(x)
            seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds)


def memory(args: argparse.Namespace) -> None:
    """Peak resident memory above the model's own for 50 and 500 examples."""
    print("\n| examples | peak above the model, MiB |\n| ---: | ---: |")
    for count in (4, 12) if args.quick else (50, 500):
        command = [sys.executable, "-m", "experiments.benchmarks", "extraction", "--part", "memory-case"]
        data = ["--data_dir", args.data_dir] if args.data_dir else []
        done = subprocess.run([*command, "--examples", str(count), *data], capture_output=True, text=True, check=True)
        print(f"| {count} | {json.loads(done.stdout.splitlines()[-1])['above_model_mib']:.0f} |", flush=True)


def memory_case(args: argparse.Namespace) -> None:
    """One case of `memory`, in a process of its own."""
    tokenizer, model = load_tokenizer(MODEL), load_model(MODEL, torch.float32)
    encoded, _ = encode_examples(tokenizer, load_task("gsm8k", args.data_dir).examples("train", args.examples))
    with torch.no_grad():  # touch every page of the weights, which safetensors maps lazily
        for parameter in model.parameters():
            parameter.sum()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak so far, that of loading, is forgotten
    own = memory_kib("VmRSS")
    moments_of(model, encoded, [15, 29])
    print(json.dumps({"above_model_mib": (memory_kib("VmHWM") - own) / 1024}))


def memory_kib(field: str) -> int:
    """A figure of this process's memory: VmRSS (resident now) or VmHWM (its peak)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def gpu(args: argparse.Namespace) -> None:
    """Extraction against a plain forward pass over the same tokens, on a GPU: random weights of Qwen2.5-7B's shape."""
    if not torch.cuda.is_available():
        print("\nNo GPU here: `--part gpu` on a machine with one measures extraction against a plain forward pass.")
        return
    import transformers

    config = transformers.Qwen2Config(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
    )
    count, length = (16, 64) if args.quick else (500, 256)
    ratio = against_forward(config, "cuda", torch.bfloat16, count, length, args.repeats or 5)
    print(f"\n{torch.cuda.get_device_name()}: extraction takes {ratio:.2f} times a plain forward pass over the tokens")


def against_forward(config: Any, device: str, dtype: torch.dtype, count: int, length: int, repeats: int) -> float:
    """Median over paired repetitions of extraction's seconds by those of a forward pass over the same tokens.

    Args:
        config: Of a causal language model, whose weights are drawn at random on the device.
        device: cuda, or cpu to try the path.
        dtype: Of the weights.
        count: Examples, each with its last token in S.
        length: Tokens of an example.
        repeats: Measured pairs, after one that is thrown away.
    """
    from transformers import AutoModelForCausalLM

    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.eval().requires_grad_(False)
    ids = torch.randint(config.vocab_size, (count, length), generator=torch.Generator().manual_seed(0)).tolist()
    mask = (False,) * (length - 1) + (True,)
    encoded = [EncodedExample(f"{i:03d}", tuple(row), mask) for i, row in enumerate(ids)]
    layers = resolve_layers("middle_last", config.num_hidden_layers)

    def forward() -> None:
        with torch.no_grad(), packed_linears(model):
            for examples in form_batches(encoded, BATCH_TOKENS):
                model(input_ids=collate(examples).input_ids.to(device), use_cache=False)

    def timed(run: Callable[[], Any]) -> float:
        torch.get_device_module(device).synchronize()
        start = time.perf_counter()
        run()
        torch.get_device_module(device).synchronize()
        return time.perf_counter() - start

    pairs = [(timed(forward), timed(lambda: moments_of(model, encoded, layers))) for _ in range(repeats + 1)]
    return statistics.median(extraction / plain for plain, extraction in pairs[1:])
