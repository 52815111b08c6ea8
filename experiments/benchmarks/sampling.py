"""Drawing one token for each row, in pairs with another version of the sampling module.

    git show REVISION:spd_lightning/generation/sampling.py > former.py
    python -m experiments.benchmarks sampling --against former.py [--rows 64] [--vocab 49152] [--pairs 60]

Processor time of one thread, so that neighbours on the machine count little; the order within a pair alternates.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from typing import Any

import torch

from spd_lightning.generation import sampling

METHODS: dict[str, dict[str, Any]] = {"psr": {}, "ssd": {"top_p": 0.9}, "greedy": {"temperature": 0.0}}


def seconds(module: Any, logits: torch.Tensor, settings: dict[str, Any]) -> float:
    """Processor seconds of one draw for every row, ties looked for."""
    params = module.SamplingParams(**{"temperature": 0.7, **settings})
    keys = module.step_keys([module.row_key(1, str(i), 0) for i in range(len(logits))], 0)
    start = time.process_time()
    module.choose_tokens(logits, params, keys, sampling.TIE_MARGIN)
    return time.process_time() - start


def main(argv: list[str]) -> None:
    """Print milliseconds per step and method, and the ratio of the pairs."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks sampling", description=__doc__)
    parser.add_argument("--against", required=True, help="File of the former module.")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--methods", nargs="+", default=["psr"], choices=list(METHODS))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("former_sampling", args.against)
    assert spec is not None and spec.loader is not None
    former = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = former  # its dataclass looks itself up there
    spec.loader.exec_module(former)
    logits = torch.randn(args.rows, args.vocab, generator=torch.Generator().manual_seed(1)) * 2
    for method in args.methods:
        pairs = []
        with torch.inference_mode():
            for i in range(args.pairs):
                order = (former, sampling) if i % 2 else (sampling, former)
                taken = {module.__name__: seconds(module, logits, METHODS[method]) for module in order}
                pairs.append((taken[former.__name__], taken[sampling.__name__]))
        before, after = (statistics.median(column) * 1e3 for column in zip(*pairs))
        low, ratio, high = statistics.quantiles([b / a for a, b in pairs])
        print(
            f"{method}: {before:.1f} ms before, {after:.1f} ms now ({args.rows} rows, {args.vocab} tokens); "
            f"ratio {ratio:.2f} (quartiles {low:.2f} to {high:.2f}, {args.pairs} pairs)"
        )
