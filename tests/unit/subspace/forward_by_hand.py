"""A decoder's forward pass written by hand, for the tests of this folder: keys and values can be taken and projected.

It shares nothing with the package, nor with transformers but the weights: RMS norms, rotary positions, grouped heads
and the key norm of Qwen3 are written out, in float64, for one text without padding.
"""

import math

import torch


def forward(model, ids, projectors=None, taken=None):
    """Logits ``[s, vocab]`` of a Llama, Qwen2 or Qwen3.

    Args:
        model: Gives the weights and the config.
        ids: Tokens of one text.
        projectors: ``(layer, side)`` to P ``[kv_dim, kv_dim]``: K~ = K P, V~ = V P.
        taken: Its keys name sites; they get K and V as they leave their projections, ``[s, kv_dim]``.
    """
    config, weights = model.config, {name: value.double() for name, value in model.state_dict().items()}
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    x, length = weights["model.embed_tokens.weight"][ids], len(ids)

    def norm(values, name):
        return (
            weights[f"{name}.weight"] * values / (values.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()
        )

    def linear(values, name):
        return values @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)

    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}"
        attention, hidden = f"{layer}.self_attn", norm(x, f"{layer}.input_layernorm")
        q, kv = linear(hidden, f"{attention}.q_proj"), {s: linear(hidden, f"{attention}.{s}_proj") for s in "kv"}
        for side, values in kv.items():
            if taken is not None and (i, side) in taken:
                taken[i, side] = kv[side] = values if values.requires_grad else values.detach().requires_grad_()
            kv[side] = kv[side] @ projectors[i, side] if projectors and (i, side) in projectors else kv[side]
        q, k, v = q.view(length, heads, width), *(kv[s].view(length, groups, width) for s in "kv")
        if f"{attention}.k_norm.weight" in weights:
            q, k = norm(q, f"{attention}.q_norm"), norm(k, f"{attention}.k_norm")
        q, k = _turned(q), _turned(k)
        k, v = (values.repeat_interleave(heads // groups, dim=1) for values in (k, v))
        scores = torch.einsum("shd,thd->hst", q, k) / math.sqrt(width)
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = torch.einsum("hst,thd->shd", scores.masked_fill(later, -math.inf).softmax(-1), v)
        x = x + linear(mixed.reshape(length, -1), f"{attention}.o_proj")
        hidden = norm(x, f"{layer}.post_attention_layernorm")
        gate, up = (linear(hidden, f"{layer}.mlp.{name}_proj") for name in ("gate", "up"))
        x = x + linear(gate * gate.sigmoid() * up, f"{layer}.mlp.down_proj")
    return linear(norm(x, "model.norm"), "lm_head")


def _turned(x, theta=10_000.0):
    """Rotary positions of ``[s, heads, width]``: each half-pair of features turned by its angle."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x)).double()[:, None] * theta ** (-torch.arange(half).double() / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
