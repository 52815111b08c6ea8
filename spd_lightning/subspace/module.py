"""Stage 1 as a LightningModule: `Trainer(...).predict(SubspaceExtractionModule(...))` finds the capability subspace.

What is read and what the keys hold is in `calibration`, the gradients in `capture`, the choice of directions in
`choice`; here a Trainer runs them.

The moments are the costly artifact; rank, centring, basis and strength are applied to them afterwards, so a sweep over
those never runs the model again.
"""

from __future__ import annotations

import contextlib
import functools
import time
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_info
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.model.anatomy import dtype_name
from spd_lightning.model.chat_template import PromptFormat
from spd_lightning.model.load import Dtype, check_one_process, keep_in_place, load_model, load_tokenizer, resolve_dtype
from spd_lightning.model.packed_linear import packed_linears
from spd_lightning.model.source import model_fingerprint
from spd_lightning.options import check_options
from spd_lightning.processes import Batches
from spd_lightning.subspace import calibration
from spd_lightning.subspace.capture import BATCH_TOKENS, Batch, capture_gradients, collate, for_moments
from spd_lightning.subspace.choice import Rank, choice_problems, other_problems, subspace_from_moments
from spd_lightning.subspace.correctness import EncodedExample
from spd_lightning.subspace.layout_check import check_layout
from spd_lightning.subspace.mixture import mixed
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.pairs import Pairs, batches_of
from spd_lightning.subspace.sites import KVSite, SiteKey, kv_sites, weights_digest
from spd_lightning.subspace.subspace import CapabilitySubspace
from spd_lightning.tasks.mix import Tasks, weights_of
from spd_lightning.tasks.task import Example


