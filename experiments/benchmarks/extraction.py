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
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from experiments.benchmarks.reference import gradient_rows, leading_directions
from spd_lightning.model import load_model, load_tokenizer, resolve_dtype
from spd_lightning.subspace.capture import capture_gradients, collate, form_batches
from spd_lightning.subspace.compare import principal_angles
from spd_lightning.subspace.correctness import EncodedExample, SpanRule, encode_examples
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.sites import kv_sites
from spd_lightning.subspace.subspace import CapabilitySubspace, subspace_from_moments
from spd_lightning.tasks import load_task

MODEL = "smollm2-135m-instruct"
BATCH_TOKENS = 2048


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for and print a table each."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks extraction", description=__doc__)
    parser.add_argument("--data_dir", default=os.environ.get("SPD_DATA_DIR"))
    parser.add_argument("--part", choices=["accuracy", "speed", "memory", "gpu", "memory-case"])
    parser.add_argument("--quick", action="store_true", help="few examples, one repetition: a check, not a measurement")
    parser.add_argument("--examples", type=int, help="calibration examples (accuracy 50, speed 20, or 6 and 2)")
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
    dtypes = [torch.float32] if args.quick else [torch.float32, torch.float64, torch.bfloat16]
    print(f"\n{count} examples; the worst of 4 sites; reference in the same dtype (bf16: in float32)")
    print("| task | rule | center | dtype | energy, relative | mean cos² | smallest cos | rank of G |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: | ---: |")
    for dtype in dtypes:
        model = load_model(MODEL, dtype)
        exact_model = load_model(MODEL, torch.float32) if dtype == torch.bfloat16 else model
        layers = [len(model.model.layers) // 2, len(model.model.layers) - 1]
        rules: tuple[SpanRule, ...] = ("overlap", "contained")
        for task in ("gsm8k", "mbpp", "mmlu"):
            examples = load_task(task, args.data_dir).examples("train", count)
            for rule in rules:
                encoded, _ = encode_examples(tokenizer, examples, span_rule=rule)
                moments = moments_of(model, encoded, layers)
                rows = gradient_rows(exact_model, tokenizer, examples, layers, rule, freeze=True)
                for center in (False, True):
                    subspace = subspace_from_moments(moments, center=center)
                    sites = [agreement(rows[key], subspace, key, center) for key in rows]
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
    with open("/proc/self/status", encoding="utf-8") as status:
        own = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    moments_of(model, encoded, [15, 29])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"above_model_mib": (peak - own) / 1024}))


def gpu(args: argparse.Namespace) -> None:
    """Extraction against a plain forward pass over the same tokens, on a GPU."""
    if not torch.cuda.is_available():
        print("\nNo GPU here: `--part gpu` on a machine with one measures extraction against a plain forward pass.")
        return
    import transformers

    count, length = (16, 64) if args.quick else (500, 256)
    config = transformers.Qwen2Config(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    torch.set_default_dtype(torch.float32)
    model.eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 150000, (count, length), generator=generator).tolist()
    mask = (False,) * (length - 1) + (True,)
    encoded = [EncodedExample(f"{i:03d}", tuple(row), mask) for i, row in enumerate(ids)]

    def forward() -> None:
        with torch.no_grad():
            for examples in form_batches(encoded, BATCH_TOKENS):
                model(input_ids=collate(examples).input_ids.cuda(), use_cache=False)

    def timed(run: Callable[[], Any]) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    pairs = [(timed(forward), timed(lambda: moments_of(model, encoded, [14, 27]))) for _ in range(args.repeats or 6)]
    ratio = statistics.median(extraction / plain for plain, extraction in pairs[1:] or pairs)
    print(f"\n{torch.cuda.get_device_name()}: extraction takes {ratio:.2f} times a plain forward pass over the tokens")
