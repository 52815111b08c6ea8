"""Where keys and values stand among the output features of a fused projection, by model type.

A layout is never guessed from a shape that fits: ``qkv_proj`` of CodeGen is as wide as that of Phi-3 and holds four
blocks of ``[q | v | k]``. A model type that is not listed here is refused.

======================================  ==========================================================================
model type and projection               K and V among its output features (n heads, g key/value heads of width d)
======================================  ==========================================================================
phi3, phi4_multimodal: ``qkv_proj``     ``[q: n*d | k: g*d | v: g*d]``
dbrx: ``Wqkv``                          as Phi-3
gpt2, openai-gpt: ``c_attn``            ``[q | k | v]``, a third each
mpt: ``Wqkv``                           as GPT-2
codegen: ``qkv_proj``                   four blocks of ``[q: n*d/4 | v: n*d/4 | k: n*d/4]``
gpt_neox, gpt_neox_japanese, bloom,     per head ``[q: d | k: d | v: d]``
persimmon: ``query_key_value``
falcon: ``query_key_value``             as GPT-NeoX; multi-query ``[q: n*d | k: d | v: d]``; new decoder: per key/value
                                        head ``[q: n/g*d | k: d | v: d]``
gpt_bigcode: ``c_attn``                 multi-query ``[q: n*d | k: d | v: d]``, else as GPT-NeoX
jetmoe: ``kv_proj``                     ``[k: g*d | v: g*d]``
======================================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spd_lightning.errors import UserError

Index = slice | Tensor | None
Layout = Callable[[Any], tuple[Tensor, Tensor, int]]  # config to features of K and of V, and their number in all

# Looked for under a decoder layer; some only stand in model types that are not known.
FUSED_NAMES = ("qkv_proj", "Wqkv", "c_attn", "query_key_value", "kv_proj", "W_pack", "wqkv", "att_proj", "attn_qkv")


def fused_layout(
    model_type: str, config: Any, named: Mapping[str, nn.Module], width: Callable[[nn.Module], int]
) -> tuple[nn.Module, Index, Index] | None:
    """The fused projection of a decoder layer and the features of K and of V in it; None if it has none.

    Args:
        model_type: Of the model's config.
        config: That config.
        named: The layer's modules by the last part of their names.
        width: Number of output features of a projection.

    Raises:
        UserError: For a fused projection of a model type that is not known, or of another width than its type has.
    """
    found = next((name for name in FUSED_NAMES if name in named), None)
    if found is None:
        return None
    name, layout = LAYOUTS.get(model_type, ("", None))
    if layout is None or name not in named:
        known = ", ".join(f"{kind} ({projection})" for kind, (projection, _) in sorted(LAYOUTS.items()))
        raise UserError(
            f"Model type {model_type!r} has a fused projection, {found}, and where keys and values stand in it is not "
            f"known. Known: {known}. Take a model of these types or with separate k_proj and v_proj, or add the type "
            "to LAYOUTS in spd_lightning/subspace/layouts.py: its projection and which output features are K and V."
        )
    k, v, total = layout(config)
    if width(named[name]) != total:
        raise UserError(
            f"{name} of a model of type {model_type!r} should have {total} output features by its config, but has "
            f"{width(named[name])}. Give the config that belongs to the weights."
        )
    return named[name], _as_slice(k), _as_slice(v)


def _as_slice(features: Tensor) -> Index:
    """Features in one piece as a slice, which copies nothing when it is taken."""
    start, stop = int(features[0]), int(features[-1]) + 1
    return slice(start, stop) if stop - start == len(features) else features


def _heads(config: Any) -> tuple[int, int, int]:
    """Heads, key/value heads, and width of a head."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return heads, groups, getattr(config, "head_dim", None) or config.hidden_size // heads


def _one_after_another(heads: int, groups: int, head_dim: int) -> tuple[Tensor, Tensor, int]:
    q, kv = heads * head_dim, groups * head_dim
    features = torch.arange(q + 2 * kv, device="cpu")
    return features[q : q + kv], features[q + kv :], q + 2 * kv


def _by_group(heads: int, groups: int, head_dim: int) -> tuple[Tensor, Tensor, int]:
    """Groups of ``[q .. q | k | v]`` heads.

    Example: 2 heads of width 2, one query head a group: features ``q q k k v v q q k k v v``, so K is 2, 3, 8, 9.
    """
    total = (heads + 2 * groups) * head_dim
    features = torch.arange(total, device="cpu").view(groups, heads // groups + 2, head_dim)
    return features[:, -2].flatten(), features[:, -1].flatten(), total


def _phi3(config: Any) -> tuple[Tensor, Tensor, int]:
    return _one_after_another(*_heads(config))


def _dbrx(config: Any) -> tuple[Tensor, Tensor, int]:
    heads, _, head_dim = _heads(config)
    return _one_after_another(heads, config.attn_config.kv_n_heads, head_dim)


def _thirds(config: Any) -> tuple[Tensor, Tensor, int]:
    heads, head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    return _one_after_another(heads, heads, head_dim)


def _codegen(config: Any) -> tuple[Tensor, Tensor, int]:
    blocks = torch.arange(3 * config.hidden_size, device="cpu").view(4, 3, -1)  # four, whatever the number of heads
    return blocks[:, 2].flatten(), blocks[:, 1].flatten(), 3 * config.hidden_size


def _by_head(config: Any) -> tuple[Tensor, Tensor, int]:
    heads = config.num_attention_heads
    return _by_group(heads, heads, config.hidden_size // heads)


def _falcon(config: Any) -> tuple[Tensor, Tensor, int]:
    heads = config.num_attention_heads
    groups = config.num_kv_heads if config.new_decoder_architecture else 1 if config.multi_query else heads
    return _by_group(heads, groups, config.hidden_size // heads)


def _gpt_bigcode(config: Any) -> tuple[Tensor, Tensor, int]:
    heads = config.num_attention_heads
    return _by_group(heads, 1 if config.multi_query else heads, config.hidden_size // heads)


def _jetmoe(config: Any) -> tuple[Tensor, Tensor, int]:
    return _one_after_another(0, config.num_key_value_heads, config.kv_channels)


LAYOUTS: dict[str, tuple[str, Layout]] = {
    "phi3": ("qkv_proj", _phi3),
    "phi4_multimodal": ("qkv_proj", _phi3),
    "dbrx": ("Wqkv", _dbrx),
    "gpt2": ("c_attn", _thirds),
    "openai-gpt": ("c_attn", _thirds),
    "mpt": ("Wqkv", _thirds),
    "codegen": ("qkv_proj", _codegen),
    "gpt_neox": ("query_key_value", _by_head),
    "gpt_neox_japanese": ("query_key_value", _by_head),
    "bloom": ("query_key_value", _by_head),
    "persimmon": ("query_key_value", _by_head),
    "falcon": ("query_key_value", _falcon),
    "gpt_bigcode": ("c_attn", _gpt_bigcode),
    "jetmoe": ("kv_proj", _jetmoe),
}