class SubspaceExtractionModule(LightningModule):
    """Find the subspace of keys and values that a capability's right answers depend on (arXiv:2605.22675, section 3).

    Args:
        model_name_or_path: Base model: hub id, folder, .gguf file, smollm2-135m-instruct or gemma3-270m (make gemma).
        task: Capability to calibrate on: gsm8k, mbpp, mmlu, arithmetic, custom, ... Several count alike as a list,
            [gsm8k, mmlu], and by their weights as {gsm8k: 1, mmlu: 2}: in the subspace (each task's gradients are
            divided by their size first) and in the number of prompts.
        task_file: Rows of the task custom: a path, or {path, columns, score, normalise}. Of several files such values
            by their names, {sums: sums.csv, towns: {path: towns.csv}}, for the tasks custom:sums and custom:towns. See
            docs/own_data.md.
        data_dir: Folder of data sets; null takes SPD_DATA_DIR, else the hub.
        num_examples: Calibration pairs of each task, the first of its training split; null is the task's default (50;
            mmlu 500). The paper finds results flat from 20 to 500.
        max_length: Longest calibration text, tokens; the rest is cut off and counted.
        rank: Columns of the basis: half (of kv_dim, the paper), an integer, or energy:0.95 (smallest rank that holds
            that share of the squared singular values, per layer and side).
        layers: Decoder layers to project: middle_last (L//2 and L-1, counted among the layers with keys and values of
            their own), all of those, or a list of 0-based indices, negative ones from the end.
        sides: Project keys and values (kv), or one of them (k, v).
        loss: correctness takes the loss over the correctness-defining tokens alone (the method); full over all tokens
            (the paper's ablation).
        center: Subtract the mean gradient first (the authors' script does; the paper's text does not).
        basis: capability, or a control of the same rank: random (from the seed), complement (trailing directions) or
            other (the leading ones of another task).
        basis_task: That other task, whose examples are then calibrated on.
        strength: Share a of the projection, 0 to 1: activations become (1-a) x + a P x.
        span_rule: A token counts as correctness-defining if it overlaps a span, or only if it is contained in one (the
            authors' rule; drops tokens that carry a leading space).
        dtype: Dtype of the forward and backward pass. float32 is exact; bfloat16 is faster where the device has it
            and turns the weakest kept directions; auto is bfloat16 where it is fast.
        seed: Seed of the random basis, and of the rows where the task is a generated one.
        batch_tokens: Tokens of a batch, padding included. Lower it when memory runs out.
        device_map: auto spreads a model that is too large for one device over all devices of the one process that
            extracts, generates and evaluates; null keeps it on one.
        rows: Which rows of the training split, as data.rows.
        prompt_format: plain or chat, as data.prompt_format; null takes that of the run, else plain.
    """

    def __init__(
        self,
        model_name_or_path: str = "smollm2-135m-instruct",
        task: Tasks = "arithmetic",
        task_file: str | dict[str, Any] | None = None,
        data_dir: str | None = None,
        num_examples: int | None = None,
        max_length: int = 256,
        rank: int | str = "half",
        layers: str | list[int] = "middle_last",
        sides: Literal["kv", "k", "v"] = "kv",
        loss: Literal["correctness", "full"] = "correctness",
        center: bool = False,
        basis: Literal["capability", "random", "complement", "other"] = "capability",
        basis_task: str | None = None,
        strength: float = 1.0,
        span_rule: Literal["overlap", "contained"] = "overlap",
        dtype: Literal["auto", "float32", "bfloat16"] = "float32",
        seed: int = 42,
        batch_tokens: int = BATCH_TOKENS,
        device_map: Literal["auto"] | None = None,
        rows: Literal["first", "reference"] = "first",
        prompt_format: Literal["plain", "chat"] | None = None,
    ) -> None:
        super().__init__()
        check_options(SubspaceExtractionModule, locals(), "subspace")
        self.model_name_or_path, self.task, self.layers = model_name_or_path, task, layers
        self.num_examples, self.max_length = num_examples, max_length
        self.rank: Rank = int(rank) if isinstance(rank, str) and rank.isdigit() else rank
        self.sides, self.loss, self.span_rule = sides, loss, span_rule
        self.center, self.strength, self.basis = center, strength, basis
        self.basis_task, self.calibrated_task = basis_task, task if basis_task is None else basis_task
        self.weights = weights_of(self.calibrated_task)
        self.model_dtype: Dtype = dtype
        self.seed, self.batch_tokens, self.device_map = seed, batch_tokens, device_map
        self.prompt_format: PromptFormat = prompt_format or "plain"
        self.model: PreTrainedModel | None = None
        self.found: dict[str, Moments] = {}
        option = f"--subspace.{'task' if basis_task is None else 'basis_task'}"
        read = (task_file, data_dir, num_examples, max_length, loss, span_rule, seed, rows, self.prompt_format)
        context = functools.partial(calibration.context, model_name_or_path)
        self.pairs = {name: Pairs(name, lambda: self.tokenizer, context, *read, option) for name in self.weights}
        self._batches: list[tuple[str, int, list[EncodedExample]]] = []
        self._sites: dict[SiteKey, KVSite] = {}
        self._running: dict[str, Moments] = {}
        self._packed = contextlib.ExitStack()

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's."""
        return load_tokenizer(self.model_name_or_path)

    @property
    def moments(self) -> Moments | None:
        """Moments of the task, or of all tasks by their weights (`mixture.mixed`); None until each has some."""
        return mixed(self.found, self.weights) if self.weights.keys() <= self.found.keys() else None

    @moments.setter
    def moments(self, moments: Moments) -> None:
        """Those of the one task; of several, put each one's into ``found``."""
        (name,) = self.weights
        self.found = {name: moments}

    @functools.cached_property
    def target_sites(self) -> dict[SiteKey, int]:
        """``(layer, side)`` to kv_dim of every target site, from the model's config alone.

        Raises:
            UserError: If layers, sides or rank do not fit the model, or its architecture is unknown.
        """
        return calibration.target_sites(self.model_name_or_path, self.layers, self.sides, self.rank)

    def check_options(self) -> None:
        """Refuse what cannot work before anything is loaded; `setup` calls it, and so may a command line.

        Raises:
            UserError: With every option that is wrong, one a line.
        """
        problems = calibration.count_problems(self.num_examples, self.batch_tokens)
        problems += choice_problems(self.basis, self.strength) + other_problems(self.basis, self.task, self.basis_task)
        try:
            _ = (self.resolved_dtype, self.basis_task and [part.task for part in self.pairs.values()])
            calibration.target_sites(self.model_name_or_path, self.layers, self.sides, self.rank)
        except UserError as error:
            problems.append(str(error))
        if problems:
            raise UserError("\n".join(problems))

    @property
    def examples(self) -> list[Example]:
        """The calibration pairs of all tasks."""
        return [example for part in self.pairs.values() for example in part.examples]

    @property
    def resolved_dtype(self) -> torch.dtype:
        """Dtype of the forward pass on the Trainer's device, else on the one a Trainer would choose."""
        own = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return resolve_dtype(self.model_dtype, own if self._trainer is None else self.trainer.strategy.root_device)

    def moments_keys(self) -> dict[str, dict[str, Any]]:
        """By task, everything that its moments depend on, as JSON values; not rank, center, basis, strength, weight."""
        model, sites, dtype = model_fingerprint(self.model_name_or_path), self.target_sites, self.resolved_dtype
        return {name: part.key(model, sites, dtype, self.batch_tokens) for name, part in self.pairs.items()}

    def subspace_key(self) -> dict[str, Any]:
        """Everything that the subspace depends on, as JSON values."""
        keys, seed = self.moments_keys(), self.seed
        return calibration.subspace_key(
            keys, self.weights, rank=self.rank, center=self.center, basis=self.basis, strength=self.strength, seed=seed
        )

    def setup(self, stage: str) -> None:
        """Check the options and mark S, before the weights are loaded; moments in ``found`` need no pass."""
        self.check_options()
        missing = [part for name, part in self.pairs.items() if name not in self.found]
        self._batches = batches_of(missing or self.pairs.values(), self.batch_tokens)

    def configure_model(self) -> None:
        """Load the frozen model, once; one that was assigned to ``model`` is kept.

        Raises:
            UserError: If it cannot be loaded, or is to be spread over devices by several processes.
        """
        if self.model is None:
            if self._trainer is not None:
                check_one_process(self.device_map, self.trainer.world_size)
            model = load_model(self.model_name_or_path, self.resolved_dtype, device_map=self.device_map)
            if self.device_map:
                keep_in_place(self, model)
            else:
                self.model = model
        assert self.model is not None
        self.model.requires_grad_(False)

    def predict_dataloader(self) -> Batches:
        """This process's batches: all are formed in canonical order, then batch i goes to process i % world size.

        A process without a batch gets an empty one, so that it still takes part in the collective at the end.
        """
        batches = self._batches[self.global_rank :: self.trainer.world_size]
        return Batches([batch for _, _, batch in batches] or [[]], collate)

    def on_predict_start(self) -> None:
        """Find the sites in the loaded model, check them once, and pack its linear layers while the stage lasts.

        Raises:
            UserError: If what is taken for keys or values does not act as such.
        """
        assert self.model is not None
        sites = kv_sites(self.model, sorted({layer for layer, _ in self.target_sites}))
        check_layout(self.model, sites)
        self._sites = {key: site for key, site in sites.items() if key in self.target_sites}
        self._packed.enter_context(packed_linears(self.model))
        self._running = {name: Moments(half=Moments()) for name, _, _ in self._batches}
        self._started, self._tokens = time.perf_counter(), 0
        where = calibration.where(self.model, sites)
        for name in self._running:
            rank_zero_info(f"Stage 1, {name}: {where}; {self.pairs[name].encoded[1]}")

    def predict_step(self, batch: Batch, batch_idx: int) -> int:
        """Add one batch's gradients to the moments.

        Returns:
            Tokens of the batch.

        Ranks:
            Issues no collective, so processes may have unequal numbers of batches.
        """
        if len(batch.input_ids) == 0:
            return 0
        assert self.model is not None
        # Lightning predicts in inference mode, whose tensors cannot enter a graph: leave it, and copy the batch.
        try:
            with torch.inference_mode(False), torch.autocast(self.device.type, enabled=False):
                batch = Batch(*(tensor.clone() for tensor in batch))
                gradients = capture_gradients(self.model, batch, self._sites)
                name, before, _ = self._batches[self.global_rank + batch_idx * self.trainer.world_size]
                self._running[name].update(*for_moments(gradients, batch, before))
        except BaseException:
            self._packed.close()  # Lightning calls no hook of a module after an exception
            raise
        self._tokens += batch.num_tokens
        bar = self.trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar):
            rate = self._tokens / (time.perf_counter() - self._started)
            bar.predict_progress_bar.set_postfix_str(f"{rate:.0f} tokens/s", refresh=False)
        return batch.num_tokens

    def on_predict_end(self) -> None:
        """Sum the moments over processes and check them.

        Raises:
            UserError: On every process alike, if gradients are all zero or not finite.

        Ranks:
            Collective; every process holds the same moments afterwards.
        """
        assert self.model is not None
        seconds = time.perf_counter() - self._started
        self._packed.close()
        dtype, done, name = dtype_name(self.resolved_dtype), 0, self.model_name_or_path
        content = (name, model_fingerprint(name), weights_digest(self._sites))
        for task, moments in self._running.items():
            moments.ensure(self.target_sites)
            moments.all_reduce(self.device)
            if not moments.finite():
                calibration.check_weights(self.model, name)
            moments.check(dtype)
            moments.metadata = self.pairs[task].metadata(*content, dtype)
            self.found[task] = moments
            done += self.pairs[task].encoded[1].num_tokens
        rank_zero_info(f"Stage 1: {done / seconds:.0f} tokens/s, {seconds:.1f} s")

    @property
    def subspace(self) -> CapabilitySubspace:
        """The subspace of the moments, by rank, center, basis and strength; cheap, no model needed.

        Set ``module.moments = Moments.load(path)`` to use cached ones (of several tasks, ``found[task]``).

        Raises:
            UserError: If there are no moments yet.
        """
        if (moments := self.moments) is None:
            raise UserError("There are no moments yet. Run Trainer.predict(module) first, or load them.")
        return subspace_from_moments(moments, self.rank, self.center, self.basis, self.strength, self.seed)
