"""Stage 2 as a LightningModule: decode batches of prompts under the projection and append them to the corpus.

Run it with ``Trainer.predict(SelfGenerationModule(recipe, corpus))``: it brings the batches that the corpus lacks.
Reference: arXiv:2605.22675, section on projected self-generation.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import TQDMProgressBar
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.generation.corpus import Corpus
from spd_lightning.generation.engine import EngineStats, generate_batch
from spd_lightning.generation.recipe import Recipe, pending_batches
from spd_lightning.generation.requests import Generation, Request
from spd_lightning.model.load import check_one_process, keep_in_place, load_model, load_tokenizer
from spd_lightning.model.packed_linear import packed_linears
from spd_lightning.processes import Batches
from spd_lightning.subspace.projection import fold_projection

REFRESH = 0.5  # seconds between two looks of the progress bar


class SelfGenerationModule(LightningModule):
    """Generates completions with K and V projected, one batch of requests a step.

    Args:
        recipe: How the questions are answered, its dtype settled for the device (`Recipe.on`).
        corpus: Where finished batches are appended.
        device_map: auto spreads the model over all devices of this one process.

    Attributes:
        unprojected: Completions of `Recipe.compared` that rank 0 makes without the projection, with the same noise,
            when all is done; empty without a subspace.

    Ranks:
        Every process decodes its own batches and appends to its own part file; no collective. When all are done, one
        process calls `recipe.finish`.
    """

    def __init__(self, recipe: Recipe, corpus: Corpus, device_map: str | None = None) -> None:
        super().__init__()
        self.recipe, self.corpus, self.device_map = recipe, corpus, device_map
        self.subspace = recipe.load_subspace()
        self.model: PreTrainedModel | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.unprojected: list[Generation] = []
        self.stats = EngineStats()
        self._folded = contextlib.ExitStack()

    def configure_model(self) -> None:
        """Load model and tokenizer once; Lightning then moves the model to its device."""
        if self.model is None:
            if self._trainer is not None:
                check_one_process(self.device_map, self.trainer.world_size)
            name = self.recipe.model_name_or_path
            model = load_model(name, self.recipe.torch_dtype, device_map=self.device_map)
            if self.device_map:
                keep_in_place(self, model)
            else:
                self.model = model
            self.tokenizer = load_tokenizer(name)

    def predict_dataloader(self) -> Batches:
        """This rank's unfinished batches, one list of `Request` a step; an empty one where it has none to do.

        (Lightning refuses a loader without a batch on one of several processes.)
        """
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return Batches(pending_batches(self.recipe, self.corpus, rank, world_size) or [[]])

    def transfer_batch_to_device(self, batch: list[Request], device: torch.device, dataloader_idx: int) -> Any:
        """Requests hold no tensors and stay as they are."""
        return batch

    def on_predict_start(self) -> None:
        """Fold the projection into the K/V weights for as long as decoding lasts."""
        assert self.model is not None
        if self.subspace is not None:
            self._folded.enter_context(fold_projection(self.model, self.subspace))
        self._folded.enter_context(packed_linears(self.model))

    def predict_step(self, batch: list[Request], batch_idx: int = 0) -> int:
        """Decode one batch and append it to this rank's part of the corpus; gives its completions.

        The bar moves with every step of the batch, and shows the speed.
        """
        bar = self.trainer.progress_bar_callback
        start, before, shown = time.perf_counter(), self.stats.draws, 0.0
        limit = self.recipe.sampling_of(batch).max_new_tokens

        def show(step: int, rows: int) -> None:
            nonlocal shown
            assert isinstance(bar, TQDMProgressBar)
            now = time.perf_counter()
            if now - shown < REFRESH:
                return
            shown, speed = now, (self.stats.draws - before) / (now - start)
            bar.predict_progress_bar.n = round(batch_idx + step / limit, 2)
            bar.predict_progress_bar.set_postfix_str(f"{speed:.0f} tokens/s, {rows} of {len(batch)} rows open")

        return len(self.generate(batch, self.global_rank, show if isinstance(bar, TQDMProgressBar) else None))

    def generate(
        self, batch: list[Request], rank: int, on_step: Callable[[int, int], None] | None = None
    ) -> list[Generation]:
        """Decode one batch, which may be empty, and append it to the part file of ``rank``.

        After an error the weights are restored.
        """
        if not batch:
            return []
        assert self.model is not None and self.tokenizer is not None
        try:
            params = self.recipe.sampling_of(batch)
            generations = generate_batch(self.model, self.tokenizer, batch, params, self.stats, on_step)
            self.corpus.append([g.record() for g in generations], rank=rank)
        except BaseException:
            self._folded.close()  # Lightning calls no hook of a module after an exception
            raise
        return generations

    def fill(self, device: torch.device | None, rank: int, world_size: int) -> None:
        """Decode what the corpus lacks without a trainer, this rank's portion of it."""
        self.configure_model()
        if device is not None:
            self.to(device)
        self.on_predict_start()
        try:
            for batch in pending_batches(self.recipe, self.corpus, rank, world_size):
                self.generate(batch, rank)
        finally:
            self.on_predict_end()

    def on_predict_end(self) -> None:
        """Restore the weights bit for bit; then answer the compared prompts without the projection."""
        self._folded.close()
        if self.subspace is not None and self._trainer is not None and self.global_rank == 0:
            assert self.model is not None and self.tokenizer is not None
            for batch in self.recipe.compared():
                params = self.recipe.sampling_of(batch)
                self.unprojected += generate_batch(self.model, self.tokenizer, batch, params)
