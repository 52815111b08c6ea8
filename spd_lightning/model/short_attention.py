"""Which kernel computes attention: in bf16 on a CPU, over short rows, two batched products and a softmax.

PyTorch computes it in blocks, which is meant for long rows and many cores: over rows of 100 to 250 tokens it was a
third of the time of a forward and backward pass through SmolLM2 on 2 cores, this way a sixth. In float32 the blocks are
as fast. The probabilities of a layer are all held at once, hence the limit on the length of a row.

On a GPU, never cuDNN's, which makes a plan for every shape it has not met: as a cache grows by a column, 2.4 ms in each
layer at each step (SmolLM2 on an H100: 92 ms a step, 33 ms once the shapes were known).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

LONGEST_ROW = 512  # keys


@contextlib.contextmanager
def short_attention() -> Iterator[None]:
    """Meanwhile `torch.nn.functional.scaled_dot_product_attention` goes that way where it is faster.

    That is in bf16 on a CPU, up to `LONGEST_ROW` keys, without an explicit mask or dropout; everything else is left to
    PyTorch. Values and gradients differ by the rounding of bf16.

    Ranks:
        This thread of this process alone. Issues no collective.
    """
    with _ShortAttention(), without_plans():
        yield


@contextlib.contextmanager
def without_plans() -> Iterator[None]:
    """Meanwhile attention on a GPU is computed by PyTorch's own kernels, not by cuDNN's.

    Ranks:
        All threads of this process. Issues no collective.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


class _ShortAttention(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and _is_short(*args, **kwargs):
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


def _is_short(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    *_: Any,
    **__: Any,
) -> bool:
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return on_cpu and query.dim() == 4 and key.shape[2] <= LONGEST_ROW and attn_mask is None and dropout_p == 0.0


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention ``[b, heads, s, width]``; query heads that share keys ``[b, groups, t, width]`` are one product."""
    b, heads, s, width = query.shape
    groups, t = key.shape[1], key.shape[2]
    hidden = query.new_zeros(s, t)
    if is_causal:
        hidden.masked_fill_(torch.ones(s, t, dtype=torch.bool).triu_(1), -math.inf)
    scores = torch.baddbmm(
        hidden.repeat(heads // groups, 1),
        query.reshape(b * groups, heads // groups * s, width),
        key.reshape(b * groups, t, width).transpose(1, 2),
        alpha=width**-0.5 if scale is None else scale,
    )
    mixed = scores.softmax(dim=-1) @ value.reshape(b * groups, t, -1)
    return mixed.view(b, heads, s, -1)
