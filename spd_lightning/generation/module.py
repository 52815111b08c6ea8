"""Stage 2 as a LightningModule: decode batches of prompts under the projection and append them to the corpus.

Run it with ``Trainer.predict(module, datamodule=SelfGenerationDataModule(...))``; the data module holds every setting.
Reference: arXiv:2605.22675, section on projected self-generation.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import TQDMProgressBar
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.generation.corpus import Corpus
from spd_lightning.generation.engine import EngineStats, Generation, generate_batch
from spd_lightning.generation.requests import Request
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.load import check_one_process, keep_in_place, load_model, load_tokenizer
from spd_lightning.model.packed_linear import packed_linears
from spd_lightning.subspace.projection import fold_projection
from spd_lightning.subspace.subspace import CapabilitySubspace

REFRESH = 0.5  # seconds between two looks of the progress bar


class SelfGenerationModule(LightningModule):
    """Generates completions with K and V projected, one batch of requests a step.

    Args:
        model_name_or_path: The base model.
        params: Decoding settings; complete and explicit.
        corpus: Where finished batches are appended.
        subspace: The subspace to project into, or None for plain sampling (PSR, SSD).
        dtype: Dtype of weights and activations.
        device_map: auto spreads the model over all devices of this one process.
        compare: A few requests that rank 0 also completes without the projection when all is done, with the same noise.

    Attributes:
        unprojected: Those completions; empty without a subspace.

    Ranks:
        Every process decodes its own batches and appends to its own part file; no collective. When
        all are done, rank 0 calls ``corpus.finalise``.
    """

    def __init__(
        self,
        model_name_or_path: str,
        params: SamplingParams,
        corpus: Corpus,
        subspace: CapabilitySubspace | None = None,
        dtype: torch.dtype = torch.float32,
        device_map: str | None = None,
        compare: Sequence[Request] = (),
    ) -> None:
        super().__init__()
        self.model_name_or_path = model_name_or_path
        self.params = params
        self.corpus = corpus
        self.subspace = subspace
        self.weight_dtype = dtype
        self.device_map = device_map
        self.model: PreTrainedModel | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.compare = list(compare) if subspace is not None else []
        self.unprojected: list[Generation] = []
        self.stats = EngineStats()
        self._folded = contextlib.ExitStack()

    def configure_model(self) -> None:
        """Load model and tokenizer once; Lightning then moves the model to its device."""
        if self.model is None:
            if self._trainer is not None:
                check_one_process(self.device_map, self.trainer.world_size)
            model = load_model(self.model_name_or_path, self.weight_dtype, device_map=self.device_map)
            keep_in_place(self, model) if self.device_map else setattr(self, "model", model)
            self.tokenizer = load_tokenizer(self.model_name_or_path)

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

        def show(step: int, rows: int) -> None:
            nonlocal shown
            assert isinstance(bar, TQDMProgressBar)
            now = time.perf_counter()
            if now - shown < REFRESH:
                return
            shown, speed = now, (self.stats.draws - before) / (now - start)
            bar.predict_progress_bar.n = round(batch_idx + step / self.params.max_new_tokens, 2)
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
            generations = generate_batch(self.model, self.tokenizer, batch, self.params, self.stats, on_step)
            self.corpus.append([g.record() for g in generations], rank=rank)
        except BaseException:
            self._folded.close()  # Lightning calls no hook of a module after an exception
            raise
        return generations

    def on_predict_end(self) -> None:
        """Restore the weights bit for bit; then answer the compared prompts without the projection."""
        self._folded.close()
        if self.compare and self._trainer is not None and self.global_rank == 0:
            assert self.model is not None and self.tokenizer is not None
            self.unprojected = generate_batch(self.model, self.tokenizer, self.compare, self.params)
