"""What scoring a student with its adapter beside the base costs: decoding against merged weights, in pairs.

    python -m experiments.benchmarks adapter [--pairs 9] [--lora_r 8] [--dtype bfloat16 float32] [--quick]

The adapter stands at every query, key, value and output projection. Every row is made to go on for the same number of
tokens, so that both decode the same shapes. Runs alternate; the figure is the median of the ratios within a pair, by
the clock on the wall and by the processor time of the process, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.generation import gsm8k_requests
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.student import merged_copy, save_adapter
from spd_lightning.generation.engine import generate
from spd_lightning.generation.requests import Request
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.embedded import EMBEDDED_MODEL
from spd_lightning.model.load import load_model, load_student, load_tokenizer


def random_adapter(folder: Path, lora_r: int) -> Path:
    """A PEFT folder at the attention's projections of the embedded model, its second factors small and not zero."""
    student = add_lora(load_model(EMBEDDED_MODEL, torch.float32), lora_r, lora_r, 0.0, None, 0, EMBEDDED_MODEL)
    for name, weight in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-3)
    return save_adapter(student, folder)


def decode(model: Any, tokenizer: Any, requests: list[Request], new: int) -> tuple[float, float]:
    """Seconds on the wall and of the processors for ``new`` tokens of every request."""
    wall, cpu = time.perf_counter(), time.process_time()
    done = generate(model, tokenizer, requests, SamplingParams(max_new_tokens=new), batch_size=len(requests))
    assert all(g.num_tokens == new for g in done)
    return time.perf_counter() - wall, time.process_time() - cpu


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks adapter", allow_abbrev=False)
    parser.add_argument("--data_dir", default=os.environ.get("SPD_DATA_DIR"))
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--max_new_tokens", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--lora_r", type=int, default=8)
    parser.add_argument("--dtype", nargs="+", choices=["bfloat16", "float32"], default=["bfloat16", "float32"])
    parser.add_argument("--quick", action="store_true", help="8 prompts, 8 tokens, one pair: shows that it runs")
    args = parser.parse_args(argv)
    if args.quick:
        args.prompts, args.max_new_tokens, args.pairs = 8, 8, 1
    tokenizer = load_tokenizer(EMBEDDED_MODEL)
    requests = gsm8k_requests(tokenizer, args.data_dir, args.prompts)
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "prompts": len(requests), "lora_r": args.lora_r}
    with tempfile.TemporaryDirectory() as folder:
        adapter = random_adapter(Path(folder), args.lora_r)
        for name in args.dtype:
            dtype = getattr(torch, name)
            models: dict[str, Any] = {
                "merged": merged_copy(EMBEDDED_MODEL, adapter, dtype),
                "beside": load_student(EMBEDDED_MODEL, adapter, dtype),
            }
            tokenizer.eos_token = None  # rows go on
            for model in models.values():
                model.generation_config.eos_token_id = None
                decode(model, tokenizer, requests[:8], 2)  # what is made on first use
            ratios: list[tuple[float, float]] = []
            for turn in range(args.pairs):
                order = list(models)[:: 1 if turn % 2 == 0 else -1]
                taken = {key: decode(models[key], tokenizer, requests, args.max_new_tokens) for key in order}
                ratios.append(tuple(taken["beside"][i] / taken["merged"][i] for i in (0, 1)))  # type: ignore[arg-type]
                print(f"  {name} pair {turn + 1}: {taken} ratio {ratios[-1]}", flush=True)
            for at, clock in enumerate(("wall", "processor")):
                values = [r[at] for r in ratios]
                result[f"{name} {clock}"] = [statistics.median(values), min(values), max(values)]
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
