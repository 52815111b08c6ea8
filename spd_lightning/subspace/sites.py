"""Where keys and values are made: the K and V projection outputs of every common decoder architecture.

A site is the raw output of the K or V projection of one decoder layer, all heads side by side, before key norm and RoPE
(arXiv:2605.22675, section 3; [reference script]). It is the whole output of ``k_proj`` or ``v_proj`` (Llama, Qwen,
Mistral, Gemma, SmolLM, OLMo, OPT, Phi, ...), or some of the output features of a fused projection (`layouts`).

Not every layer has a site: recurrent layers have no keys and values, and layers that borrow those of an earlier layer
(Gemma 3n and 4) or have its weights (Zamba2) are projected with it. Where one projection makes both (Gemma 4 with
k = v), it is one site, of side ``k``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

from spd_lightning.errors import UserError
from spd_lightning.model.adapter_beside import LinearBeside
from spd_lightning.model.anatomy import decoder_layers, is_conv1d, is_linear, state_layers, without_attention
from spd_lightning.subspace.layouts import Index, fused_layout

Side = Literal["k", "v"]
Sides = Literal["kv", "k", "v"]
SiteKey = tuple[int, Side]

QUERIES = ("q_proj", "q_a_proj", "query")  # a sign of attention
KNOWN = "separate k_proj and v_proj, or a fused projection of a model type in spd_lightning/subspace/layouts.py"


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
        both: Whether these features are the values, too.
        borrowers: Projections of later layers that have the weights of ``module``; what is done to one is done to all.
    """

    layer: int
    side: Side
    name: str
    module: nn.Module
    index: Index
    kv_dim: int
    both: bool = False
    borrowers: tuple[nn.Module, ...] = ()

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Every projection that makes this side's features with the same weights."""
        return self.module, *self.borrowers

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
    return base.weight.shape[1 if is_conv1d(base) else 0]  # type: ignore[index,return-value]


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
        layers: Layers that are needed, 0-based; None for every layer that has key/value projections of its own.

    Returns:
        ``(layer, side)`` to site, by layer, K before V.

    Raises:
        UserError: If no layer, or one of ``layers``, has a projection of a known kind; it lists what was found. Also
            for a fused projection of unknown layout.
    """
    paths = {id(module): name for name, module in model.named_modules()}
    sites: dict[SiteKey, KVSite] = {}
    unknown: UserError | None = None  # a fused projection of unknown layout; other layers may have another
    blocks = decoder_layers(model)
    wanted = range(len(blocks)) if layers is None else list(layers)
    owner: dict[tuple[int, Side], SiteKey] = {}  # by weight and side: the site of the first layer that has it
    without = state_layers(model.config)  # OLMo Hybrid's have a k_proj
    for i, block in enumerate(blocks):
        try:
            found = {} if i in without else _layer_sites(model, block)
        except UserError as error:
            unknown = error
            if layers is not None and i in wanted:
                raise
            continue
        for side, (module, index) in found.items():
            first = owner.setdefault((id(base_projection(module).weight), side), (i, side))
            if first != (i, side):
                sites[first] = replace(sites[first], borrowers=(*sites[first].borrowers, module))
                continue
            kv_dim = _index_size(index, out_features(module))
            sites[i, side] = KVSite(i, side, paths[id(module)], module, index, kv_dim, both=list(found) == ["k"])
    have = sorted({layer for layer, _ in sites})
    if unknown is not None and not sites:
        raise unknown
    missing = [i for i in wanted if i not in have]
    if missing and (layers is not None or not sites):
        raise _nothing_known(model, blocks[missing[0]], missing[0], have)
    return {key: site for key, site in sites.items() if key[0] in wanted}


def _nothing_known(model: nn.Module, block: nn.Module, layer: int, have: list[int]) -> UserError:
    """Why a layer has no site, and what to do."""
    name, linear = type(model).__name__, [n for n, m in block.named_modules() if is_linear(m)]
    if any(n.endswith(("kv_b_proj", "kv_a_proj_with_mqa")) for n in linear):
        return UserError(
            f"{name} has multi-head latent attention (MLA): its keys and values are made from one compressed latent by "
            "kv_b_proj, and which subspace of them to keep is not defined here. Set model_name_or_path "
            f"(--subspace.model_name_or_path) to a model with: {KNOWN}."
        )
    if not have and without_attention(model.config):
        return UserError(
            f"{name} has no keys and values: none of its layers has attention (layer {layer}: "
            f"{', '.join(linear) or 'no projection'}), so there is nothing to project. Set model_name_or_path "
            f"(--subspace.model_name_or_path) to a model with: {KNOWN}."
        )
    there = f" Layers that have them: {', '.join(map(str, have))}." if have else ""
    return UserError(
        f"No K/V projection known under layer {layer} of {name} (found: {', '.join(linear) or 'no projection'})."
        f"{there} Known: {KNOWN}. Set model_name_or_path (--subspace.model_name_or_path) to such a model, or layers "
        "(--subspace.layers) to layers with keys and values of their own."
    )


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
    """The projections of one decoder layer: ``{"k": (module, index), "v": (module, index)}``, empty if unknown.

    ``"k"`` alone where its projection makes the values, too.
    """
    named: dict[str, nn.Module] = {}
    for name, module in block.named_modules():
        if isinstance(getattr(base_projection(module), "weight", None), Tensor):  # else a module around a projection
            named.setdefault(name.rsplit(".", 1)[-1], module)
    if "k_proj" in named and "v_proj" in named:
        return {"k": (named["k_proj"], None), "v": (named["v_proj"], None)}
    if "k_proj" in named and _values_are_keys(block):
        return {"k": (named["k_proj"], None)}
    config: Any = model.config.get_text_config()  # type: ignore[operator,union-attr]
    found = fused_layout(config.model_type, config, named, out_features)
    return {} if found is None else {"k": (found[0], found[1]), "v": (found[0], found[2])}


def _values_are_keys(block: nn.Module) -> bool:
    """Whether an attention says that it has no projection for values: ``v_proj`` is None (Gemma 4 with k = v)."""
    return any(getattr(module, "v_proj", module) is None for module in block.modules())


def _index_size(index: Index, total: int) -> int:
    if index is None:
        return total
    return index.stop - index.start if isinstance(index, slice) else len(index)
