"""Stage 2 measured: kept tokens per second against plain ``generate``, the cost of projection, the roofline, start-up.

    python -m experiments.benchmarks generation [--part speed|projection|roofline|startup] [--figures FILE] [--quick]

The reference is transformers' own ``generate`` in float32 on batches of 8 prompts in the data's order, with the same
sampling settings. Kept tokens are those up to and including the first end-of-sequence. Ours is the product's engine, in
float32 and bf16. Variants alternate within a round, and medians over the rounds are shown, ratios as medians of the
ratios within a round. With ``--figures`` every round is appended to a file and the medians are taken over all rounds in
it, so that a long measurement can be made in several short ones. ``invariance`` has a script of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from spd_lightning.generation.engine import EngineStats, generate
from spd_lightning.generation.requests import Request, build_requests
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.anatomy import eos_token_ids
from spd_lightning.model.embedded import EMBEDDED_MODEL
from spd_lightning.model.load import load_model, load_tokenizer
from spd_lightning.model.packed_linear import packed_linears
from spd_lightning.subspace.projection import fold_projection
from spd_lightning.subspace.sites import kv_sites
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks import load_task

REFERENCE_BATCH, BATCH_SIZE = 8, 64
PARTS = ("startup", "speed", "projection", "roofline")
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


Rounds = dict[str, list[float]]  # variant -> its figure in every round


def alternate(variants: dict[str, Callable[[], float]], rounds: int, log: Path | None = None) -> Rounds:
    """Each variant's figure once a round, in an order that turns round every round; after those already in ``log``."""
    done = [json.loads(line) for line in log.read_text().splitlines()] if log is not None and log.exists() else []
    for turn in range(len(done), len(done) + rounds):
        figures: dict[str, float] = {}
        for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
            figures[name] = variants[name]()
            print(f"  round {turn + 1}: {name} {figures[name]:.1f}", flush=True)
        done.append(figures)
        if log is not None:
            with open(log, "a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
    return {name: [figures[name] for figures in done] for name in variants}


def summary(figures: Rounds, against: str) -> dict[str, Any]:
    """Median of every variant, and the median, least and largest of its ratios to ``against`` within a round."""
    result: dict[str, Any] = {"rounds": len(figures[against])}
    for name, values in figures.items():
        ratios = [a / b for a, b in zip(values, figures[against])]
        result[name] = {
            "median": statistics.median(values),
            "ratio": statistics.median(ratios),
            "ratios": [min(ratios), max(ratios)],
        }
    return result


def speed(
    models: dict[str, Any], tokenizer: Any, requests: list[Request], new: int, rounds: int, log: Path | None
) -> dict[str, Any]:
    """Kept tokens per second of the reference and of the engine in each dtype."""
    last: dict[str, EngineStats] = {}

    def reference() -> float:
        kept, seconds = run_reference(models["float32"], tokenizer, requests, new)
        return kept / seconds

    def ours(dtype: str) -> float:
        last[dtype] = run_engine(models[dtype], tokenizer, requests, new)
        return last[dtype].tokens / last[dtype].seconds

    variants: dict[str, Callable[[], float]] = {"reference": reference}
    variants |= {dtype: lambda dtype=dtype: ours(dtype) for dtype in models}  # type: ignore[misc]
    result = summary(alternate(variants, rounds, log), "reference")
    if "float32" in last:
        stats = last["float32"]
        result["redecided"] = {"of_draws": stats.redecided / stats.draws, "of_time": _share_of_time(stats)}
    return result


def _share_of_time(stats: EngineStats) -> float:
    return stats.redecided_seconds / stats.seconds


def random_subspace(model: Any) -> CapabilitySubspace:
    """A subspace of half rank at the middle and the last layer."""
    generator = torch.Generator().manual_seed(0)
    bases: dict[Any, torch.Tensor] = {}
    for (layer, side), site in kv_sites(model).items():
        if layer in (model.config.num_hidden_layers // 2, model.config.num_hidden_layers - 1):
            noise = torch.randn(site.kv_dim, site.kv_dim // 2, generator=generator)
            bases[layer, side] = torch.linalg.qr(noise).Q
    return CapabilitySubspace(bases, {key: torch.ones(len(basis)) for key, basis in bases.items()})


def projection_cost(
    model: Any, tokenizer: Any, requests: list[Request], new: int, rounds: int, log: Path | None
) -> dict[str, Any]:
    """Folded speed over unprojected speed at equally many new tokens, and whether a profile shows another operator."""
    subspace = random_subspace(model)
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
        figures = alternate({"plain": once, "folded": folded}, rounds, log)
        before = operators()
        with fold_projection(model, subspace):
            after = operators()
    finally:
        model.generation_config.eos_token_id, tokenizer.eos_token = ends
    differing = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    return summary(figures, "plain") | {"operators_that_differ": differing}


def roofline(model: Any, tokenizer: Any, requests: list[Request], new: int) -> dict[str, float]:
    """The least time a step can take over the time it takes: weights read once or products at the machine's own rate,
    whichever is slower, and the prompts' products shared out over the steps."""
    dtype = model.dtype
    weights = sum(p.numel() * p.element_size() for p in {id(p): p for p in model.parameters()}.values())
    embedding = model.get_input_embeddings().weight
    products = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    if model.get_output_embeddings().weight is not embedding:
        products -= embedding.numel()  # a look-up, not a product
    big = torch.ones(2**28, dtype=torch.uint8)  # written to, else every page is the same empty one
    bandwidth = big.numel() / _fastest(lambda: big.view(torch.int64).sum())
    big_layer = torch.nn.Linear(2048, 2048, bias=False, dtype=dtype).requires_grad_(False)
    x = torch.randn(1024, 2048).to(dtype)
    with torch.no_grad(), packed_linears(big_layer):
        rate = 2 * x.shape[0] * big_layer.weight.numel() / _fastest(lambda: big_layer(x))
    stats = run_engine(model, tokenizer, requests, new)
    head = embedding.numel()  # not computed for a prompt's tokens but the last
    prompt_flop = 2 * (products - head) * (sum(len(r.prompt_ids) for r in requests) - len(requests))
    rows = stats.draws / stats.forwards
    step = stats.seconds / stats.forwards
    least = max(weights / bandwidth, 2 * products * rows / rate) + prompt_flop / rate / stats.forwards
    return {
        "weights_mb_per_step": weights / 1e6,
        "gflop_per_step": 2 * products * rows / 1e9,
        "mean_rows": rows,
        "gflop_of_prompts": prompt_flop / 1e9,
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


def start_up(folder: Path) -> dict[str, float]:
    """Seconds of a new process that loads model and tokenizer and folds a subspace; the weights are in the cache."""
    path = folder / "subspace.safetensors"
    random_subspace(load_model(EMBEDDED_MODEL, torch.float32)).save(path)
    code = f"""import time; start = time.perf_counter()
from spd_lightning.model.load import load_model, load_tokenizer; import torch
from spd_lightning.model.packed_linear import packed_linears
from spd_lightning.model.packed_linear import packed_linears
from spd_lightning.subspace.projection import fold_projection
from spd_lightning.subspace.subspace import CapabilitySubspace
imported = time.perf_counter()
model, _ = load_model({EMBEDDED_MODEL!r}, torch.float32), load_tokenizer({EMBEDDED_MODEL!r})
loaded = time.perf_counter()
with fold_projection(model, CapabilitySubspace.load({str(path)!r})), packed_linears(model):
    print(imported - start, loaded - imported, time.perf_counter() - loaded)"""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    total = time.perf_counter() - start
    return dict(zip(("import", "load", "fold_and_pack"), map(float, run.stdout.split()))) | {"process": total}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks generation", allow_abbrev=False)
    parser.add_argument("--data_dir", default=os.environ.get("SPD_DATA_DIR"))
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--max_new_tokens", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=3, help="rounds of the speed comparison")
    parser.add_argument("--folded_pairs", type=int, default=9, help="rounds of the cost of projection")
    parser.add_argument("--part", choices=["all", *PARTS], default="all", help="what to measure")
    parser.add_argument("--figures", type=Path, help="file to which every round of one part is appended")
    parser.add_argument("--quick", action="store_true", help="8 prompts, 16 tokens, one round: shows that it runs")
    args = parser.parse_args(argv)
    if args.figures is not None and args.part not in ("speed", "projection"):
        parser.error("--figures belongs to one part of several rounds: --part speed or --part projection")
    if args.quick:
        args.prompts, args.max_new_tokens, args.pairs, args.folded_pairs = 8, 16, 1, 1
    parts = PARTS if args.part == "all" else (args.part,)
    tokenizer = load_tokenizer(EMBEDDED_MODEL)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    models = {name: load_model(EMBEDDED_MODEL, dtype) for name, dtype in dtypes.items()}
    requests = gsm8k_requests(tokenizer, args.data_dir, args.prompts)
    new, forced = args.max_new_tokens, min(32, args.max_new_tokens)
    for model in models.values():
        run_engine(model, tokenizer, requests[:8], 4)  # what is made on first use
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "prompts": len(requests)}
    if "startup" in parts:
        with tempfile.TemporaryDirectory() as folder:
            result["startup"] = start_up(Path(folder))
    if "speed" in parts:
        print("kept tokens per second")
        result["speed"] = speed(models, tokenizer, requests, new, args.pairs, args.figures)
    if "projection" in parts:
        print("cost of projection, tokens per second")
        result["projection"] = projection_cost(
            models["float32"], tokenizer, requests, forced, args.folded_pairs, args.figures
        )
    if "roofline" in parts:
        result["roofline"] = {name: roofline(m, tokenizer, requests, new) for name, m in models.items()}
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
