"""Do the features that are taken for keys and values act as such? One look at one layer's attention weights.

A short text is read by a layer, and again with the features of one head at one position j turned (their signs). A key
changes the weights of tokens after j, a query those of token j alone, a value none, but what later tokens get from j.
Every head of both sides is looked at, side by side in one batch, so that it costs as much as a few short texts.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from spd_lightning.errors import UserError
from spd_lightning.model.anatomy import eval_mode, input_device
from spd_lightning.subspace.sites import KVSite, SiteKey

log = logging.getLogger(__name__)

LENGTH, TURNED = 8, 3  # tokens of the text, and the position j


def check_layout(model: PreTrainedModel, sites: Mapping[SiteKey, KVSite]) -> bool:
    """Check the sides of the lowest layer among ``sites``.

    Args:
        model: A causal language model.
        sites: As `kv_sites` gives them.

    Returns:
        Whether it could be checked. A layer that gives no attention weights, or none that are finite, stands by its
        model type alone, and the log says so.

    Raises:
        UserError: If a head acts otherwise than its side should.

    Ranks:
        Every process for itself, alike. Issues no collective.
    """
    layer = min(layer for layer, _ in sites)
    mine = [site for (i, _), site in sites.items() if i == layer]
    attention = model.get_submodule(mine[0].name.rpartition(".")[0])
    heads = [(site, features) for site in mine for features in _head_features(site, attention, model)]
    try:
        with _eager(model):
            plain, again, turned = (_read(model, attention, heads, turns) for turns in (False, False, True))
    except _NoWeights:
        name = type(attention).__name__
        log.warning("Which features are keys and values stands unchecked: %s gives no weights.", name)
        return False
    weights, results = (_changed(*three) for three in zip(plain, again, turned))
    for (site, features), weight, result in zip(heads, weights, results, strict=True):
        acts = _role(weight, result)
        taken = {"k": "keys", "v": "values"}[site.side]
        if acts != taken:
            raise UserError(
                f"Output features {int(features[0])} to {int(features[-1])} of {site.name} are taken for {taken}, but "
                f"act as {acts} in {type(attention).__name__}. Mend the layout of model type "
                f"{model.config.model_type!r} in spd_lightning/subspace/layouts.py."
            )
    return True


def _role(weight: Tensor, result: Tensor) -> str:
    """What a head's features are, by which tokens' weights and results ``[s]`` (bool) change when they are turned."""
    earlier, own, later = bool(weight[:TURNED].any()), bool(weight[TURNED]), bool(weight[TURNED + 1 :].any())
    if not earlier and later:
        return "keys"
    if not earlier and own:
        return "queries"
    if not (earlier or own or later) and result[TURNED + 1 :].any():
        return "values"
    return "neither keys, queries nor values"


class _NoWeights(Exception):
    """An attention that gives no weights."""


def _head_features(site: KVSite, attention: Any, model: PreTrainedModel) -> list[Tensor]:
    """The output features of each head of a side."""
    config: Any = model.config.get_text_config()
    if isinstance(site.index, Tensor):
        features = site.index.cpu()
    else:
        features = torch.arange(site.kv_dim) + (0 if site.index is None else site.index.start)
    own = [getattr(attention, name, None) for name in ("head_dim", "head_size")]
    width = next((w for w in own if isinstance(w, int)), None) or getattr(config, "head_dim", None)
    width = width or config.hidden_size // config.num_attention_heads
    return list(features.split(width if site.kv_dim % width == 0 else site.kv_dim))


@contextlib.contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Attention in plain products meanwhile, which is the form that gives its weights."""
    config: Any = model.config
    parts = [config, *(part for name in config.sub_configs if (part := getattr(config, name, None)) is not None)]
    before = [part._attn_implementation for part in parts]
    # Layers read it at each call. set_attn_implementation refuses those that do not go through its interface (Falcon),
    # and of transformers 5.23.0 there is no other way.
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part._attn_implementation = value


def _read(
    model: PreTrainedModel, attention: Any, heads: list[tuple[KVSite, Tensor]], turns: bool
) -> tuple[Tensor, Tensor]:
    """Attention weights ``[b, h, s, s]`` and results ``[b, s, width]`` of a text; in row i, head i may be turned."""
    seen: list[Any] = []

    def turn(site: KVSite) -> Any:
        def hook(module: Any, args: Any, output: Tensor) -> Tensor:
            output = output.clone()
            for row, (other, features) in enumerate(heads):
                if other is site:
                    output[row, TURNED, features.to(output.device)] *= -1
            return output

        return hook

    sites = {site.side: site for site, _ in heads} if turns else {}
    handles = [site.module.register_forward_hook(turn(site)) for site in sites.values()]
    handles.append(attention.register_forward_hook(lambda module, args, output: seen.append(output)))
    config: Any = model.config.get_text_config()
    text = torch.arange(1, LENGTH + 1, device=input_device(model)) * 7 % config.vocab_size
    ids = text.expand(len(heads), -1)
    try:
        with torch.no_grad(), eval_mode(model):
            backbone: Any = model.base_model  # the vocabulary is not looked at
            backbone(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    parts: Any = seen[0] if isinstance(seen[0], tuple) else (seen[0],)
    weights = next((p for p in parts if isinstance(p, Tensor) and p.dim() == 4 and p.shape[-1] == LENGTH), None)
    if weights is None or not weights.isfinite().all():  # gradients that are not finite are told later
        raise _NoWeights
    return weights.double(), parts[0].double()


def _changed(plain: Tensor, again: Tensor, turned: Tensor) -> Tensor:
    """Which tokens' values differ, ``[b, s]``, by more than two readings of the same do (not at all, on a CPU)."""
    tokens = plain.dim() - 2
    difference = (turned - plain).abs()
    noise = 4 * (again - plain).abs().max()
    return (difference > noise).movedim(tokens, 1).flatten(2).any(-1)
