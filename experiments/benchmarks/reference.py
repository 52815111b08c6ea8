"""Stage 1 read plainly, to measure against: one text at a time, the whole graph, all logits, rows stacked, one SVD.

It follows the published method and its reference script step by step and shares no code with
``spd_lightning.subspace``, so that agreement means something. Models with separate ``k_proj`` and ``v_proj`` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def correctness_positions(offsets: Sequence[tuple[int, int]], spans: Any, rule: str) -> list[int]:
    """Indices of the tokens in S, the first token (which nothing predicts) left out."""
    positions = []
    for t, (a, b) in enumerate(offsets):
        if t == 0 or a == b:
            continue
        for start, end in spans:
            inside = a >= start and b <= end
            touching = a < end and b > start
            if inside if rule == "contained" else touching:
                positions.append(t)
                break
    return positions


def gradient_rows(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Any],
    layers: Sequence[int],
    rule: str = "overlap",
    max_length: int = 256,
    freeze: bool = False,
) -> dict[tuple[int, str], Tensor]:
    """G of every site: rows of all tokens of all texts with a non-empty S, stacked, ``[M, kv_dim]``.

    Args:
        model: Causal language model with separate K/V projections.
        tokenizer: Its fast tokenizer.
        examples: Calibration pairs.
        layers: Target layers, 0-based.
        rule: ``overlap`` or ``contained``.
        max_length: Limit of a text in tokens.
        freeze: Leave weight gradients out (the graph then starts at the embeddings); as published they are computed.
    """
    model.requires_grad_(not freeze)
    captured: dict[tuple[int, str], Tensor] = {}
    handles = []
    if freeze:
        embeddings = model.get_input_embeddings()
        handles.append(embeddings.register_forward_hook(lambda module, args, output: output.requires_grad_()))
    for layer in layers:
        attention = model.model.layers[layer].self_attn
        for side, module in (("k", attention.k_proj), ("v", attention.v_proj)):

            def hook(module: Any, args: Any, output: Tensor, key: tuple[int, str] = (layer, side)) -> None:
                output.retain_grad()
                captured[key] = output

            handles.append(module.register_forward_hook(hook))
    rows: dict[tuple[int, str], list[Tensor]] = {(layer, side): [] for layer in layers for side in ("k", "v")}
    try:
        for example in examples:
            text = example.prompt + example.target
            tokens = tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=max_length)
            positions = correctness_positions(tokens["offset_mapping"], example.spans, rule)
            if not positions:
                continue
            input_ids = torch.tensor([tokens["input_ids"]])
            logits = model(input_ids=input_ids, use_cache=False).logits.float()
            log_probabilities = torch.log_softmax(logits[0], dim=-1)
            loss = -torch.stack([log_probabilities[t - 1, input_ids[0, t]] for t in positions]).mean()
            model.zero_grad()
            loss.backward()
            for key, activation in captured.items():
                rows[key].append(activation.grad[0].detach().clone())  # type: ignore[index]
            captured.clear()
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad()
        model.requires_grad_(False)
    return {key: torch.cat(parts) for key, parts in rows.items()}


def leading_directions(rows: Tensor, rank: int, center: bool) -> tuple[Tensor, Tensor]:
    """``(basis [kv_dim, rank], singular values [kv_dim])`` of G by a singular value decomposition in G's dtype."""
    rows = rows.float() if rows.dtype == torch.bfloat16 else rows
    if center:
        rows = rows - rows.mean(dim=0, keepdim=True)
    _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
    return vectors[:rank].T, values
