"""What a stage will need, from a model's config alone: memory, time and disk of each process, and what they exchange.

Nothing is loaded: the architecture is built on the meta device and counted. A time is work over the speed of a
`Machine`, divided by the share of that speed which the stage was seen to reach.

Symbols of the formulas (docs/scaling.md derives them and compares them with what was counted and measured): P all
weights, W the weights of the decoder layers' matrix products, H those of the vocabulary projection, L layers, a the
width of all query heads, g the width of all key (or value) heads, T tokens, G processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from spd_lightning.cost.machine import Machine
from spd_lightning.cost.shape import ModelShape
from spd_lightning.errors import counted
from spd_lightning.finetuning.cross_entropy import logits_held
from spd_lightning.model.anatomy import dtype_name

# Share of the machine's speed (of the binding limit) that a stage reaches; SmolLM2 on 2 CPU cores, docs/scaling.md.
SHARE = {"extract": 0.6, "generate": 0.4, "fine_tune": 0.4, "evaluate": 0.4}
SAVED = 1.5  # numbers kept for backward, in units of the output features of a layer's projections
RECORD_BYTES = 11  # of a corpus line per token: its text, and its id with separators


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """What one process needs for a stage.

    Attributes:
        what: The work, in words.
        flops: Operations of one process.
        traffic: Bytes that one process reads from memory and cannot avoid (decoding: weights and cache each step).
        seconds: Time; None where the machine was not measured.
        memory: Peak on the computing device, bytes.
        disk: Bytes written, by all processes together.
        exchanged: Bytes that one process sends to the others.
    """

    stage: str
    what: str
    flops: float
    traffic: float
    memory: float
    disk: float
    exchanged: float
    seconds: float | None = None

    def timed(self, machine: Machine, dtype: torch.dtype) -> StageEstimate:
        """The same with the time on a machine: the binding limit over the stage's share, and the exchange."""
        limit = max(self.flops / machine.flops[dtype], self.traffic / machine.bandwidth)
        seconds = limit / SHARE[self.stage] + (self.exchanged / machine.link if machine.link else 0.0)
        return replace(self, seconds=seconds, memory=self.memory + machine.overhead)

    def line(self) -> str:
        """One line for the log."""
        took = "" if self.seconds is None else f"about {duration(self.seconds)}, "
        return f"estimate: {took}{size(self.memory)} of memory a process, {size(self.disk)} on disk"


def forward_flops(shape: ModelShape, tokens: float, squares: float, head_tokens: float) -> float:
    """``2 W T + 2 H T_head + 4 L a sum(s^2)``: operations of a forward pass over rows of lengths s.

    Args:
        shape: The model.
        tokens: Sum of s.
        squares: Sum of s * s; attention is counted as whole matrices.
        head_tokens: Positions at which the vocabulary projection is computed.
    """
    attention = 4 * shape.num_layers * shape.q_dim * squares
    return 2 * shape.products * tokens + 2 * shape.head * head_tokens + attention


def estimate_extract(
    shape: ModelShape,
    lengths: list[int],
    head_tokens: float,
    layers: list[int],
    sides: int,
    rank: int,
    dtype: torch.dtype,
    batch_tokens: int,
    processes: int = 1,
) -> StageEstimate:
    """Stage 1: forward, backward to the lowest target's keys and values, second moments.

    With A = L - lowest target layer: ``2 (W + W A/L) T + 4 H T_S + (4 L + 10 A) a sum(s^2) + 4 n g^2 T`` operations
    for n sites (the last term stands for float64 products at half speed); the exchange is
    ``8 n (g^2 + g + 1) 2 (G-1)/G`` bytes, whatever T is.

    Args:
        shape: The model.
        lengths: Tokens of each calibration text.
        head_tokens: Tokens of S, in all.
        layers: Target layers.
        sides: 2 for keys and values, else 1.
        rank: Columns of a basis.
        dtype: Of weights and activations.
        batch_tokens: Tokens of a batch.
        processes: G.
    """
    tokens, squares = float(sum(lengths)), float(sum(s * s for s in lengths))
    above = shape.num_layers - min(layers)
    sites = sides * len(layers)
    flops = forward_flops(shape, tokens, squares, head_tokens)
    flops += 2 * shape.layer_products * above * tokens + 2 * shape.head * head_tokens
    flops += 10 * above * shape.q_dim * squares
    flops += 2 * 2 * sites * shape.kv_dim**2 * tokens  # in float64, at half the speed of float32
    batch = min(float(batch_tokens), tokens)
    kept = SAVED * above * shape.layer_outputs * batch * dtype.itemsize
    logits = 3 * 4 * shape.vocab_size * batch * head_tokens / max(tokens, 1.0)
    moments = 8.0 * sites * (shape.kv_dim**2 + shape.kv_dim + 1)
    mean = tokens / max(len(lengths), 1)
    return StageEstimate(
        stage="extract",
        what=f"{counted(len(lengths), 'example')} of {mean:.0f} tokens, {len(layers)} layers, {dtype_name(dtype)}",
        flops=flops / processes,
        traffic=0.0,
        memory=shape.parameters * dtype.itemsize + kept + logits + moments,
        disk=moments + 4.0 * sites * shape.kv_dim * (rank + 1),
        exchanged=_all_reduced(moments, processes),
    )


