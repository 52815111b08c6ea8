"""Stage 2 measured: kept tokens per second against plain ``generate``, the cost of projection, the roofline, start-up.

    python -m experiments.benchmarks generation [--quick] [--data_dir DIR] [--prompts N] [--pairs N] [--invariance]

The reference is transformers' own ``generate`` in float32 on batches of 8 prompts in the data's order, with the same
sampling settings. Kept tokens are those up to and including the first end-of-sequence. Ours is the product's engine, in
float32 and bf16. Variants alternate within a round, and medians over the rounds are shown. ``--invariance`` generates
one float32 corpus with batch sizes 1, 7 and 64 and compares the bytes (256 prompts of 128 tokens: an hour on 2 cores).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from spd_lightning.generation.engine import EngineStats, Request, build_requests, generate
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model import EMBEDDED_MODEL, eos_token_ids, load_model, load_tokenizer
from spd_lightning.subspace.projection import fold_projection
from spd_lightning.subspace.sites import kv_sites
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks import load_task

REFERENCE_BATCH, BATCH_SIZE = 8, 64
PUBLISHED = {"temperature": 0.7, "top_p": 0.9}


def gsm8k_requests(tokenizer: Any, data_dir: str | None, n: int) -> list[Request]:
    """The first training prompts of GSM8K."""
    examples = load_task("gsm8k", data_dir=data_dir).examples("train", n)
    return build_requests(tokenizer, [(e.id, e.prompt) for e in examples], max_prompt_length=384)[0]


def run_reference(model: Any, tokenizer: Any, requests: list[Request], max_new_tokens: int) -> tuple[int, float]:
    """Plain ``generate``: kept tokens and seconds."""
    eos = set(eos_token_ids(model, tokenizer))
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": max_new_tokens, **PUBLISHED}
    kept = 0
    torch.manual_seed(42)
    start = time.perf_counter()
    for first in range(0, len(requests), REFERENCE_BATCH):
        rows = [r.prompt_ids for r in requests[first : first + REFERENCE_BATCH]]
        width = max(map(len, rows))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(r)) + list(r) for r in rows])
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
        out = model.generate(
            ids, attention_mask=mask, eos_token_id=sorted(eos), pad_token_id=tokenizer.pad_token_id, **options
        )
        for row in out[:, width:].tolist():
            kept += next((i + 1 for i, token in enumerate(row) if token in eos), len(row))
    return kept, time.perf_counter() - start


def run_engine(
    model: Any, tokenizer: Any, requests: list[Request], max_new_tokens: int, batch_size: int = BATCH_SIZE
) -> EngineStats:
    """The product's engine with the published sampling."""
    stats = EngineStats()
    params = SamplingParams(max_new_tokens=max_new_tokens, **PUBLISHED)
    generate(model, tokenizer, requests, params, batch_size, stats=stats)
    return stats


def alternate(variants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each variant's figure once a round, in an order that turns round every round."""
    figures: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds):
        for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
            figures[name].append(variants[name]())
            print(f"  round {turn + 1}: {name} {figures[name][-1]:.1f}", flush=True)
    return figures


def speed(models: dict[str, Any], tokenizer: Any, requests: list[Request], new: int, rounds: int) -> dict[str, Any]:
    """Kept tokens per second of the reference and of the engine in each dtype; ratios within a round."""
    last: dict[str, EngineStats] = {}

    def reference() -> float:
        kept, seconds = run_reference(models["float32"], tokenizer, requests, new)
        return kept / seconds

    def ours(dtype: str) -> float:
        last[dtype] = run_engine(models[dtype], tokenizer, requests, new)
        return last[dtype].tokens / last[dtype].seconds

    variants: dict[str, Callable[[], float]] = {"reference": reference}
    variants |= {dtype: lambda dtype=dtype: ours(dtype) for dtype in models}  # type: ignore[misc]
    figures = alternate(variants, rounds)
    result: dict[str, Any] = {"tokens_per_second": {k: statistics.median(v) for k, v in figures.items()}}
    for dtype in models:
        pairs = zip(figures[dtype], figures["reference"])
        result[f"ratio_{dtype}"] = statistics.median(a / b for a, b in pairs)
    stats = last["float32"]
    result["redecided_share"] = stats.redecided / stats.draws
    result["redecided_cost"] = stats.redecided_seconds / stats.seconds
    return result


