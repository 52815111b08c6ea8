"""Stage 4 under Lightning: score base, projected and student before, during and after training, or in ``test``.

In a notebook: ``Trainer(callbacks=[BenchmarkCallback(["gsm8k"], limit=20)])`` with an `SPDFineTuningModule`. The
command line adds the run's folder, store and task with `BenchmarkCallback.attach`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from peft import PeftModel
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.artifacts.checksums import file_sha256, weights_sha256
from spd_lightning.artifacts.files import write_jsonl
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError, unknown_name
from spd_lightning.evaluation.benchmark import evaluate_model, prompt_tokens
from spd_lightning.evaluation.comparisons import compare_all
from spd_lightning.evaluation.scores import BenchmarkResult
from spd_lightning.evaluation.worker import PromptFormat, ShortContext
from spd_lightning.finetuning.sharding import is_sharded
from spd_lightning.finetuning.share_kept import share_kept
from spd_lightning.finetuning.student import student_copy, whole_copy
from spd_lightning.model.adapter_beside import all_weights_trained
from spd_lightning.model.anatomy import dtype_name
from spd_lightning.model.load import Dtype, check_one_process, load_model, load_tokenizer, resolve_dtype
from spd_lightning.model.source import model_fingerprint
from spd_lightning.subspace.projection import fold_projection
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks import TASKS, Example, load_task
from spd_lightning.tasks.task import Benchmark, Protocol, count_overlap

Method = Literal["base", "student", "projected"]
Moment = Literal["before", "after"]
METHODS = ("base", "projected", "student")
Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


class BenchmarkCallback(Callback):
    """Score models on benchmarks.

    Args:
        tasks: Benchmarks, e.g. [gsm8k, svamp, mmlu, humaneval, bbh:paper]; null scores the task trained on.
        protocol: standard (the field's convention) or paper (the published settings). Named in every score.
        limit: Examples per benchmark, the first ones (in mmlu and bbh subjects take turns): one number, or a number for
            each task named ({humaneval: 20}, others whole); null for all.
        num_samples: Completions per program task, for pass@k; above 1 they are drawn at temperature 0.8, top-p 0.95.
        methods: Any of base, student and projected (the base under the projection, untrained); null: base, student.
        when: before, after or both (null) around training. Base and projected are scored at the first of these moments,
            the student after.
        every_n_steps: Score the student every so many optimizer steps as well; null for never.
        every_n_epochs: Score the student every so many epochs as well; null for never.
        adapter: For the command test: a PEFT folder or a checkpoint folder to score as the student.
        subspace: A subspace file, for projected; null takes the run's own.
        batch_size: Completions, or questions, run together; null for the defaults (64 completions).
        dtype: auto, float32 or bfloat16, the same for every method; null takes that of the run, else auto, which means
            float32 where all weights were trained. float32 for small effects: its rounding is that of bf16 by 65,536;
            on a CPU with fast bf16 it takes about 1.5 times as long, on a GPU twice as long and more, with twice the
            memory.
        prompt_format: plain, or chat to put generated answers through the chat template.
        repetition_penalty: Of generated answers, as data.repetition_penalty; null or 1 for none.
        skip_missing_data: Report a benchmark whose data cannot be had as not run, instead of ending the run.
        short_context: Where the context is too short for the solved examples: fewer_shots (said and counted) or error.
        allow_code_execution: true lets programs that a model wrote run where no sandbox works; null asks
            HF_ALLOW_CODE_EVAL. Without consent such a task is reported as not run.
        timeout_s: Time limit of one program, seconds.
        device_map: auto spreads a model that is too large for one device over all devices of the one process.
    """

    def __init__(
        self,
        tasks: list[str] | None = None,
        protocol: Protocol = "standard",
        limit: int | dict[str, int] | None = None,
        num_samples: int = 1,
        methods: list[Method] | None = None,
        when: list[Moment] | None = None,
        every_n_steps: int | None = None,
        every_n_epochs: int | None = None,
        adapter: str | None = None,
        subspace: str | None = None,
        batch_size: int | None = None,
        dtype: Dtype | None = None,
        prompt_format: PromptFormat = "plain",
        repetition_penalty: float | None = None,
        skip_missing_data: bool = False,
        short_context: ShortContext = "fewer_shots",
        allow_code_execution: bool | None = None,
        timeout_s: float = 5.0,
        device_map: Literal["auto"] | None = None,
    ) -> None:
        self.tasks, self.protocol, self.limit = tasks, protocol, limit
        self.methods = methods if methods is not None else ["base", "student"]
        self.when = when if when is not None else ["before", "after"]
        for kind, chosen, known in (("methods", self.methods, METHODS), ("when", self.when, ("before", "after"))):
            for name in chosen:
                if name not in known:
                    raise unknown_name(f"entry of {kind}", name, known, f"--evaluation.{kind}")
        limits = limit.values() if isinstance(limit, dict) else [limit]
        counts = [("every_n_steps", every_n_steps), ("every_n_epochs", every_n_epochs), *(("limit", n) for n in limits)]
        counts += [("batch_size", batch_size)]
        for option, number in counts:
            if number is not None and number < 1:
                raise UserError(f"{option}={number} is not possible. Set --evaluation.{option} to at least 1, or null.")
        if num_samples < 1:
            raise UserError(f"num_samples={num_samples} scores nothing. Set --evaluation.num_samples to at least 1.")
        if not timeout_s > 0:
            raise UserError(
                f"timeout_s={timeout_s} would fail every program. Set --evaluation.timeout_s to seconds above 0."
            )
        if repetition_penalty is not None and not 0 < repetition_penalty < math.inf:
            raise UserError(
                f"repetition_penalty={repetition_penalty} is not possible. Set --evaluation.repetition_penalty to a "
                "number above 0 (1 penalises nothing), or null."
            )
        for name in limit if isinstance(limit, dict) else ():
            if name.split(":")[0] not in TASKS:
                raise unknown_name("task in limit", name, TASKS, "--evaluation.limit")
        self.every_n_steps, self.every_n_epochs = every_n_steps, every_n_epochs
        self.device_map = device_map
        self.skip_missing_data = skip_missing_data
        self.adapter, self.subspace, self.dtype = adapter, subspace, dtype
        self.settings: dict[str, Any] = {
            "num_samples": num_samples,
            "batch_size": batch_size,
            "prompt_format": prompt_format,
            "repetition_penalty": 1.0 if repetition_penalty is None else float(repetition_penalty),
            "short_context": short_context,
            "allow_code_execution": allow_code_execution,
            "timeout_s": timeout_s,
        }
        self.results: list[BenchmarkResult] = []
        self.seconds = 0.0
        self._benchmarks: list[Benchmark] | None = None
        self.missing: dict[str, str] = {}  # task to the reason why it has no data
        self._step_scored = 0
        self.attach()

    def attach(
        self,
        model_name_or_path: str | None = None,
        trained_task: str | None = None,
        method: str = "student",
        data_dir: str | None = None,
        task_file: str | None = None,
        run_dir: str | Path | None = None,
        store: ArtifactStore | None = None,
        subspace: str | Path | CapabilitySubspace | None = None,
        dtype: Dtype = "auto",
        seed: int = 42,
    ) -> None:
        """Tell what a run knows; everything may be left out.

        Args:
            model_name_or_path: Base model; None takes that of the module.
            trained_task: Task trained on; decides the scores' split, and what is scored where no tasks are named.
            method: Name of the trained method in the scores, e.g. ``spd``; ``base`` where nothing is trained.
            data_dir: Data folder.
            task_file: File of the task ``custom``.
            run_dir: Run folder; samples are written to ``samples/`` in it. None writes none.
            store: Where base scores are kept and looked up.
            subspace: The run's subspace, for projected.
            dtype: Of the models, unless the callback names one.
            seed: Of the samples' noise.
        """
        self.model_name_or_path, self.trained_task, self.method = model_name_or_path, trained_task, method
        self.data_dir, self.task_file, self.store, self.seed = data_dir, task_file, store, seed
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.run_subspace, self.run_dtype = subspace, dtype
        self.student_step: int | None = None  # optimizer step of the student; None asks the trainer
        self._benchmarks = None
        self._tokens: dict[tuple[str, str], str] = {}

    # -- what was found --------------------------------------------------------------------------------------------

    @property
    def score_rows(self) -> list[dict[str, Any]]:
        """``scores`` of results.json; splits are null where nothing was trained."""
        return [score.row() for result in self._final() for score in result.scores]

    @property
    def all_from_store(self) -> bool:
        """Whether no model had to be run: every score was there already."""
        return bool(self.results) and all(r.facts.get("from_store") for r in self.results)

    @property
    def comparison_rows(self) -> list[dict[str, Any]]:
        """``comparisons`` of results.json, corrected over the whole table."""
        return compare_all(self._final())

    @property
    def not_run(self) -> list[dict[str, str]]:
        """Benchmarks that were not run, with the reason."""
        missing = [{"task": task, "reason": reason} for task, reason in self.missing.items()]
        return missing + [{"task": r.task, "method": r.method, "reason": r.not_run} for r in self._final() if r.not_run]

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """How each number was computed and what was seen, by ``<task>.<method>``."""
        return {f"{r.task}.{r.method}": r.facts for r in self._final() if r.facts}

    def _final(self) -> list[BenchmarkResult]:
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
            names = self.tasks if self.tasks is not None else [self.trained_task] if self.trained_task else []
            if not names and self.tasks is None:
                raise UserError("There is nothing to score: no tasks are named. Set --evaluation.tasks, e.g. [gsm8k].")
            tasks = {name: load_task(name, self.data_dir, self.task_file) for name in dict.fromkeys(names)}
            self._benchmarks, self.missing = [], {}
            for name, task in tasks.items():
                limit = self.limit.get(name) if isinstance(self.limit, dict) else self.limit
                try:
                    self._benchmarks.append(task.benchmark(self.protocol, limit))
                except UserError as error:
                    if not self.skip_missing_data:
                        raise
                    self.missing[name] = str(error)
        return self._benchmarks

    def score(
        self,
        method: str,
        load: Callable[[], Loaded],
        key: dict[str, Any] | None = None,
        trainer: Trainer | None = None,
        step: int = 0,
        notes: dict[str, Any] | None = None,
        name: str | None = None,
    ) -> list[BenchmarkResult]:
        """Score a model on all benchmarks, keep the results, write samples and log.

        Args:
            method: Name in the scores.
            load: Gives model and tokenizer; called only if something is not in the store.
            key: What the model's scores depend on, for the store; None for a model that is never seen again.
            trainer: For its loggers.
            step: Optimizer step to log at.
            notes: Facts of the model that ``load`` fills in; they are kept with the scores.
            name: Model whose tokenizer reads the prompts, for the store's keys.

        Ranks:
            Every process calls it alike.
        """
        start = time.perf_counter()
        rank, world_size, gather = _processes()
        bar = _Bar(method) if rank == 0 else None
        domain = None
        if self.trained_task is not None and self.method != "base":
            domain = load_task(self.trained_task, self.data_dir, self.task_file).domain
        try:
            with torch.random.fork_rng(devices=[]):  # scoring leaves the training's random state alone
                results = evaluate_model(
                    load,
                    self.benchmarks(),
                    method=method,
                    trained_task=self.trained_task if domain is not None else None,
                    trained_domain=domain,
                    store=self.store,
                    key=key,
                    tokens=None if name is None else lambda benchmark: self._prompt_tokens(name, benchmark),
                    rank=rank,
                    world_size=world_size,
                    gather=gather,
                    seed=self.seed,
                    progress=bar,
                    notes=notes,
                    **self.settings,
                )
        finally:
            if bar is not None:
                bar.close()
        self.results += results
        self.seconds += time.perf_counter() - start
        if rank == 0 and self.run_dir is not None:
            for r in results:
                if r.not_run is None:
                    write_jsonl(self.run_dir / "samples" / f"{r.task.replace(':', '_')}.{method}.jsonl", r.records)
        if trainer is not None:
            metrics = self.logged_metrics(results)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=step)
        return results

    def logged_metrics(self, results: Sequence[BenchmarkResult]) -> dict[str, float]:
        """Scores under their logged names.

        ``eval/<task>/<metric>`` is the curve from base (step 0) to student; ``eval_base/...`` and
        ``eval_projected/...`` keep those two apart.
        """
        metrics = {}
        for s in (score for result in results for score in result.scores):
            names = {"base": ("eval", "eval_base"), "projected": ("eval_projected",)}.get(s.method, ("eval",))
            metrics.update({f"{name}/{s.task}/{s.metric}": s.value for name in names})
        return metrics

    def score_base(self, pl_module: LightningModule | None = None, trainer: Trainer | None = None) -> None:
        """Score the base model, from the store where it was scored before."""
        name, dtype, device = self._base(pl_module, trainer)
        key = self._key(name, dtype)
        self.score(
            "base",
            lambda: (load_model(name, dtype, device, self.device_map), load_tokenizer(name)),
            key,
            trainer,
            name=name,
        )

    def score_projected(self, pl_module: LightningModule | None = None, trainer: Trainer | None = None) -> None:
        """Score the base model under the projection.

        Raises:
            UserError: If there is no subspace.
        """
        source = self._subspace_source()
        name, dtype, device = self._base(pl_module, trainer)
        subspace = source if isinstance(source, CapabilitySubspace) else CapabilitySubspace.load(source)
        known = not isinstance(source, CapabilitySubspace)
        key = self._key(name, dtype, subspace=file_sha256(Path(source))) if known else None  # type: ignore[arg-type]
        with ExitStack() as stack:

            def load() -> Loaded:
                model = load_model(name, dtype, device, self.device_map)
                stack.enter_context(fold_projection(model, subspace))
                return model, load_tokenizer(name)

            self.score("projected", load, key, trainer, name=name)

    def _subspace_source(self) -> str | Path | CapabilitySubspace:
        source = self.subspace if self.subspace is not None else self.run_subspace
        if source is None:
            raise UserError("methods names projected, but there is no subspace. Set --evaluation.subspace to a file.")
        if not isinstance(source, CapabilitySubspace) and not Path(source).is_file():
            raise UserError(f"subspace={str(source)!r}: there is no such file. Set --evaluation.subspace to one.")
        return source

    def score_student(
        self, pl_module: LightningModule | None = None, trainer: Trainer | None = None
    ) -> list[BenchmarkResult]:
        """Score the trained model: the adapter folder if one is given, else the module's model.

        An adapter stands beside its base in one product (`adapter_beside`), so that bf16 swallows nothing of it. Where
        all weights were trained there is no beside: see `dtype`.
        """
        name, dtype, device = self._base(pl_module, trainer)

        notes: dict[str, Any] = {}

        def load() -> Loaded:
            live: Any = None if pl_module is None else getattr(pl_module, "model", None)
            if self.adapter is not None or isinstance(live, PeftModel):
                model = student_copy(
                    name, self.adapter if self.adapter is not None else live, dtype, device, self.device_map
                )
            elif live is not None and is_sharded(live):
                model = whole_copy(name, live, dtype, device)
            elif live is not None:
                model = copy.deepcopy(live).to(device=device, dtype=dtype).eval()
            else:
                raise UserError("There is no trained model to score. Set --evaluation.adapter to an adapter folder.")
            if self.adapter is not None and model.dtype != torch.float32 and all_weights_trained(self.adapter):
                notes["update_kept"] = share_kept(name, self.adapter, model.dtype)
            return model, load_tokenizer(name)

        key = None if self.adapter is None else self._key(name, dtype, adapter=weights_sha256(Path(self.adapter)))
        step = self.student_step
        if step is None:
            step = 0 if trainer is None else trainer.global_step
        return self.score(self.method, load, key, trainer, step, notes, name)

    def _base(
        self, pl_module: LightningModule | None, trainer: Trainer | None
    ) -> tuple[str, torch.dtype, torch.device]:
        name = self.model_name_or_path
        if name is None and pl_module is not None:
            name = pl_module.hparams.get("model_name_or_path")
        if name is None:
            raise UserError(
                "The base model is not known. Set --subspace.model_name_or_path, or give a module that has that "
                "hyperparameter."
            )
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        check_one_process(self.device_map, 1 if trainer is None else trainer.world_size)
        wanted = self.dtype or self.run_dtype
        dtype = resolve_dtype(wanted, device)
        if wanted == "auto" and dtype != torch.float32 and self._all_weights_trained(pl_module):
            rank_zero_info("[evaluate] all weights were trained: every model is scored in float32 (dtype: auto)")
            dtype = torch.float32
        return name, dtype, device

    def _all_weights_trained(self, pl_module: LightningModule | None) -> bool:
        """Whether the student has no adapter, so that the cast to bf16 would drop what its weights learned."""
        if self.adapter is not None:
            return all_weights_trained(self.adapter)
        return pl_module is not None and pl_module.hparams.get("lora_r", 0) is None

    def _key(self, name: str, dtype: torch.dtype, **more: str) -> dict[str, Any] | None:
        """What scores of a base depend on beside the benchmark; None where there is no store."""
        if self.store is None:
            return None
        return {"model": model_fingerprint(name), "dtype": dtype_name(dtype), **more}

    def _prompt_tokens(self, name: str, benchmark: Benchmark) -> str:
        """What a model's tokenizer makes of a benchmark's prompts, computed once for all methods."""
        known = (name, benchmark.task)
        if known not in self._tokens:
            self._tokens[known] = prompt_tokens(load_tokenizer(name), benchmark, self.settings["prompt_format"])
        return self._tokens[known]

    # -- when ------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.benchmarks()
        if "projected" in self.methods or self.subspace is not None:
            self._subspace_source()  # told now, not after the base was scored or the student trained
        if self.adapter is not None and not Path(self.adapter).is_dir():
            raise UserError(f"adapter={self.adapter!r}: there is no such folder. Set --evaluation.adapter to one.")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "before" in self.when:
            self._score_references(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self.every_n_steps and step > self._step_scored and step % self.every_n_steps == 0:
            self._score_midway(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and trainer.global_step > self._step_scored:
            self._score_midway(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "after" not in self.when:
            return
        if "before" not in self.when:
            self._score_references(trainer, pl_module)
        if "student" in self.methods and self.method != "base":
            self.score_student(pl_module, trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.score_all(pl_module, trainer)

    def score_all(self, pl_module: LightningModule | None = None, trainer: Trainer | None = None) -> None:
        """What the command test scores: base and projected as `methods` says (a subspace given by name is always
        scored), and the student of an adapter folder or of the trainer's checkpoint."""
        self._score_references(trainer, pl_module)
        if self.subspace is not None and "projected" not in self.methods:
            self.score_projected(pl_module, trainer)
        if self.adapter is not None:
            self.score_student(None, trainer)
        elif trainer is not None and trainer.ckpt_path is not None:
            self.score_student(pl_module, trainer)

    def _score_references(self, trainer: Trainer | None, pl_module: LightningModule | None) -> None:
        if "base" in self.methods:
            self.score_base(pl_module, trainer)
        if "projected" in self.methods:
            self.score_projected(pl_module, trainer)

    def _score_midway(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the student in training; the same numbers on every process, so checkpoints may monitor them."""
        self._step_scored = trainer.global_step
        results = self.score_student(pl_module, trainer)
        for name, value in self.logged_metrics(results).items():
            pl_module.log(name, value, logger=False, rank_zero_only=False)


class _Bar:
    """One progress bar per benchmark: examples done by this process, new tokens per second, time left."""

    def __init__(self, method: str) -> None:
        self.method, self.task, self.tokens, self.start = method, "", 0, 0.0
        self.bar: Any = None

    def __call__(self, task: str, done: int, total: int, tokens: int) -> None:
        if task != self.task:
            self.close()
            self.task, self.tokens, self.start = task, 0, time.perf_counter()
            self.bar = tqdm(total=total, desc=f"{task} ({self.method})", unit="ex", leave=False)
        self.tokens += tokens
        self.bar.total = max(total, done)
        if tokens:
            seconds = max(time.perf_counter() - self.start, 1e-9)
            self.bar.set_postfix_str(f"{self.tokens / seconds:.0f} tok/s", refresh=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _processes() -> tuple[int, int, Callable[[list[Any]], list[list[Any]]] | None]:
    """Rank, number of processes, and a gather of lists over them (None for a single one)."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1, None
    size = torch.distributed.get_world_size()

    def gather(part: list[Any]) -> list[list[Any]]:
        parts: list[Any] = [None] * size
        torch.distributed.all_gather_object(parts, part)
        return parts

    return torch.distributed.get_rank(), size, gather if size > 1 else None
