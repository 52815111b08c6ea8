"""What a configuration is going to cost, stage by stage, before anything is loaded: ``--estimate`` and the log's lines.

The numbers come from `formulas`; here the options and the data are turned into what it asks for. Texts are read and
tokenised, weights never.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from spd_lightning.cost.formulas import (
    StageEstimate,
    duration,
    estimate_extract,
    estimate_fine_tune,
    estimate_generate,
    estimate_likelihood,
    one_after_another,
    size,
)
from spd_lightning.cost.machine import Machine, measure_machine
from spd_lightning.cost.shape import ModelShape, model_shape
from spd_lightning.errors import UserError, counted
from spd_lightning.evaluation.decoding import samples_of
from spd_lightning.generation.requests import DEFAULT_BATCH_SIZE
from spd_lightning.model.anatomy import dtype_name, resolve_layers
from spd_lightning.model.load import load_config, load_tokenizer, resolve_dtype
from spd_lightning.model.packed_linear import packs_in_training
from spd_lightning.tasks.task import Benchmark

if TYPE_CHECKING:  # what runs the stages is Lightning's; here it is asked for its options
    from spd_lightning.evaluation.callback import BenchmarkCallback
    from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
    from spd_lightning.finetuning.module import SPDFineTuningModule
    from spd_lightning.subspace.module import SubspaceExtractionModule

STAGES = ("extract", "generate", "fine_tune", "evaluate")
COMMAND_STAGES = {"fit": STAGES, "extract": STAGES[:1], "generate": STAGES[:2], "test": STAGES[3:]}


class Plan:
    """The cost of each stage of a configuration.

    Args:
        extraction: Stage 1.
        data: Stage 2.
        student: Stage 3.
        benchmarks: Stage 4.
        trainer: The trainer's options.

    Ranks:
        For one process to ask; issues no collective.
    """

    def __init__(
        self,
        extraction: SubspaceExtractionModule,
        data: SelfGenerationDataModule,
        student: SPDFineTuningModule,
        benchmarks: BenchmarkCallback,
        trainer: Mapping[str, Any],
    ) -> None:
        self.extraction, self.data, self.student, self.benchmarks = extraction, data, student, benchmarks
        self.trainer, self.device = trainer, _device(trainer["accelerator"])
        self.processes = _devices(trainer["devices"], self.device) * int(trainer["num_nodes"] or 1)

    @cached_property
    def shape(self) -> ModelShape:
        """The model, from its config."""
        return model_shape(load_config(self.extraction.model_name_or_path, need_weights=False))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The model's tokenizer; None where there is a config alone, and token counts have to be guessed."""
        try:
            return load_tokenizer(self.extraction.model_name_or_path, need_weights=False)
        except UserError:
            return None

    @cached_property
    def dtypes(self) -> dict[str, torch.dtype]:
        """Dtype in which each stage computes."""
        mixed = str(self.trainer["precision"] or "32-true").startswith("bf16")
        return {
            "extract": self._dtype(self.extraction.model_dtype),
            "generate": self._dtype(self.data.recipe.dtype),
            "fine_tune": torch.bfloat16 if mixed else torch.float32,
            "evaluate": self._dtype(self.benchmarks.suite.options.dtype or self.data.recipe.dtype),
        }

    def _dtype(self, name: Any) -> torch.dtype:
        """The dtype of a name; of a GPU that is not here, ``auto`` takes that of every one since 2020."""
        absent = self.device.type == "cuda" and not torch.cuda.is_available()
        return resolve_dtype("bfloat16" if name == "auto" and absent else name, self.device)

    @cached_property
    def machine(self) -> Machine | None:
        """The speed of this machine; None where the device that was asked for is not there."""
        if self.device.type == "cuda" and not torch.cuda.is_available():
            return None
        return _measured(self.device, tuple(self.dtypes.values()))

    def stage(self, name: str) -> StageEstimate:
        """The estimate of one stage."""
        found = self._counted(name)
        if self.device.type == "cpu":  # packed_linears keeps copies of the weights, for backward one more
            copies = {"extract": 2, "generate": 1, "evaluate": 1, "fine_tune": 2 * self._packs_in_training()}[name]
            packed = copies * (self.shape.products + self.shape.head) * self.dtypes[name].itemsize
            found = replace(found, memory=found.memory + packed)
        return found if self.machine is None else found.timed(self.machine, self.dtypes[name])

    @cache  # noqa: B019 (a plan lives as long as its run)
    def _counted(self, name: str) -> StageEstimate:
        """A stage's work, without the machine's speed; counted once, since texts are tokenised for it."""
        stages = {"extract": self._extract, "generate": self._generate, "fine_tune": self._fine_tune}
        return stages.get(name, self._evaluate)()

    def disk(self, stages: Iterable[str]) -> float:
        """Bytes that these stages write, rounds and all."""
        rounds = int(self.student.hparams["rounds"])
        written = sum((rounds if name != "evaluate" else 1) * self._counted(name).disk for name in stages)
        return written + (rounds - 1) * 2 * 4.0 * self.shape.parameters

    def _packs_in_training(self) -> bool:
        sharded = str(self.trainer["strategy"]).startswith("fsdp")
        frozen = self.student.hparams["lora_r"] is not None  # weights that are trained are never packed
        checkpointing = self.student.hparams["gradient_checkpointing"]
        return frozen and packs_in_training(self.trainer["precision"], sharded, checkpointing)

    def _extract(self) -> StageEstimate:
        module = self.extraction
        examples = module.examples
        lengths = [min(n, module.max_length) for n in self._lengths([e.prompt + e.target for e in examples])]
        characters = sum(len(e.prompt + e.target) for e in examples)
        marked = sum(end - start for e in examples for start, end in e.spans)
        share = 1.0 if module.loss == "full" else marked / max(characters, 1)
        layers = resolve_layers(module.layers, self.shape.num_layers, self.shape.kv_layers)
        rank = module.rank if isinstance(module.rank, int) else self.shape.kv_dim // 2
        return estimate_extract(
            self.shape,
            lengths,
            share * sum(lengths),
            layers,
            len(module.sides),
            rank,
            self.dtypes["extract"],
            module.batch_tokens,
            self.processes,
        )

    def _prompts(self, samples: int) -> list[tuple[list[int], int]]:
        """Tokens of each task's prompts, so many times each, and the limit of their completions."""
        asked, found = self.data.recipe.questions, []
        for part in asked.asked.values():
            lengths = [min(n, asked.max_prompt_length) for n in self._lengths([e.prompt for e in part.prompts])]
            found.append(([n for n in lengths for _ in range(samples)], part.new_tokens))
        return found

    def _generate(self) -> StageEstimate:
        recipe, parts = self.data.recipe, []
        for prompts, new in self._prompts(recipe.questions.num_generations):
            rows = recipe.batch_size
            if recipe.batch_tokens is not None:
                rows = max(1, recipe.batch_tokens // (max(prompts) + new))
            parts.append(estimate_generate(self.shape, prompts, new, self.dtypes["generate"], rows, self.processes))
        return one_after_another(parts)

    def _fine_tune(self) -> StageEstimate:
        h: Any = self.student.hparams
        majority = self.data.keep == "majority"  # trains on one of a prompt's samples
        asked = self._prompts(1 if majority else self.data.recipe.questions.num_generations)
        texts = [n + new for prompts, new in asked for n in prompts]
        return estimate_fine_tune(
            self.shape,
            [min(n, h.max_length) for n in texts],
            self._epochs(-(-len(texts) // h.batch_size)),
            h.lora_r,
            h.batch_size,
            torch.bfloat16 if self.trainer["precision"] == "bf16-true" else torch.float32,
            self.dtypes["fine_tune"],
            self.processes,
            int(self.trainer["accumulate_grad_batches"] or 1),
            h.gradient_checkpointing,
            str(self.trainer["strategy"]).startswith("fsdp"),
            self.device.type,
        )

    def _epochs(self, steps: int) -> int:
        """Passes over the texts, of so many optimiser steps each: what ends first of max_epochs and max_steps."""
        epochs, most = int(self.trainer["max_epochs"] or -1), int(self.trainer["max_steps"] or -1)
        limits = [epochs] * (epochs > 0) + [-(-most // steps)] * (most > 0)
        return min(limits, default=1)

    def _evaluate(self) -> StageEstimate:
        bench, methods = self.benchmarks.suite, self.benchmarks.suite.options.methods
        found = [self._benchmark(b) for b in bench.benchmarks()]
        models, dtype = len(methods), self.dtypes["evaluate"]
        merged = 4.0 * self.shape.parameters if "student" in methods and self.device.type == "cpu" else 0.0
        return StageEstimate(
            stage="evaluate",
            what=f"{', '.join(b.task for b in bench.benchmarks())}; {counted(models, 'model')}, {dtype_name(dtype)}",
            flops=models * sum(e.flops for e in found),
            traffic=models * sum(e.traffic for e in found),
            memory=max([merged, *(e.memory for e in found)]),
            disk=models * sum(e.disk for e in found),
            exchanged=models * sum(e.disk for e in found) / self.processes if self.processes > 1 else 0.0,
        )

    def _benchmark(self, benchmark: Benchmark) -> StageEstimate:
        dtype, settings = self.dtypes["evaluate"], self.benchmarks.suite.options.settings
        prompts = self._lengths([e.full_prompt() for e in benchmark.examples])
        if benchmark.output_type == "choices":  # solved examples that questions share are read once
            shared = {e.header + "".join(e.shots) for e in benchmark.examples}
            own = self._lengths([*shared, *(e.prompt for e in benchmark.examples)])
            longest = max(prompts, default=0)
            return estimate_likelihood(self.shape, sum(own), longest, len(prompts), dtype, self.processes)
        samples = samples_of(benchmark, settings["num_samples"])
        batch = settings["batch_size"] or DEFAULT_BATCH_SIZE
        rows = [n for n in prompts for _ in range(samples)]
        return estimate_generate(
            self.shape, rows, benchmark.max_new_tokens, dtype, batch, self.processes, stage="evaluate"
        )

    def _lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text; a quarter of its bytes where the model has no tokenizer here."""
        if self.tokenizer is None:
            return [len(text.encode()) // 4 + 1 for text in texts]
        return [len(ids) for ids in self.tokenizer(texts, verbose=False)["input_ids"]] if texts else []

    def table(self, command: str) -> str:
        """What ``--estimate`` prints.

        Args:
            command: fit, extract, generate or test.
        """
        method = self.data.recipe.method
        names = list(COMMAND_STAGES[command])
        if method == "base":
            names = [n for n in names if n not in ("generate", "fine_tune")]
        if method != "spd" and command != "extract" and "projected" not in self.benchmarks.suite.options.methods:
            names = [n for n in names if n != "extract"]
        rounds = int(self.student.hparams["rounds"]) if command == "fit" else 1
        rows = [self.stage(name) for name in names]
        times = [rounds if row.stage != "evaluate" else 1 for row in rows]
        shape, where = self.shape, "GPU" if self.device.type == "cuda" else "CPU"
        lines = [
            f"Estimate for {self.extraction.model_name_or_path}: {shape.parameters / 1e6:,.1f}M weights, "
            f"{shape.num_layers} layers, kv_dim {shape.kv_dim}; {self.processes} process(es), each on a {where}. "
            "Nothing was loaded.",
            "",
            f"{'stage':<10} {'memory':>10} {'time':>8} {'disk':>10} {'sent':>10}   of one process (disk: of all)",
        ]
        for row, n in zip(rows, times):
            took = "-" if row.seconds is None else duration(n * row.seconds)
            lines.append(
                f"{row.stage:<10} {size(row.memory):>10} {took:>8} {size(n * row.disk):>10} "
                f"{size(n * row.exchanged):>10}   {f'{n} rounds of ' if n > 1 else ''}{row.what}"
            )
        total = sum(n * (row.seconds or 0.0) for row, n in zip(rows, times))
        merged = (rounds - 1) * 2 * 4.0 * shape.parameters
        disk = merged + sum(n * row.disk for row, n in zip(rows, times))
        took = duration(total) if self.machine is not None else "-"
        lines.append(f"{'total':<10} {size(max(row.memory for row in rows)):>10} {took:>8} {size(disk):>10}")
        lines += ["", *self._notes()]
        return "\n".join(lines)

    def _notes(self) -> list[str]:
        notes = []
        if self.machine is None:
            notes.append("No time is given: the device that trainer.accelerator names is not here to be measured.")
        else:
            speeds = ", ".join(f"{f / 1e9:,.0f} GFLOP/s in {dtype_name(d)}" for d, f in self.machine.flops.items())
            notes.append(f"Measured here: {speeds}; {self.machine.bandwidth / 1e9:,.0f} GB/s read from memory.")
            notes.append(
                "Times are estimates (docs/scaling.md says how good): every completion is taken as long as allowed, "
                "nothing is taken from the store."
            )
        if self.device.type == "cuda":
            notes.append("Each process also reads the weights through the host's memory, once a stage.")
        if self.tokenizer is None:
            notes.append("There is no tokenizer here: token counts are a quarter of the texts' bytes.")
        return notes


@cache
def _measured(device: torch.device, dtypes: tuple[torch.dtype, ...]) -> Machine:
    """The speed of this machine, measured once for all runs of this process."""
    return measure_machine(device, dtypes)


def _device(accelerator: Any) -> torch.device:
    """The kind of device that the trainer would take."""
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        return torch.device("cuda")
    return torch.device("cpu")


def _devices(devices: Any, device: torch.device) -> int:
    """How many of them on each machine."""
    if isinstance(devices, list):
        return len(devices)
    if str(devices).lstrip("-").isdigit() and int(devices) > 0:
        return int(devices)
    return max(torch.cuda.device_count(), 1) if device.type == "cuda" else 1