def estimate_generate(
    shape: ModelShape,
    prompts: list[int],
    new_tokens: int,
    dtype: torch.dtype,
    batch_size: int,
    processes: int = 1,
    stage: str = "generate",
) -> StageEstimate:
    """Stage 2: every completion taken as long as ``new_tokens``; processes exchange nothing.

    A step of b rows with c positions each costs ``b (2 W + 2 H + 4 L a c)`` operations and reads
    ``W + H + b c k`` numbers, k the keys and values of a position (2 L g where all layers are alike).

    Args:
        shape: The model.
        prompts: Tokens of each prompt.
        new_tokens: Limit of a completion.
        dtype: Of weights and cache.
        batch_size: Rows decoded together.
        processes: G.
        stage: Whose share of the machine's speed counts.
    """
    rows, tokens = len(prompts), float(sum(prompts))
    mean = tokens / max(rows, 1)
    context = mean + new_tokens / 2
    flops = forward_flops(shape, tokens, float(sum(s * s for s in prompts)), rows)
    steps = float(rows * new_tokens)  # of single rows
    flops += steps * (2 * shape.products + 2 * shape.head + 4 * shape.num_layers * shape.q_dim * context)
    batches = -(-rows // batch_size)
    cache = shape.kv_width * dtype.itemsize  # bytes of a position
    weights = (shape.num_layers * shape.layer_weights + shape.head) * dtype.itemsize
    traffic = batches * new_tokens * weights + steps * context * cache
    together = min(batch_size, rows)
    longest = max(prompts, default=0)
    prefill = together * longest * shape.layer_outputs * dtype.itemsize / max(shape.num_layers, 1)
    logits = 6.0 * 4 * together * shape.vocab_size  # filtered, sorted and noisy copies in float32
    return StageEstimate(
        stage=stage,
        what=f"{counted(rows, 'prompt')} of {mean:.0f} tokens, {new_tokens} new at most, batches of {batch_size}, "
        f"{dtype_name(dtype)}",
        flops=flops * (-(-batches // processes) / max(batches, 1)),
        traffic=traffic * (-(-batches // processes) / max(batches, 1)),
        memory=shape.parameters * dtype.itemsize + together * (longest + new_tokens) * cache + prefill + logits,
        disk=RECORD_BYTES * (tokens + steps) + 150.0 * rows,
        exchanged=0.0,
    )


def one_after_another(parts: list[StageEstimate]) -> StageEstimate:
    """Several pieces of work in one stage: work and disk add up, memory is that of the largest."""
    if len(parts) == 1:
        return parts[0]
    added = {name: sum(getattr(part, name) for part in parts) for name in ("flops", "traffic", "disk", "exchanged")}
    memory, what = max(part.memory for part in parts), "; ".join(part.what for part in parts)
    return StageEstimate(stage=parts[0].stage, what=what, memory=memory, **added)


def estimate_fine_tune(
    shape: ModelShape,
    lengths: list[int],
    epochs: int,
    lora_r: int | None,
    batch_size: int,
    weights: torch.dtype,
    compute: torch.dtype,
    processes: int = 1,
    accumulate: int = 1,
    checkpointing: bool = False,
    sharded: bool = False,
    device_type: str = "cpu",
) -> StageEstimate:
    """Stage 3: forward, gradients of activations, and gradients of the trained weights alone.

    LoRA ``4 (W + H) T + 14 L a sum(s^2) + 6 P_lora T`` operations an epoch, all weights ``6 (W + H) T + ...``;
    gradient checkpointing adds a forward. Each optimiser step exchanges ``4 P_trained 2 (G-1)/G`` bytes; with sharded
    weights each micro-batch gathers all of them twice, ``2 P (G-1)/G`` numbers, as well.

    Logits are held in parts (`finetuning/cross_entropy.py`), but those of a micro-batch, their gradient and what a cap
    keeps of them, where the projection is trained or sharded or the model changes what it makes.

    Args:
        shape: The model.
        lengths: Tokens of each training text.
        epochs: Passes over the texts.
        lora_r: Rank of the adapter; None trains all weights.
        batch_size: Texts of an optimiser step, over all processes.
        weights: Dtype of the base weights.
        compute: Dtype of activations.
        processes: G.
        accumulate: Micro-batches of an optimiser step.
        checkpointing: Whether layers are computed again in backward.
        sharded: Whether weights are spread over the processes (FSDP).
        device_type: ``cpu`` or ``cuda``: what is held of the logits at once differs.
    """
    tokens, squares = float(sum(lengths)), float(sum(s * s for s in lengths))
    trained = shape.lora_parameters(lora_r)
    forward = forward_flops(shape, tokens, squares, tokens)
    flops = forward + (forward if checkpointing else 0.0)
    flops += 2 * (shape.products + shape.head) * tokens + 10 * shape.num_layers * shape.q_dim * squares
    flops += (6 * trained if lora_r is not None else 2 * (shape.products + shape.head)) * tokens
    steps = epochs * -(-len(lengths) // batch_size)
    rows = -(-batch_size // (processes * accumulate))
    micro = rows * float(max(lengths, default=0))
    kept = SAVED * shape.layer_outputs * micro * compute.itemsize
    if lora_r is not None:
        kept += 2 * shape.lora_width * micro * compute.itemsize  # the adapters' inputs and their dropout masks
    kept *= 1 if checkpointing else shape.num_layers
    base = shape.parameters * weights.itemsize
    state = 16.0 * trained - (base if lora_r is None else 0)  # float32: weight, gradient, two moments
    held = (base + state) / processes + 2 * base / shape.num_layers if sharded else base + state
    if lora_r is None or sharded or shape.changes_logits:
        logits = (2.0 + shape.changes_logits) * shape.vocab_size * micro * compute.itemsize
    else:
        logits = logits_held(shape.vocab_size, micro, device_type, compute.itemsize)
    exchanged = steps * _all_reduced(4.0 * trained, processes)
    if sharded:
        exchanged += steps * accumulate * 2.0 * base * (processes - 1) / processes
    return StageEstimate(
        stage="fine_tune",
        what=(
            f"{counted(len(lengths), 'text')} of {tokens / max(len(lengths), 1):.0f} tokens, {epochs} epochs, "
            f"{trained:,} trained weights, {dtype_name(compute)}" + (", sharded" if sharded else "")
        ),
        flops=epochs * flops / processes,
        traffic=0.0,
        memory=held + kept + logits,
        disk=4.0 * trained + 12.0 * trained,
        exchanged=exchanged,
    )


def estimate_likelihood(
    shape: ModelShape, tokens: float, longest: int, head_tokens: float, dtype: torch.dtype, processes: int = 1
) -> StageEstimate:
    """Stage 4, likelihoods: a forward over all questions, their shared prefix once.

    Args:
        shape: The model.
        tokens: Tokens to run.
        longest: Tokens of the longest question with its prefix.
        head_tokens: Positions that are scored.
        dtype: Of weights and activations.
        processes: G.
    """
    return StageEstimate(
        stage="evaluate",
        what=f"{tokens:.0f} tokens read, {dtype_name(dtype)}",
        flops=forward_flops(shape, tokens, tokens * longest, head_tokens) / processes,
        traffic=0.0,
        memory=shape.parameters * dtype.itemsize + 4096 * shape.layer_outputs * dtype.itemsize,
        disk=0.0,
        exchanged=0.0,
    )


def _all_reduced(num_bytes: float, processes: int) -> float:
    """Bytes that each process sends in a ring all-reduce."""
    return num_bytes * 2 * (processes - 1) / processes


def size(num_bytes: float) -> str:
    """Bytes for people: ``1.4 GiB``, ``12 MiB``, ``3 KiB``."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes / 2**10:.0f} KiB"


def duration(seconds: float) -> str:
    """Seconds for people: ``12 s``, ``7 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
