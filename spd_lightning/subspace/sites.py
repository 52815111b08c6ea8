"""Where keys and values are made: the K and V projection outputs of every common decoder architecture.

A site is the raw output of the K or V projection of one decoder layer, all heads side by side, before key norm and RoPE
(arXiv:2605.22675, section 3; [reference script]). Fused projections hold it as some of their output features:

======================================  ==========================================================================
projection                              where K and V stand in its output features (n heads, g key/value heads)
======================================  ==========================================================================
``k_proj``, ``v_proj``                  all of them (Llama, Qwen, Mistral, Gemma, SmolLM, OLMo, OPT, Phi, ...)
``qkv_proj`` (Phi-3)                    ``[q: n*d | k: g*d | v: g*d]``
``c_attn`` (GPT-2, Conv1D)              ``[q | k | v]``, a third each
``query_key_value`` (GPT-NeoX, Bloom)   per head ``[q: d | k: d | v: d]``
``query_key_value`` (Falcon)            as GPT-NeoX; multi-query ``[q: n*d | k: d | v: d]``; new decoder: per key/value
                                        head ``[q: n/g*d | k: d | v: d]``
======================================  ==========================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from spd_lightning.adapter_beside import LinearBeside
from spd_lightning.errors import UserError
from spd_lightning.model import decoder_layers

Side = Literal["k", "v"]
Sides = Literal["kv", "k", "v"]
SiteKey = tuple[int, Side]
Index = slice | Tensor | None

KNOWN = "separate k_proj/v_proj, fused qkv_proj, query_key_value (GPT-NeoX, Bloom, Falcon), Conv1D c_attn"


@dataclass(frozen=True)
class KVSite:
    """One side of one decoder layer's attention.

    Attributes:
        layer: Decoder layer, 0-based.
        side: ``"k"`` or ``"v"``.
        name: Module path of the projection within the model.
        module: The projection; under PEFT the LoRA layer around it.
        index: Output features of ``module`` that are this side, as a slice or a LongTensor; None for all of them.
        kv_dim: Number of those features (num_key_value_heads x head_dim).
    """

    layer: int
    side: Side
    name: str
    module: nn.Module
    index: Index
    kv_dim: int

    def select(self, features: Tensor) -> Tensor:
        """This side's features ``[..., kv_dim]`` of the projection's output ``[..., out_features]``."""
        if self.index is None:
            return features
        return features[..., self.index.to(features.device) if isinstance(self.index, Tensor) else self.index]


def base_projection(module: nn.Module) -> nn.Module:
    """The Linear or Conv1D inside a projection that PEFT may have wrapped."""
    while isinstance(getattr(module, "base_layer", None), nn.Module):
        module = module.base_layer  # type: ignore[assignment]
    return module


def out_features(module: nn.Module) -> int:
    """Number of output features of a Linear (weight ``[out, in]``) or Conv1D (weight ``[in, out]``)."""
    base = base_projection(module)
    return base.weight.shape[1 if isinstance(base, Conv1D) else 0]  # type: ignore[union-attr,index,return-value]


def split_sides(sides: Sides) -> tuple[Side, ...]:
    """``"kv"`` as ``("k", "v")``, one letter as itself.

    Raises:
        UserError: For anything else.
    """
    if sides not in ("kv", "k", "v"):
        raise UserError(f"sides={sides!r} is not known. Set --subspace.sides to kv, k or v.")
    return ("k", "v") if sides == "kv" else (sides,)


def kv_sites(model: nn.Module, layers: Iterable[int] | None = None) -> dict[SiteKey, KVSite]:
    """The K/V sites of a causal language model, also of one wrapped by PEFT or built on the meta device.

    Args:
        model: A decoder-only transformer.
        layers: Layers that are needed, 0-based; None for every layer that has key/value projections (hybrid models
            have layers without).

    Returns:
        ``(layer, side)`` to site, by layer, K before V.

    Raises:
        UserError: If no layer, or one of ``layers``, has a projection of a known kind; it lists what was found.
    """
    paths = {id(module): name for name, module in model.named_modules()}
    sites: dict[SiteKey, KVSite] = {}
    blocks = decoder_layers(model)
    for i, block in enumerate(blocks):
        for side, (module, index) in _layer_sites(model, block).items():
            kv_dim = _index_size(index, out_features(module))
            sites[i, side] = KVSite(i, side, paths[id(module)], module, index, kv_dim)
    wanted = range(len(blocks)) if layers is None else list(layers)
    missing = [i for i in wanted if (i, "k") not in sites]
    if missing and (layers is not None or not sites):
        found = [n for n, m in blocks[missing[0]].named_modules() if isinstance(m, (nn.Linear, Conv1D))]
        raise UserError(
            f"No K/V projection known under layer {missing[0]} of {type(model).__name__} "
            f"(found: {', '.join(found) or 'no projection'}). Known: {KNOWN}. Set --subspace.model_name_or_path to "
            "such a model, or --subspace.layers to layers with attention."
        )
    return {key: site for key, site in sites.items() if key[0] in wanted}


def weights_digest(sites: Mapping[SiteKey, KVSite]) -> str:
    """SHA-256 of the K/V projection weights of sites, as bf16: the same for a float32 and a bf16 copy of a model.

    Args:
        sites: What to cover; LoRA parts are left out.
    """
    digest = hashlib.sha256()
    for layer, side in sorted(sites):
        base = base_projection(sites[layer, side].module)
        digest.update(f"{layer}.{side}:".encode())
        with align_module_device(base):  # brings weights that accelerate holds elsewhere
            weight = base.base_weight() if isinstance(base, LinearBeside) else base.weight
            for parameter in (weight, base.bias):
                if isinstance(parameter, Tensor):
                    values = parameter.detach().to(torch.bfloat16).cpu().contiguous()
                    digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _layer_sites(model: nn.Module, block: nn.Module) -> dict[Side, tuple[nn.Module, Index]]:
    """The projections of one decoder layer: ``{"k": (module, index), "v": (module, index)}``, empty if unknown."""
    named: dict[str, nn.Module] = {}
    for name, module in block.named_modules():
        named.setdefault(name.rsplit(".", 1)[-1], module)
    if "k_proj" in named and "v_proj" in named:
        return {"k": (named["k_proj"], None), "v": (named["v_proj"], None)}
    config: Any = model.config.get_text_config()  # type: ignore[operator,union-attr]
    for name, layout in (("qkv_proj", _blocks), ("c_attn", _thirds), ("query_key_value", _interleaved)):
        if name in named:
            index = layout(config, base_projection(named[name]))
            if index is not None:
                return {"k": (named[name], index[0]), "v": (named[name], index[1])}
    return {}


def _blocks(config: Any, projection: nn.Module) -> tuple[Index, Index] | None:
    """``[q | k | v]`` with fewer key/value than query features (Phi-3)."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    q, kv = heads * head_dim, groups * head_dim
    if out_features(projection) != q + 2 * kv:
        return None
    return slice(q, q + kv), slice(q + kv, q + 2 * kv)


