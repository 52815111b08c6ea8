"""What a model's config alone says about its size: the architecture is built on the meta device and counted.

The formulas of `formulas.py` are written in these symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from spd_lightning.model.anatomy import decoder_layers, is_conv1d, is_linear
from spd_lightning.model.text_part import skeleton
from spd_lightning.subspace.sites import QUERIES, base_projection, kv_sites


@dataclass(frozen=True)
class ModelShape:
    """What a model's config says about its size.

    Attributes:
        parameters: All weights, tied ones once (P).
        num_layers: Decoder layers (L).
        layer_products: Weights of one decoder layer that a token is multiplied with (W / L); of a mixture of experts,
            those of the experts that the token goes to.
        layer_weights: The same with all experts: what a decoding step reads.
        layer_outputs: Output features of the projections of one decoder layer, for one token.
        head: Weights of the vocabulary projection (H).
        vocab_size: Rows of the vocabulary projection.
        q_dim: Width of all query heads, the mean over the layers: one without attention has none (a).
        kv_dim: Width of all key heads, of one side, in the widest layer (g).
        kv_width: Keys and values that a position keeps in the cache, over all layers (2 L g where they are alike).
        kv_layers: Layers with keys and values of their own.
        lora_width: Input and output features of a layer's adapted projections, the mean: LoRA has ``lora_r`` times as
            many weights a layer.
        changes_logits: Whether logits are capped, scaled or cast behind the vocabulary projection: training then holds
            those of all its tokens at once.
    """

    parameters: int
    num_layers: int
    layer_products: int
    layer_weights: int
    layer_outputs: int
    head: int
    vocab_size: int
    q_dim: float
    kv_dim: int
    kv_width: int
    kv_layers: tuple[int, ...]
    lora_width: float
    changes_logits: bool

    @property
    def products(self) -> int:
        """W: weights of all decoder layers' matrix products."""
        return self.num_layers * self.layer_products

    def lora_parameters(self, lora_r: int | None) -> int:
        """Weights that are trained: those of the adapter, or all for None."""
        return self.parameters if lora_r is None else round(self.num_layers * lora_r * self.lora_width)


def model_shape(config: Any) -> ModelShape:
    """Count an architecture from its transformers config, on the meta device (no memory)."""
    from spd_lightning.finetuning.cross_entropy import changes_logits
    from spd_lightning.finetuning.lora import lora_targets

    model = skeleton(config)
    text = config.get_text_config()
    layers = decoder_layers(model)
    matrices: dict[str, Any] = {name: base_projection(m).weight for name, m in layers.named_modules() if is_linear(m)}
    conv1d = any(is_conv1d(m) for m in layers.modules())  # holds its weight as [in, out]
    experts = [p for p in layers.parameters() if p.dim() == 3]  # [experts, out, in]
    chosen = getattr(text, "num_experts_per_tok", None)
    active = [(p, min(chosen or len(p), len(p))) for p in experts]
    dense = sum(p.numel() for p in layers.parameters() if p.dim() == 2)  # with the routers
    outputs = sum(w.shape[1 if conv1d else 0] for w in matrices.values()) + sum(k * p.shape[1] for p, k in active)
    targets = lora_targets(model)
    adapted = [w for name, w in matrices.items() if any(name.endswith(f".{t}") for t in targets)]
    sites = kv_sites(model)
    kv_layers = tuple(sorted({layer for layer, _ in sites}))
    head: Any = model.get_output_embeddings().weight
    return ModelShape(
        parameters=sum(p.numel() for p in {id(p): p for p in model.parameters()}.values()),
        num_layers=len(layers),
        layer_products=round((dense + sum(k * p[0].numel() for p, k in active)) / len(layers)),
        layer_weights=round((dense + sum(p.numel() for p in experts)) / len(layers)),
        layer_outputs=round(outputs / len(layers)),
        head=head.numel(),
        vocab_size=head.shape[0],
        q_dim=_query_width(text, layers, kv_layers),
        kv_dim=max(site.kv_dim for site in sites.values()),
        kv_width=sum((2 if site.both else 1) * site.kv_dim * len(site.modules) for site in sites.values()),
        kv_layers=kv_layers,
        lora_width=sum(sum(w.shape) for w in adapted) / len(layers),
        changes_logits=changes_logits(model.bfloat16()),  # in which some cast them to float32
    )


def _query_width(text: Any, layers: nn.ModuleList, kv_layers: tuple[int, ...]) -> float:
    """Mean over the layers of the width of all query heads; layers may differ in it (Gemma 4), or have none."""
    configs = list(getattr(text, "per_layer_config", None) or [text] * len(layers))
    total = 0
    for i, (block, config) in enumerate(zip(layers, configs, strict=True)):
        names = {name.rsplit(".", 1)[-1] for name, module in block.named_modules() if is_linear(module)}
        if i in kv_layers or names & set(QUERIES):
            heads = config.num_attention_heads
            total += heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return total / len(layers)
