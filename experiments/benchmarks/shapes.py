"""Shapes of models whose weights are not at hand, for counting and for random weights."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2Config


def _qwen2(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, **more: Any) -> Qwen2Config:
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers}
    return Qwen2Config(**sizes, num_attention_heads=heads, num_key_value_heads=kv_heads, **more)


# From the config.json of the released models.
SHAPES: dict[str, Any] = {
    "Qwen2.5-0.5B": _qwen2(896, 4864, 24, 14, 2, vocab_size=151936, tie_word_embeddings=True),
    "Qwen2.5-7B": _qwen2(3584, 18944, 28, 28, 4, vocab_size=152064, tie_word_embeddings=False),
}


def tiny_config() -> Qwen2Config:
    """The same architecture, small enough for a test."""
    return _qwen2(64, 160, 4, 4, 2, vocab_size=300, tie_word_embeddings=False, max_position_embeddings=1024)
