"""Stage 3: recompute decoder layers in the backward pass, without the layers noticing.

transformers recomputes a layer only while its ``training`` flag is set, and some layers (OPT, Falcon) read the same
flag for dropout of their own. So the flag is set when a layer is called, and off while it computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def recompute_layers(model: PreTrainedModel) -> None:
    """Let a model keep one activation per decoder layer and recompute the rest; its layers compute as in eval mode."""
    layers: list[nn.Module] = []
    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": partial(_contexts, layers)})
    layers += [module for module in model.modules() if recomputes(module)]


def recomputes(module: nn.Module) -> bool:
    """Whether a module is a layer that is recomputed if its ``training`` flag is set when it is called."""
    return isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing


def _contexts(layers: list[nn.Module]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What torch enters around the forward and around its repetition."""
    return _as_in_eval(layers), _as_in_eval(layers)


@contextmanager
def _as_in_eval(layers: list[nn.Module]) -> Iterator[None]:
    """The flags of layers off; torch does not say which of them it runs."""
    flags = [layer.training for layer in layers]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:  # a repetition ends by an exception as soon as it has what it needs
        for layer, flag in zip(layers, flags, strict=True):
            layer.training = flag