def projection_cost(model: Any, tokenizer: Any, requests: list[Request], new: int, rounds: int) -> dict[str, Any]:
    """Folded speed over unprojected speed at equally many new tokens, and whether a profile shows another operator."""
    generator = torch.Generator().manual_seed(0)
    bases: dict[Any, torch.Tensor] = {}
    for (layer, side), site in kv_sites(model).items():
        if layer in (model.config.num_hidden_layers // 2, model.config.num_hidden_layers - 1):
            noise = torch.randn(site.kv_dim, site.kv_dim // 2, generator=generator)
            bases[layer, side] = torch.linalg.qr(noise).Q
    subspace = CapabilitySubspace(bases, {key: torch.ones(len(basis)) for key, basis in bases.items()})
    ends = model.generation_config.eos_token_id, tokenizer.eos_token
    model.generation_config.eos_token_id, tokenizer.eos_token = None, None  # no row ends early

    def once(n: int = new) -> float:
        stats = run_engine(model, tokenizer, requests, n)
        assert stats.tokens == n * len(requests), "the number of new tokens is forced equal"
        return stats.tokens / stats.seconds

    def folded() -> float:
        with fold_projection(model, subspace):
            return once()

    def operators() -> dict[str, int]:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            once(2)
        return {event.key: event.count for event in profiler.key_averages()}

    try:
        figures = alternate({"plain": once, "folded": folded}, rounds)
        before = operators()
        with fold_projection(model, subspace):
            after = operators()
    finally:
        model.generation_config.eos_token_id, tokenizer.eos_token = ends
    return {
        "folded_over_plain": statistics.median(a / b for a, b in zip(figures["folded"], figures["plain"])),
        "operators_that_differ": sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k)),
    }


def roofline(model: Any, tokenizer: Any, requests: list[Request], new: int) -> dict[str, float]:
    """The least time a step can take (weights read once; products at the machine's own rate) over the time it takes."""
    dtype = model.dtype
    weights = sum(p.numel() * p.element_size() for p in {id(p): p for p in model.parameters()}.values())
    embedding = model.get_input_embeddings().weight
    products = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    if model.get_output_embeddings().weight is not embedding:
        products -= embedding.numel()  # a look-up, not a product
    big = torch.ones(2**28, dtype=torch.uint8)  # written to, else every page is the same empty one
    bandwidth = big.numel() / _fastest(lambda: big.view(torch.int64).sum())
    a, b = torch.randn(64, 2048).to(dtype), torch.randn(2048, 8192).to(dtype)
    rate = 2 * 64 * 2048 * 8192 / _fastest(lambda: a @ b)
    stats = run_engine(model, tokenizer, requests, new)
    rows = stats.draws / stats.forwards
    step = stats.seconds / stats.forwards
    least = max(weights / bandwidth, 2 * products * rows / rate)
    return {
        "weights_mb_per_step": weights / 1e6,
        "gflop_per_step": 2 * products * rows / 1e9,
        "mean_rows": rows,
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "matmul_gflop_per_s": rate / 1e9,
        "least_ms_per_step": least * 1e3,
        "ms_per_step": step * 1e3,
        "share_of_roofline": least / step,
    }


def _fastest(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def start_up() -> float:
    """Seconds of a new process that loads the model and tokenizer (the dequantised weights are in the cache)."""
    code = f"""from spd_lightning.model import load_model, load_tokenizer; import torch
load_model({EMBEDDED_MODEL!r}, torch.float32); load_tokenizer({EMBEDDED_MODEL!r})"""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def invariance(model: Any, tokenizer: Any, requests: list[Request], new: int) -> dict[str, Any]:
    """Whether batch sizes 1, 7 and 64 give the same float32 completions."""
    corpora, shares = [], []
    for size in (64, 7, 1):
        stats = EngineStats()
        params = SamplingParams(max_new_tokens=new, **PUBLISHED)
        done = generate(model, tokenizer, requests, params, size, stats=stats)
        corpora.append({(g.id, g.sample): g for g in done})
        shares.append(stats.redecided / stats.draws)
        print(f"  batch size {size}: {stats.tokens} tokens in {stats.seconds:.0f} s", flush=True)
    different = sum(len({c[key].token_ids for c in corpora}) > 1 for key in corpora[0])
    return {"completions": len(requests), "that_differ": different, "redecided_share": max(shares)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks generation", allow_abbrev=False)
    parser.add_argument("--data_dir", default=os.environ.get("SPD_DATA_DIR"))
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--max_new_tokens", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=3, help="rounds of the speed comparison")
    parser.add_argument("--folded_pairs", type=int, default=9, help="rounds of the cost of projection")
    parser.add_argument("--invariance", action="store_true", help="compare batch sizes 1, 7 and 64 as well")
    parser.add_argument("--quick", action="store_true", help="8 prompts, 16 tokens, one round: shows that it runs")
    args = parser.parse_args(argv)
    if args.quick:
        args.prompts, args.max_new_tokens, args.pairs, args.folded_pairs = 8, 16, 1, 1
    tokenizer = load_tokenizer(EMBEDDED_MODEL)
    models = {
        name: load_model(EMBEDDED_MODEL, dtype)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    requests = gsm8k_requests(tokenizer, args.data_dir, args.prompts)
    forced = min(32, args.max_new_tokens)
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "prompts": len(requests)}
    result["start_up_seconds"] = start_up()
    print("kept tokens per second")
    result["speed"] = speed(models, tokenizer, requests, args.max_new_tokens, args.pairs)
    print("cost of projection, tokens per second")
    result["projection"] = projection_cost(models["float32"], tokenizer, requests, forced, args.folded_pairs)
    result["roofline"] = {
        name: roofline(model, tokenizer, requests, args.max_new_tokens) for name, model in models.items()
    }
    if args.invariance:
        many = gsm8k_requests(tokenizer, args.data_dir, 8 if args.quick else 256)
        result["invariance"] = invariance(models["float32"], tokenizer, many, 16 if args.quick else 128)
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
