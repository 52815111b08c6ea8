"""Linear layers of frozen weights on a CPU, computed by oneDNN from weights that it has laid out for itself.

torch sends float32 products on a CPU to MKL, which on an AMD EPYC (AVX-512, 2 cores) ran at 228 GFLOP/s, and with few
rows at a quarter of the memory's rate; oneDNN, which comes with torch as well, ran at 525. With weights packed once it
was 2 to 4 times as fast in float32 there and up to 2 times in bf16. Results differ from torch's own by rounding.
The operators' names are those of torch 2.13.0; where one is missing, layers stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spd_lightning.model.adapter_beside import LinearBeside

OPERATORS = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")  # torch's own, undocumented
ROWS = 64  # a hint to oneDNN of how many rows will come; other numbers of rows are as fast


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[nn.Module]:
    """Compute a model's ``nn.Linear`` and `LinearBeside` layers from packed weights while the context lasts.

    The weights must not change meanwhile: fold, merge or load before. Layers that lie on a GPU, that may be trained
    meanwhile (trainable weights where gradients are enabled), or whose forward another library has replaced are left as
    they are, and so are all where this build of torch lacks the operators. Gradients of the input are exact. The packed
    copy takes as much memory as the weights, and once more if gradients pass through.

    Args:
        model: Any module; contexts may be nested, the inner one then packs only what is not packed yet.

    Yields:
        The model. Its layers compute as before in any case once the context ends.

    Ranks:
        Each process for itself. Issues no collective.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and _can_pack(module)]
    try:
        for layer in layers:
            layer.forward = _packed_forward(layer)  # type: ignore[method-assign, assignment]
        yield model
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def packs_in_training(precision: str | int | None, sharded: bool, checkpointing: bool) -> bool:
    """Whether training computes its frozen layers from packed weights.

    Not under bf16-mixed, where layers compute in another dtype than their weights have; not with sharded weights, which
    are gathered layer by layer; not with gradient checkpointing, which is asked for where memory is short.
    """
    return not (precision == "bf16-mixed" or sharded or checkpointing)


def _can_pack(layer: nn.Linear) -> bool:
    weight = layer.weight
    if type(layer) not in (nn.Linear, LinearBeside) or "forward" in layer.__dict__ or weight.device.type != "cpu":
        return False
    if weight.requires_grad and torch.is_grad_enabled():
        return False
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def _packed_forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """The forward of a layer from packed weights; that of a `LinearBeside` is two products."""
    product = _Packed(layer.weight, layer.bias)
    if not isinstance(layer, LinearBeside):
        return product
    inner = _Packed(layer.inner, None)
    return lambda x: product(torch.cat([x, inner(x)], dim=-1))


class _Packed:
    """A product with a weight that is packed, and transposed once a gradient comes."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.plain, self.bias = weight, bias
        self.weight = _pack(weight)
        self.transposed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype != self.weight.dtype or x.numel() == 0:  # autocast and the like
            return F.linear(x, self.plain, self.bias)
        if torch.is_grad_enabled() and x.requires_grad:
            return _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return _product(x, self.weight, self.bias)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        if self.transposed is None:
            self.transposed = _pack(self.plain.t().contiguous())
        return _product(gradient, self.transposed, None)


class _Product(torch.autograd.Function):
    """``x W^T + b`` that lets gradients through to x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: _Packed) -> Tensor:
        ctx.packed = packed
        return _product(x, packed.weight, packed.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.packed.input_gradient(gradients[0]), None


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
