"""What one may ask of a loaded model, whatever its architecture: its decoder layers, which modules are linear, where
its token ids go, what ends a sequence; and its vocabulary projection at some positions alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import CacheLayerMixin, LinearAttentionCacheLayerMixin
from transformers.pytorch_utils import Conv1D

from spd_lightning.errors import UserError
from spd_lightning.options import check_layers

# Model types that cannot run in batches with a cache of transformers, and why: most hold a state that it does not.
OWN_STATE = {
    "recurrent_gemma": "its recurrent layers keep their state in the modules, and let padding into it",
    "minimax": "its linear attention keeps its state in a cache of its own",
    "rwkv": "it keeps its state outside the caches of transformers",
    "trocr": "it is the decoder of an encoder-decoder model, and its positions know no padding",
    "xlstm": "it keeps its state outside the caches of transformers",
}


def hook_of(module: nn.Module) -> Any:
    """What accelerate put on a module to bring tensors to it, or None. No public name tells (accelerate 1.15.0)."""
    return getattr(module, "_hf_hook", None)


def attention_of(config: Any) -> str:
    """How a model computes attention: ``sdpa``, ``eager``, ... No public name tells (transformers 5.23.0)."""
    return getattr(config, "_attn_implementation", None) or "eager"


def input_device(model: PreTrainedModel) -> torch.device:
    """Where a model wants its token ids: the device of its embeddings, or that to which accelerate brings them."""
    embedding: Any = model.get_input_embeddings()
    device = getattr(hook_of(embedding), "execution_device", None)
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


def text_decoder(model: nn.Module) -> tuple[str, nn.Module]:
    """The path and the module of the text part of a multimodal model, also under PEFT; of others the whole model."""
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    config: Any = getattr(base, "config", None)
    if config is None or config.get_text_config(decoder=True) is config:
        return "", model
    decoder = base.get_decoder()
    return next(name for name, module in model.named_modules() if module is decoder), decoder


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers of a causal language model, in order: the ``ModuleList`` as long as its config says."""
    lists = [m for m in text_decoder(model)[1].modules() if isinstance(m, nn.ModuleList)]
    if not lists:
        raise UserError(f"{type(model).__name__} has no list of decoder layers. A decoder-only transformer is needed.")
    config: Any = getattr(model, "config", None)
    depth = getattr(config.get_text_config(), "num_hidden_layers", None) if config is not None else None
    return next((m for m in lists if len(m) == depth), max(lists, key=len))


def context_of(config: Any) -> int | None:
    """The longest text that a model of this config takes, tokens; None where it names no limit."""
    text = config.get_text_config(decoder=True)
    limits = (getattr(text, name, None) for name in ("max_position_embeddings", "max_seq_len"))  # the latter is MPT's
    return next((limit for limit in limits if limit is not None), None)


def cache_layers(config: Any) -> list[Any]:
    """The layers of transformers' own cache, one for each decoder layer, by the layer types of a config.

    Raises:
        UserError: For a model whose state is held elsewhere, or layers that the cache does not know.
    """
    text = config.get_text_config(decoder=True)
    reason, layers = OWN_STATE.get(text.model_type), []
    try:
        layers = [] if reason else list(DynamicCache(config=config).layers)
    except KeyError as error:
        reason = f"the cache of transformers knows no layers of type {error}"
    if layers and _none_attends(layers):
        reason = "none of its layers has attention"
    if reason:
        raise UserError(
            f"Model type {text.model_type!r} cannot generate here: {reason}. Set "
            "model_name_or_path (--subspace.model_name_or_path) to one of another type (see docs/models.md)."
        )
    return layers


def _none_attends(layers: list[Any]) -> bool:
    return not any(isinstance(layer, CacheLayerMixin) for layer in layers)


def without_attention(config: Any) -> bool:
    """Whether a config is that of a purely recurrent model."""
    try:
        return _none_attends(list(DynamicCache(config=config).layers))
    except KeyError:
        return False


def state_layers(config: Any) -> list[int]:
    """Decoder layers that carry a state and have no attention, whatever their projections are called."""
    try:
        layers = DynamicCache(config=config).layers
    except KeyError:
        return []
    states = [isinstance(x, LinearAttentionCacheLayerMixin) and not isinstance(x, CacheLayerMixin) for x in layers]
    return [i for i, state in enumerate(states) if state]


def recurrent_layers(config: Any) -> list[int]:
    """Decoder layers that carry a state from token to token (convolution, linear attention, Mamba)."""
    return [i for i, layer in enumerate(cache_layers(config)) if isinstance(layer, LinearAttentionCacheLayerMixin)]


def resolve_layers(layers: str | list[int], num_layers: int, with_kv: Sequence[int] | None = None) -> list[int]:
    """Sorted 0-based layer indices.

    Args:
        layers: ``middle_last`` (the middle one and the last of those with keys and values: L//2 and L-1 where every
            layer has them), ``all`` of those, or a list (negatives from the end).
        num_layers: Decoder layers.
        with_kv: Those that have keys and values of their own, rising; None for all.

    Raises:
        UserError: For another word, an empty list, or an index out of range.
    """
    own = list(range(num_layers) if with_kv is None else with_kv)
    if layers == "middle_last":
        return sorted({own[len(own) // 2], own[-1]})
    if layers == "all":
        return own
    check_layers(layers)
    assert not isinstance(layers, str)
    for i in layers:
        if not -num_layers <= i < num_layers:
            raise UserError(
                f"layers={layers} names layer {i}, but the model has {num_layers} layers (0 to {num_layers - 1}, or "
                f"-{num_layers} to -1 from the end). Set --subspace.layers."
            )
    return sorted({i % num_layers for i in layers})


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype as it is typed and written: ``float32``, ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Put the weights of a loaded model into a dtype, as `from_pretrained` does.

    Buffers stay as they are: in bf16 the frequencies of rotary positions, which are made in float32 in any model, would
    be off by a 512th, and the angle of a position 1,000 tokens on by radians.
    """
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)


def is_conv1d(module: nn.Module) -> bool:
    """Whether a linear layer holds its weight as ``[in, out]`` (GPT-2's Conv1D) instead of ``[out, in]``."""
    return isinstance(module, Conv1D)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, of torch's kind or GPT-2's."""
    return isinstance(module, (nn.Linear, Conv1D))


@contextlib.contextmanager
def head_at(model: nn.Module, rows: Tensor, positions: Tensor) -> Iterator[None]:
    """Let the vocabulary projection see only some positions: logits ``[b, s, vocab]`` become ``[1, n, vocab]``.

    A pre-hook rather than a call of the inner model, so that what an architecture does to its logits afterwards
    (Gemma's soft cap, Cohere's scale) stays in force.

    Args:
        model: A causal language model, bare or with an adapter.
        rows, positions: ``[n]`` int64, which of the batch and which token of it, on any device.
    """

    def select(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = args
        return hidden[rows.to(hidden.device), positions.to(hidden.device)].unsqueeze(0), *rest

    handle = model.get_output_embeddings().register_forward_pre_hook(select)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()