def _thirds(config: Any, projection: nn.Module) -> tuple[Index, Index] | None:
    """``[q | k | v]``, a third each (GPT-2; a Linear of this name has other layouts)."""
    if not isinstance(projection, Conv1D) and not getattr(projection, "transposed", False):
        return None
    third = out_features(projection) // 3
    return slice(third, 2 * third), slice(2 * third, 3 * third)


def _interleaved(config: Any, projection: nn.Module) -> tuple[Index, Index] | None:
    """Groups of ``[q .. q | k | v]`` heads (GPT-NeoX, Bloom, Falcon).

    Example: 2 heads of width 2, one query head a group: features ``q q k k v v q q k k v v``, so K is 2, 3, 8, 9.
    """
    heads, head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    if config.model_type in ("gpt_neox", "bloom"):
        groups = heads
    elif config.model_type == "falcon":
        groups = heads if not config.multi_query else 1
        if config.new_decoder_architecture:
            groups = config.num_kv_heads
    else:
        return None
    features = torch.arange(out_features(projection), device="cpu").view(groups, heads // groups + 2, head_dim)
    return features[:, -2].flatten(), features[:, -1].flatten()


def _index_size(index: Index, total: int) -> int:
    if index is None:
        return total
    return index.stop - index.start if isinstance(index, slice) else len(index)
