"""Stage 3 measured: real tokens per second against a plain loop, final loss on the same data, peak memory.

    python -m experiments.benchmarks finetuning [--quick] [--data_dir DIR] [--texts N] [--pairs N]

The reference is a short script's loop: every text padded to 256 tokens, batches of 4 in random order, the same LoRA
adapter, transformers' own loss. Ours is the product: its module and loader under a Lightning Trainer. Both train one
epoch on GSM8K completions that the model itself sampled (with ``--quick`` few, and GSM8K's own answers), with the same
schedule; afterwards the float32 loss on held-out texts is taken in the same way. Every measurement is a process of its
own; variants alternate within a round, and medians over the rounds are shown.
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
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer

from spd_lightning.artifacts.files import read_jsonl, write_jsonl
from spd_lightning.finetuning.batching import TextLoader, make_train_loader, make_val_loader
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.loss import token_loss_sum
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.finetuning.optimiser import cosine_factor
from spd_lightning.finetuning.texts import TrainingText, texts_from_corpus
from spd_lightning.model.embedded import EMBEDDED_MODEL
from spd_lightning.model.load import load_model, load_tokenizer

MAX_LENGTH, BATCH_SIZE, LEARNING_RATE, HELD_OUT = 256, 4, 1e-4, 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Meter:
    """Wall and processor time between start and stop, and how far resident memory rose above its start (MiB; Linux)."""

    def start(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the highest size so far, loading's, is forgotten
        self.memory = self._mib("VmRSS")
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        self.memory = self._mib("VmHWM") - self.memory

    @staticmethod
    def _mib(name: str) -> float:
        status = Path("/proc/self/status").read_text()
        return float(status.split(f"{name}:")[1].split()[0]) / 1024


def train_reference(texts: list[TrainingText], dtype: torch.dtype, pad: int, meter: Meter) -> torch.nn.Module:
    """The plain loop."""
    model = add_lora(load_model(EMBEDDED_MODEL, dtype), 8, 8, 0.05, None, 42, EMBEDDED_MODEL)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.01)
    steps = -(-len(texts) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_factor(step, round(steps / 2), steps))
    torch.manual_seed(42)
    order = torch.randperm(len(texts)).tolist()
    meter.start()
    for first in range(0, len(order), BATCH_SIZE):
        rows = [(texts[i].prompt_ids + texts[i].completion_ids)[:MAX_LENGTH] for i in order[first : first + BATCH_SIZE]]
        ids = torch.tensor([[*row, *[pad] * (MAX_LENGTH - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (MAX_LENGTH - len(row)) for row in rows])
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    meter.stop()
    return model


def train_ours(
    texts: list[TrainingText], dtype: torch.dtype, pad: int, meter: Meter, **options: Any
) -> torch.nn.Module:
    """The product."""

    class Data(LightningDataModule):
        def train_dataloader(self) -> TextLoader:
            return make_train_loader(texts, BATCH_SIZE, MAX_LENGTH, 42, 0, 1, pad, packing=bool(options.get("packing")))

    class Time(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            meter.start()

        def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
            meter.stop()

    module = SPDFineTuningModule(EMBEDDED_MODEL, learning_rate=LEARNING_RATE, **options)
    Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        precision="bf16-true" if dtype == torch.bfloat16 else "32-true",
        gradient_clip_val=1.0,
        callbacks=[Time()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, Data())
    assert module.model is not None
    return module.model


VARIANTS = {
    "reference": train_reference,
    "ours": train_ours,
    "ours, checkpointing": lambda *args: train_ours(*args, gradient_checkpointing=True),
    "ours, packing": lambda *args: train_ours(*args, packing=True),
}


def held_out_loss(model: torch.nn.Module, texts: list[TrainingText], pad: int) -> float:
    """Nats per token in float32, adapter's dropout off."""
    model.float().eval()
    with torch.no_grad():
        batches = list(make_val_loader(texts, BATCH_SIZE, MAX_LENGTH, 0, 1, pad))
        return float(sum(token_loss_sum(model, b) for b in batches)) / sum(b["global_loss_tokens"] for b in batches)


