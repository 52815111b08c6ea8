"""The estimates of ``--estimate`` against what is counted and what a real run takes (docs/scaling.md).

    python -m experiments.benchmarks estimate [--quick] [--part operations|run|example] [--model NAME] [options of fit]

operations: matrix-product operations of each stage, counted by torch on the meta device (nothing is computed), over the
formulas', for SmolLM2-135M and the shapes of Qwen2.5-0.5B and 7B. run: one ``fit`` of the model on this machine; peak
memory, seconds and bytes on disk of each stage beside the estimate that was made before it. example: the 7B shape on 8
GPUs, from data-sheet speeds: an estimate, nothing is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks.shapes import SHAPES, tiny_config
from spd_lightning.cost.formulas import (
    StageEstimate,
    duration,
    estimate_extract,
    estimate_fine_tune,
    estimate_generate,
    forward_flops,
    size,
)
from spd_lightning.cost.machine import Machine
from spd_lightning.cost.shape import ModelShape, model_shape
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.generation.cache import empty_cache
from spd_lightning.model.embedded import EMBEDDED_MODEL
from spd_lightning.model.load import load_config
from spd_lightning.pipeline.stages import Pipeline
from spd_lightning.subspace.sites import kv_sites


def main(argv: list[str] | None = None) -> int:
    """Run the parts asked for and print a table each."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks estimate", description=__doc__)
    parser.add_argument("--part", choices=["operations", "run", "example"])
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="a tiny shape and 4 prompts: shows that it runs")
    args, options = parser.parse_known_args(argv)
    args.options = options  # what is left goes to fit
    parts = {"operations": operations, "run": run, "example": example}
    for name in [args.part] if args.part else parts:
        parts[name](args)
    return 0


def operations(args: argparse.Namespace) -> None:
    """Counted operations over those of the formulas."""
    configs = {"tiny": tiny_config()} if args.quick else {args.model: load_config(args.model), **SHAPES}
    rows, length = (2, 16) if args.quick else (4, 256)
    print(
        "\n| shape | stage | counted, GFLOP | formula, GFLOP | counted / formula |\n| --- | --- | ---: | ---: | ---: |"
    )
    for name, config in configs.items():
        config._attn_implementation = "eager"  # every product is counted, whole
        for stage, (counted, formula) in count(config, rows, length).items():
            print(
                f"| {name} | {stage} | {counted / 1e9:,.3f} | {formula / 1e9:,.3f} | {counted / formula:.3f} |",
                flush=True,
            )


