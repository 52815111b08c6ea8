"""Stage 4: what is scored, and what was found: benchmarks, results, comparisons, and the samples that are written.

Plain Python: *when* something is scored is the callback's part, and how one benchmark is run that of ``benchmark.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from spd_lightning.artifacts.files import write_jsonl
from spd_lightning.artifacts.reading import missing
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError
from spd_lightning.evaluation.best_decoding import METHOD as BEST
from spd_lightning.evaluation.best_decoding import choose
from spd_lightning.evaluation.comparisons import compare_all
from spd_lightning.evaluation.context import Occasion, RunContext, SuiteOptions
from spd_lightning.evaluation.evaluate import evaluate_model
from spd_lightning.evaluation.keys import prompt_tokens
from spd_lightning.evaluation.models import Base, Source, base_of, base_source, projected_source, student_source
from spd_lightning.evaluation.progress import BenchmarkBar
from spd_lightning.evaluation.scores import BenchmarkResult, logged_metrics
from spd_lightning.evaluation.shots import all_with_shots, shots_method
from spd_lightning.model.chat_template import check_student_template
from spd_lightning.model.load import check_one_process, load_tokenizer
from spd_lightning.processes import gather, rank, world_size
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks import Example, load_task
from spd_lightning.tasks.mix import names_of
from spd_lightning.tasks.overlap import count_overlap
from spd_lightning.tasks.task import Benchmark


@dataclass
class BenchmarkSuite:
    """The benchmarks of a run and what came of them.

    Attributes:
        options: What the user chose.
        context: What the run knows.
        results: Everything scored so far, in order.
        missing: Task to the reason why it has no data.
        new_tokens: Most tokens of an answer, where a dry run wants them short; None is the benchmark's own limit.
    """

    options: SuiteOptions
    context: RunContext
    results: list[BenchmarkResult] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    new_tokens: int | None = None
    _benchmarks: list[Benchmark] | None = None
    _tokens: dict[tuple[str, str, int, str], str] = field(default_factory=dict)

    def enter(self, context: RunContext) -> None:
        """Go on in another context: results stay, benchmarks are loaded anew where they depend on what changed."""
        names = ("trained_task", "data_dir", "task_file", "seed")
        if any(getattr(context, name) != getattr(self.context, name) for name in names):
            self._benchmarks, self._tokens = None, {}
        self.context = context

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of `run_benchmark`: what the user chose, and what the run says where nothing was chosen."""
        chosen = self.options.settings
        return {**chosen, "prompt_format": chosen["prompt_format"] or self.context.prompt_format}

    # -- what was found --------------------------------------------------------------------------------------------

    @property
    def score_rows(self) -> list[dict[str, Any]]:
        """``scores`` of results.json; splits are null where nothing was trained."""
        return [score.row() for result in self.final() for score in result.scores]

    @property
    def all_from_store(self) -> bool:
        """Whether no model had to be run: every score was there already."""
        return bool(self.results) and all(r.facts.get("from_store") for r in self.results)

    @property
    def comparison_rows(self) -> list[dict[str, Any]]:
        """``comparisons`` of results.json, corrected over the whole table."""
        return compare_all(self.final())

    @property
    def not_run(self) -> list[dict[str, str]]:
        """Benchmarks that were not run, with the reason."""
        missing = [{"task": task, "reason": reason} for task, reason in self.missing.items()]
        return missing + [{"task": r.task, "method": r.method, "reason": r.not_run} for r in self.final() if r.not_run]

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """How each number was computed and what was seen, by ``<task>.<method>``."""
        return {f"{r.task}.{r.method}": r.facts for r in self.final() if r.facts}

    def final(self) -> list[BenchmarkResult]:
        """The last result of each task and method, base first."""
        order = {"base": 0, "projected": 1}
        last = {(r.task, r.method): r for r in self.results}
        return sorted(last.values(), key=lambda r: order.get(r.method, 2))

    def overlap_rows(self, sets: Mapping[str, Sequence[Example]]) -> list[dict[str, Any]]:
        """How many examples of each set (calibration, training prompts) also stand in each benchmark.

        Args:
            sets: Examples by the name that the rows give them.
        """
        return [
            {"set": name, "task": b.task, "shared": count_overlap(examples, b.examples), "of": len(examples)}
            for b in self.benchmarks()
            for name, examples in sets.items()
        ]

    # -- what is scored --------------------------------------------------------------------------------------------

    def benchmarks(self) -> list[Benchmark]:
        """The benchmarks, loaded once; call it early, so that a wrong name is told before hours of work.

        Raises:
            UserError: For an unknown task or missing data, or if no task is named anywhere.
        """
        if self._benchmarks is None:
            options, context = self.options, self.context
            names = names_of(context.trained_task) if context.trained_task else []
            names = list(options.tasks) if options.tasks is not None else names
            if not names or names == [""]:
                raise UserError("There is nothing to score: no tasks are named. Set --evaluation.tasks, e.g. [gsm8k].")
            where = (context.data_dir, context.task_file)
            tasks = {name: load_task(name, *where, seed=context.seed) for name in dict.fromkeys(names)}
            found, missing = list[Benchmark](), dict[str, str]()
            for name, task in tasks.items():
                limit = options.limit.get(name) if isinstance(options.limit, Mapping) else options.limit
                try:
                    benchmark = task.benchmark(options.protocol, limit)
                    most = min(benchmark.max_new_tokens, self.new_tokens or benchmark.max_new_tokens)
                    found.append(replace(benchmark, max_new_tokens=most))
                except UserError as error:
                    if not options.skip_missing_data:
                        raise
                    missing[name] = str(error)
            self._benchmarks, self.missing = found, missing  # whole, or at the next call refused again
        return self._benchmarks

    def subspace(self) -> str | Path | CapabilitySubspace:
        """What projected projects into.

        Raises:
            UserError: If there is none.
        """
        source = self.options.subspace if self.options.subspace is not None else self.context.subspace
        if source is None:
            raise UserError(
                "methods names projected, but there is no subspace. Set subspace (--evaluation.subspace) to a file."
            )
        if not isinstance(source, CapabilitySubspace) and not Path(source).is_file():
            raise UserError(f"subspace={str(source)!r}: {missing(source)}. Set --evaluation.subspace to one.")
        return source

    def base(self, occasion: Occasion) -> Base:
        """The base of what is scored; see `base_of`."""
        check_one_process(self.options.device_map, occasion.world_size)
        name, student = self.context.model_name_or_path, self.context.adapter
        if self.settings["prompt_format"] == "chat" and student is not None and name is not None:
            check_student_template(Path(student), load_tokenizer(name))
        return base_of(
            self.context.model_name_or_path,
            self.options.dtype or self.context.dtype,
            occasion.device,
            self.options.device_map,
            adapter=self.context.adapter,
            hparams=occasion.hparams,
            say=occasion.say,
        )

    def score_references(self, occasion: Occasion) -> None:
        """Score what the student is compared with, as ``methods`` says."""
        if "base" in self.options.methods:
            base = self.base(occasion)
            self._score("base", base, base_source(base), occasion)
        if "projected" in self.options.methods:
            self.score_projected(occasion)
        if self.options.base_shots:
            self._score_shots(occasion)
        if self.options.best_decoding:
            self._score_best(occasion)

    def score_projected(self, occasion: Occasion) -> None:
        """Score the base model under the projection.

        Raises:
            UserError: If there is no subspace.
        """
        subspace = self.subspace()
        base = self.base(occasion)
        self._score("projected", base, projected_source(base, subspace), occasion)

    def _score_shots(self, occasion: Occasion) -> None:
        """Score the base with calibration answers before each prompt, each task with its own."""
        base = self.base(occasion)
        for number, asked in all_with_shots(self.shots_benchmarks(), self.options.base_shots, self.context).items():
            self._score(shots_method(number), base, base_source(base), occasion, benchmarks=asked)

    def _score_best(self, occasion: Occasion) -> None:
        """Score the base at the decoding that is best on training rows, benchmark by benchmark."""
        base, context, options = self.base(occasion), self.context, self.options
        run = lambda asked, how: self._run(BEST, base, base_source(base), [asked], how)[0]  # noqa: E731
        for b in self.benchmarks():
            task = load_task(b.task, context.data_dir, context.task_file, seed=context.seed)
            found = choose(b, task, options.best_decoding, options.best_decoding_rows, run)
            if isinstance(found, str):
                self.results.append(BenchmarkResult(b.task, BEST, b.protocol, b.answer_type, not_run=found))
            else:
                (result,) = self._score(BEST, base, base_source(base), occasion, 0, [b], found.settings)
                result.facts |= found.facts

    def shots_benchmarks(self) -> list[Benchmark]:
        """The benchmarks that ``base_shots`` is scored on.

        Raises:
            UserError: If a task calibrated on is not scored.
        """
        names = names_of(self.context.calibrated_task or self.context.trained_task or "")
        known = {benchmark.task: benchmark for benchmark in self.benchmarks()}
        if missing := [name for name in names if name not in known]:
            raise UserError(
                f"base_shots={list(self.options.base_shots)} gives answers of {missing[0]} to the base, which is not "
                f"among evaluation.tasks ({', '.join(known)}). Add it, or leave base_shots out."
            )
        return [known[name] for name in names]

    def score_student(self, occasion: Occasion) -> list[BenchmarkResult]:
        """Score the trained model; see `student_source`."""
        base = self.base(occasion)
        source = student_source(base, self.context.adapter, occasion.live)
        step = occasion.step if self.context.student_step is None else self.context.student_step
        return self._score(self.context.method, base, source, occasion, step)

    def _score(
        self,
        method: str,
        base: Base,
        source: Source,
        occasion: Occasion,
        step: int = 0,
        benchmarks: list[Benchmark] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> list[BenchmarkResult]:
        """Score a model on all benchmarks, keep the results, write samples and log.

        Ranks:
            Every process calls it alike.
        """
        results = self._run(method, base, source, self.benchmarks() if benchmarks is None else benchmarks, settings)
        self.results += results
        if rank() == 0 and self.context.samples is not None:
            for r in results:
                if r.not_run is None:
                    write_jsonl(RunFolder.sample_file(self.context.samples, r.task, method), r.records)
        for logger in occasion.loggers:
            logger.log_metrics(logged_metrics(results), step=step)
        return results

    def _run(
        self,
        method: str,
        base: Base,
        source: Source,
        benchmarks: list[Benchmark],
        settings: Mapping[str, Any] | None = None,
    ) -> list[BenchmarkResult]:
        """What a model scores on benchmarks, under the user's settings but for those named."""
        context = self.context
        notes: dict[str, Any] = {}
        bar = BenchmarkBar(method) if rank() == 0 else None
        learned = names_of(context.trained_task) if context.trained_task and context.method != "base" else []
        trained = {name: load_task(name, context.data_dir, context.task_file).domain for name in learned}
        with ExitStack() as stack:
            if bar is not None:
                stack.callback(bar.close)
            stack.enter_context(torch.random.fork_rng(devices=[]))  # leaves the training's random state alone
            return evaluate_model(
                lambda: source.load(stack, notes),
                benchmarks,
                method=method,
                trained=trained,
                store=context.store,
                key=None if context.store is None or source.key is None else source.key(),
                tokens=lambda benchmark: self._prompt_tokens(base.name, benchmark),
                rank=rank(),
                world_size=world_size(),
                gather=gather if world_size() > 1 else None,
                seed=context.seed,
                progress=bar,
                notes=notes,
                **{**self.settings, **(settings or {})},
            )

    def _prompt_tokens(self, name: str, benchmark: Benchmark) -> str:
        """What a model's tokenizer makes of a benchmark's prompts, computed once for all methods."""
        known = (name, benchmark.task, benchmark.num_fewshot, benchmark.examples[0].id)
        if known not in self._tokens:
            self._tokens[known] = prompt_tokens(load_tokenizer(name), benchmark, self.settings["prompt_format"])
        return self._tokens[known]