def measure(variant: str, dtype: str, corpus: str) -> dict[str, Any]:
    """One measurement, in this process."""
    tokenizer = load_tokenizer(EMBEDDED_MODEL)
    texts, _ = texts_from_corpus(read_jsonl(corpus), tokenizer)
    train, held = texts[:-HELD_OUT], texts[-HELD_OUT:]
    meter = Meter()
    model = VARIANTS[variant](train, DTYPES[dtype], tokenizer.pad_token_id, meter)
    tokens = sum(min(len(t.prompt_ids) + len(t.completion_ids), MAX_LENGTH) for t in train)
    return {
        "tokens": tokens,
        "mean_length": tokens / len(train),
        "tokens_per_second": tokens / meter.wall,
        "tokens_per_cpu_second": tokens / meter.cpu,
        "memory_mib": meter.memory,
        "loss": held_out_loss(model, held, tokenizer.pad_token_id),
    }


def write_corpus(path: Path, count: int, data_dir: str | None, sampled: bool) -> None:
    """GSM8K training prompts with completions of the model itself (``sampled``), or with the data's own answers."""
    from spd_lightning.tasks import load_task

    examples = load_task("gsm8k", data_dir).examples("train", count)
    tokenizer = load_tokenizer(EMBEDDED_MODEL)
    if sampled:
        from spd_lightning.generation.engine import generate
        from spd_lightning.generation.requests import build_requests
        from spd_lightning.generation.sampling import SamplingParams

        requests, _ = build_requests(tokenizer, [(e.id, e.prompt) for e in examples], max_prompt_length=384)
        model = load_model(EMBEDDED_MODEL, torch.float32)
        params = SamplingParams(max_new_tokens=256, temperature=0.7, top_p=0.9, seed=42)
        write_jsonl(path, [g.record() for g in generate(model, tokenizer, requests, params, batch_size=64)])
        return
    rows = []
    for example in examples:
        ids = [*tokenizer(example.target, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        row = {"id": example.id, "sample": 0, "prompt": example.prompt, "completion": example.target, "token_ids": ids}
        rows.append(row)
    write_jsonl(path, rows)


def main(argv: list[str]) -> None:
    """Measure and print a table; ``--json`` also writes the medians."""
    parser = argparse.ArgumentParser(prog="experiments.benchmarks finetuning", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="24 texts of the data itself, one round")
    parser.add_argument("--data_dir", default=os.environ.get("SPD_DATA_DIR"), help="folder of data sets")
    parser.add_argument("--corpus", help="file of completions to train on, made before; else they are sampled first")
    parser.add_argument("--texts", type=int, default=136, help=f"texts, {HELD_OUT} of them held out")
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--json", help="file for the medians")
    parser.add_argument("--measure", nargs=3, metavar=("VARIANT", "DTYPE", "CORPUS"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    count, rounds = (24 + HELD_OUT, 1) if args.quick else (args.texts, args.pairs)
    cells = [(variant, dtype) for dtype in args.dtypes for variant in args.variants]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {cell: [] for cell in cells}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        if args.corpus:
            rows = list(read_jsonl(args.corpus))
            # evenly: they may stand in the order of their length
            write_jsonl(corpus, [rows[i * len(rows) // count] for i in range(count)])
        else:
            write_corpus(corpus, count, args.data_dir, sampled=not args.quick)
        for turn in range(rounds):
            for cell in cells if turn % 2 == 0 else cells[::-1]:
                command = [
                    sys.executable,
                    "-m",
                    "experiments.benchmarks",
                    "finetuning",
                    "--measure",
                    *cell,
                    str(corpus),
                ]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"{cell} failed:\n{done.stderr[-3000:]}")
                found[cell].append(json.loads(done.stdout.strip().splitlines()[-1]))
    medians = {cell: {k: statistics.median(run[k] for run in runs) for k in runs[0]} for cell, runs in found.items()}
    first = next(iter(medians.values()))
    print(f"{count - HELD_OUT} texts of {first['mean_length']:.0f} tokens on average; {rounds} rounds, medians")
    print("| variant | dtype | real tokens/s | x reference | x float32 reference | memory, MiB | held-out loss |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (variant, dtype), row in medians.items():
        ratios = []
        for other in (("reference", dtype), ("reference", "float32")):
            pairs = zip(found[variant, dtype], found.get(other, []))
            ratio = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs]
            ratios.append(f"{statistics.median(ratio):.2f}" if ratio else "-")
        print(
            f"| {variant} | {dtype} | {row['tokens_per_second']:.1f} | {ratios[0]} | {ratios[1]} | "
            f"{row['memory_mib']:.0f} | {row['loss']:.4f} |"
        )
    if args.json:
        rows = [{"variant": v, "dtype": d, **row} for (v, d), row in medians.items()]
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