def count(config: Any, rows: int, length: int) -> dict[str, tuple[float, float]]:
    """Per stage, operations counted on the meta device and by formula, for ``rows`` texts of ``length`` tokens."""
    shape = model_shape(config)
    layers = [shape.num_layers // 2, shape.num_layers - 1]
    lengths, tokens = [length] * rows, rows * length
    found: dict[str, tuple[float, float]] = {}
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
        ids = torch.zeros(rows, length, dtype=torch.long)
        # A whole mask is taken as it is; making one would look at values, which meta tensors lack.
        text = {"input_ids": ids, "attention_mask": torch.zeros(rows, 1, length, length)}
        token = {"input_ids": ids[:, :1], "attention_mask": torch.zeros(rows, 1, 1, length + 1)}
    found["forward"] = (
        _counted(lambda: model(**text, use_cache=False)),
        forward_flops(shape, tokens, rows * length**2, tokens),
    )
    found["extract"] = _counted(lambda: _gradients(model, text, layers)), _without_moments(shape, lengths, layers)
    cache = empty_cache(model, length + 1)
    model(**text, past_key_values=cache, use_cache=True)
    step = rows * (2 * shape.products + 2 * shape.head + 4 * shape.num_layers * shape.q_dim * (length + 1))
    found["decoding step"] = _counted(lambda: model(**token, past_key_values=cache, use_cache=True)), step
    for name, lora_r in (("fine-tune, all weights", None), ("fine-tune, LoRA r=8", 8)):
        with torch.device("meta"):
            student = model if lora_r is None else add_lora(model, lora_r, 8, 0.0, None, 0, "x")
        for key, weight in student.named_parameters():
            weight.requires_grad_(lora_r is None or "lora_" in key)
        formula = estimate_fine_tune(shape, lengths, 1, lora_r, rows, torch.float32, torch.float32).flops
        found[name] = _counted(lambda s=student: s(**text, use_cache=False).logits.sum().backward()), formula  # type: ignore[misc]
    return found


def _gradients(model: Any, text: dict[str, torch.Tensor], layers: list[int]) -> None:
    """The arithmetic of ``capture_gradients`` with every token in S; its masks need values, which meta tensors lack."""
    outputs: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        output = output if output.requires_grad else output.detach().requires_grad_()
        outputs.append(output)
        return output

    handles = [site.module.register_forward_hook(hook) for site in kv_sites(model, layers).values()]
    try:
        loss = model(**text, use_cache=False).logits.sum()
        torch.autograd.grad(loss, outputs)
    finally:
        for handle in handles:
            handle.remove()


def _without_moments(shape: ModelShape, lengths: list[int], layers: list[int]) -> float:
    estimate = estimate_extract(shape, lengths, sum(lengths), layers, 2, 1, torch.float32, sum(lengths))
    return estimate.flops - 4 * 2 * len(layers) * shape.kv_dim**2 * sum(lengths)


def _counted(work: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def run(args: argparse.Namespace) -> None:
    """One fit, and what each stage took beside its estimate."""
    from spd_lightning.cli.program import main as command_line

    rows: list[tuple[StageEstimate, float, int, int]] = []
    with tempfile.TemporaryDirectory() as folder, _watched(Path(folder), rows):
        prompts = 4 if args.quick else args.prompts
        status = command_line(
            [
                *("fit", "--config", "configs/demo.yaml", f"--run_dir={folder}/run"),
                f"--subspace.model_name_or_path={args.model}",
                *(f"--data.num_prompts={prompts}", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"),
                *("--evaluation.tasks=[arithmetic, letters]", f"--evaluation.limit={4 if args.quick else 20}"),
                *(["--data.max_new_tokens=8", "--subspace.num_examples=4"] if args.quick else []),
                *args.options,
            ]
        )
        if status:
            raise SystemExit(status)
    print(f"\n{args.model}, {prompts} prompts, {torch.get_num_threads()} threads: estimated / measured (ratio)")
    print("| stage | seconds | peak memory, MiB | on disk, KiB |\n| --- | ---: | ---: | ---: |")
    for estimate, seconds, memory, disk in rows:
        pairs = [(estimate.seconds or 0.0, seconds), (estimate.memory / 2**20, memory / 2**20)]
        pairs.append((estimate.disk / 2**10, disk / 2**10))
        cells = [f"{a:,.1f} / {b:,.1f} ({a / b:.2f})" if b else f"{a:,.1f} / -" for a, b in pairs]
        print(f"| {estimate.stage} | {' | '.join(cells)} |")


def example(args: argparse.Namespace) -> None:
    """GSM8K's 7,473 prompts (110 tokens, 200 new) with the 7B shape on 1 and 8 H100, from data-sheet speeds."""
    shape, half = model_shape(SHAPES["Qwen2.5-7B"]), torch.bfloat16
    machine = Machine({half: 989e12, torch.float32: 67e12}, 3.35e12, link=450e9)
    prompts, new, layers = [110] * 7473, 200, [14, 27]
    for gpus in (1, 8):
        texts = [310] * 7473
        rows = [
            estimate_extract(shape, [200] * 50, 1000, layers, 2, 256, torch.float32, 2048, gpus).timed(
                machine, torch.float32
            ),
            estimate_generate(shape, prompts, new, half, 128, gpus).timed(machine, half),
            estimate_fine_tune(shape, texts, 5, 8, 32, half, half, gpus, device_type="cuda").timed(machine, half),
            estimate_fine_tune(shape, texts, 5, 8, 32, half, half, gpus, sharded=True).timed(machine, half),
            estimate_fine_tune(shape, texts, 5, None, 32, torch.float32, half, gpus, sharded=True).timed(machine, half),
        ]
        print(f"\n| {gpus} GPU | operations of one, TFLOP | time | memory of one | sent by one | disk |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for row in rows:
            print(
                f"| {row.stage}: {row.what} | {row.flops / 1e12:,.0f} | {duration(row.seconds or 0)} | "
                f"{size(row.memory)} | {size(row.exchanged)} | {size(row.disk)} |"
            )


@contextlib.contextmanager
def _watched(folder: Path, rows: list[tuple[StageEstimate, float, int, int]]) -> Iterator[None]:
    """While it lasts, every stage of a pipeline leaves a row: its estimate, seconds, peak memory, bytes written."""
    original: Any = Pipeline._stage

    @contextlib.contextmanager
    def stage(self: Pipeline, name: str, what: str) -> Iterator[Any]:
        assert self.plan is not None
        estimate, before = self.plan.stage(name), _bytes(folder)
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts anew
        start = time.perf_counter()
        with original(self, name, what) as row:
            yield row
        seconds = time.perf_counter() - start
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        rows.append((estimate, seconds, int(peak[1]) * 1024 if peak else 0, _bytes(folder) - before))

    Pipeline._stage = stage  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Pipeline._stage = original  # type: ignore[method-assign]


def _bytes(folder: Path) -> int:
    """Bytes of artifacts and run; a file with two names counts once, logs not at all."""
    files = {p.stat().st_ino: p.stat().st_size for p in folder.rglob("*") if p.is_file() and "logs" not in p.parts}
    return sum(files.values())


if __name__ == "__main__":
    raise SystemExit(main())
