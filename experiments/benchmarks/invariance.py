"""Whether the float32 corpus of SmolLM2 has the same bytes for batch sizes 1, 7 and 64, also with noise in the logits.

    python -m experiments.benchmarks invariance [--batch_size N ...] [--noise X ...] [--out DIR] [--seconds S] [--quick]

256 GSM8K prompts, at most 128 new tokens, temperature 0.7, top-p 0.9. Each corpus is a folder of ``--out``, made with
the product's engine and corpus writer, so a run that is stopped, or that ends itself after ``--seconds``, goes on when
the same command is given again. Noise moves every logit of every batched forward by up to so much; the forwards that
decide a close draw again are left alone. What was counted is appended to ``stats.jsonl`` of the folder. Prints one line
a corpus: the hash of its bytes, and the share of draws that were decided again and of the time it took.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.generation import PUBLISHED, gsm8k_requests
from spd_lightning.generation import engine
from spd_lightning.generation.corpus import Corpus
from spd_lightning.generation.engine import EngineStats, generate
from spd_lightning.generation.requests import Generation, Request
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.embedded import EMBEDDED_MODEL
from spd_lightning.model.load import load_model, load_tokenizer


class OutOfTime(Exception):
    """The seconds of this run are over; what is written stands."""


def add_noise(size: float) -> None:
    """Move every logit of every batched forward by up to ``size``, otherwise each time."""
    batched = engine._batched_logits

    def noisy(*args: Any) -> torch.Tensor:
        logits = batched(*args)
        return logits + size * (2 * torch.rand_like(logits) - 1)

    engine._batched_logits = noisy  # type: ignore[assignment]


def write_corpus(
    model: Any, tokenizer: Any, requests: list[Request], new: int, batch_size: int, folder: Path, deadline: float
) -> None:
    """Generate what is missing of a corpus until the deadline (of `time.monotonic`), and finish it if all is there."""
    corpus, stats = Corpus(folder, "invariance"), EngineStats()

    def write(batch: list[Generation]) -> None:
        corpus.append([g.record() for g in batch])
        if time.monotonic() > deadline:
            raise OutOfTime

    try:
        params = SamplingParams(max_new_tokens=new, **PUBLISHED)
        generate(
            model, tokenizer, requests, params, batch_size, on_batch=write, finished=corpus.finished(), stats=stats
        )
    except OutOfTime:
        print(f"{folder.name}: {len(corpus.finished())} of {len(requests)} after this run", flush=True)
    finally:
        with open(folder / "stats.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(stats)) + "\n")
    if len(corpus.finished()) == len(requests):
        corpus.finalise(requests)


def describe(folder: Path) -> str:
    """One line on a finished corpus."""
    rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    total = {name: sum(row[name] for row in rows) for name in rows[0]}
    data = (folder / "generations.jsonl").read_bytes()
    return (
        f"{folder.name}: sha256 {hashlib.sha256(data).hexdigest()[:16]}, {len(data.splitlines()):,} completions, "
        f"{total['draws']:,} draws, decided again {total['redecided']} "
        f"({100 * total['redecided'] / total['draws']:.3f}% of draws, "
        f"{100 * total['redecided_seconds'] / total['seconds']:.2f}% of time)"
    )


def compare(folders: list[Path]) -> int:
    """Number of completions that are not the same in every corpus that has them, finished or not."""
    seen: dict[Any, set[str]] = {}
    for folder in folders:
        for key, record in Corpus(folder, "invariance")._records().items():
            seen.setdefault(key, set()).add(json.dumps(record))
    return sum(len(records) > 1 for records in seen.values())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks invariance", allow_abbrev=False)
    parser.add_argument("--data_dir", default=os.environ.get("SPD_DATA_DIR"))
    parser.add_argument("--out", type=Path, default=Path("runs/invariance"))
    parser.add_argument("--batch_size", type=int, nargs="+", default=[64, 7, 1])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 2e-4], help="in logit units")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after the batch that exceeds this")
    parser.add_argument("--quick", action="store_true", help="8 prompts, 16 tokens: shows that it runs")
    args = parser.parse_args(argv)
    deadline = time.monotonic() + args.seconds
    model, tokenizer = load_model(EMBEDDED_MODEL, torch.float32), load_tokenizer(EMBEDDED_MODEL)
    requests = gsm8k_requests(tokenizer, args.data_dir, 8 if args.quick else 256)
    plain = engine._batched_logits
    folders = []
    for noise in args.noise:
        add_noise(noise)
        for size in args.batch_size:
            folder = args.out / f"batch-{size}-noise-{noise:g}{'-quick' if args.quick else ''}"
            folders.append(folder)
            if not Corpus(folder, "invariance").is_final() and time.monotonic() < deadline:
                write_corpus(model, tokenizer, requests, 16 if args.quick else 128, size, folder, deadline)
        engine._batched_logits = plain
    finished = [folder for folder in folders if (folder / "generations.jsonl").exists()]
    print("\n".join(describe(folder) for folder in finished))
    different = compare(folders)
    print(f"{len(finished)} of {len(folders)} corpora are finished; {different} completions differ")
    return 0 if different == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
