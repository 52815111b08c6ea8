"""What stage 1 reads and what its results depend on: calibration examples, target sites, keys and metadata.

All of it is known before any weight is loaded, and nothing here knows of a Trainer or a device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spd_lightning.errors import UserError, counted
from spd_lightning.health import Health, fewer_than_asked
from spd_lightning.model.anatomy import cache_layers, context_of, decoder_layers, dtype_name, resolve_layers
from spd_lightning.model.load import load_config
from spd_lightning.model.text_part import skeleton
from spd_lightning.subspace.choice import Basis, Rank, choose_rank
from spd_lightning.subspace.correctness import CalibrationStatistics, EncodedExample
from spd_lightning.subspace.sites import KVSite, Sides, SiteKey, kv_sites, split_sides
from spd_lightning.tasks.task import Example, Rows, Task


def context(model_name_or_path: str) -> int | None:
    """The longest text that a model takes, tokens; None where its config names no limit."""
    return context_of(load_config(model_name_or_path))


def first_examples(task: Task, num_examples: int | None) -> list[Example]:
    """The calibration pairs: the first rows of the task's training split, the task's own number of them for None."""
    return task.examples("train", num_examples or task.default_num_examples)


def target_sites(model_name_or_path: str, layers: str | list[int], sides: Sides, rank: Rank) -> dict[SiteKey, int]:
    """``(layer, side)`` to kv_dim of every target site, from the model's config alone.

    Raises:
        UserError: If layers, sides or rank do not fit the model, or its architecture is unknown.
    """
    config = load_config(model_name_or_path)
    both = split_sides(sides)
    model = skeleton(config)
    depth = len(decoder_layers(model))
    with_kv = sorted({layer for layer, _ in kv_sites(model)})
    cache_layers(config)  # refuses what stage 2 could not run
    found = kv_sites(model, resolve_layers(layers, depth, with_kv))
    joint = sorted({layer for (layer, _), site in found.items() if site.both})
    if joint and sides != "kv":
        raise UserError(
            f"sides={sides!r} cannot be projected alone in layer {joint[0]} of {model_name_or_path}, where one "
            "projection makes keys and values. Set --subspace.sides to kv, or layers (--subspace.layers) to others."
        )
    kv_dims = {key: site.kv_dim for key, site in found.items() if key[1] in both}
    for (layer, side), kv_dim in kv_dims.items():
        choose_rank(rank, torch.ones(kv_dim), layer, _heads(model, found[layer, side]))
    return kv_dims


def _heads(model: nn.Module, site: KVSite) -> str:
    """How wide a site is in heads, for messages; empty where its attention does not say."""
    attention: Any = model.get_submodule(site.name.rpartition(".")[0])
    width = getattr(attention, "head_dim", None)
    if not isinstance(width, int) or site.kv_dim % width:
        return ""
    return f" (num_key_value_heads={site.kv_dim // width} x head_dim={width})"


def where(model: nn.Module, sites: Mapping[SiteKey, KVSite]) -> str:
    """Which layers are projected, and what is special about them, in a sentence."""
    layers = sorted({layer for layer, _ in sites})
    with_kv, depth = {layer for layer, _ in kv_sites(model)}, len(decoder_layers(model))
    text = f"keys and values of layers {', '.join(map(str, layers))} of {depth}"
    if len(with_kv) < depth:
        text += f"; {len(with_kv)} layers have keys and values of their own ({', '.join(map(str, sorted(with_kv)))})"
    if joint := sorted({layer for (layer, _), site in sites.items() if site.both}):
        text += f"; one projection makes both in layer {', '.join(map(str, joint))}"
    if lent := sorted({layer for (layer, _), site in sites.items() if site.borrowers}):
        text += f"; later layers have the weights of layer {', '.join(map(str, lent))} and are projected with it"
    return text


def count_problems(num_examples: int | None, batch_tokens: int) -> list[str]:
    """What is wrong with these options, one sentence each; empty if nothing is."""
    problems = []
    if num_examples is not None and num_examples < 1:
        problems.append(f"num_examples={num_examples} is not positive. Set --subspace.num_examples.")
    if batch_tokens < 1:
        problems.append(f"batch_tokens={batch_tokens} is not positive. Set --subspace.batch_tokens.")
    return problems


def check_weights(model: nn.Module, name: str) -> None:
    """Refuse a model whose weights are not finite: it, not the dtype, is why its gradients are not.

    Raises:
        UserError: It names the first such weight.
    """
    bad = [weight for weight, values in model.named_parameters() if not torch.isfinite(values).all()]
    if bad:
        raise UserError(
            f"The weights of {name} are not finite ({len(bad)} tensors, the first is {bad[0]}). "
            "Give model_name_or_path (--subspace.model_name_or_path) an intact model, or set dtype=float32 "
            "(--subspace.dtype)."
        )


def moments_key(
    fingerprint: str,
    reading: Mapping[str, Any],
    *,
    task_version: int,
    rows: Rows,
    examples: Sequence[Example],
    sites: Iterable[SiteKey],
    dtype: torch.dtype,
    batch_tokens: int,
    tokens: Sequence[EncodedExample] | None = None,
) -> dict[str, Any]:
    """Everything that the moments depend on, as JSON values; rank, center, basis and strength are not among it.

    Args:
        fingerprint: Of the model's files.
        reading: How examples become tokens and S: task, loss, span_rule, max_length.
        task_version: Of the task's prompts.
        rows: Which training rows; the examples themselves are in the key as well.
        examples: The calibration pairs.
        sites: Target sites.
        dtype: Of the forward and backward pass.
        batch_tokens: Size of a batch, by which sums are rounded.
        tokens: What a chat template made of them; None for plain text.
    """
    content = json.dumps([[e.id, e.prompt, e.target, e.spans] for e in examples])
    if tokens is not None:
        content += json.dumps([[e.input_ids, e.correctness_mask] for e in tokens])
    return {
        "model": fingerprint,
        **reading,
        "task_version": task_version,
        "rows": rows,
        "examples": hashlib.sha256(content.encode()).hexdigest(),
        "sites": [f"{layer}.{side}" for layer, side in sites],
        "dtype": dtype_name(dtype),
        "batch_tokens": batch_tokens,
    }


def subspace_key(
    moments: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, float],
    *,
    rank: Rank,
    center: bool,
    basis: Basis,
    strength: float,
    seed: int,
) -> dict[str, Any]:
    """Everything that the subspace depends on, as JSON values; the seed only where it is drawn from.

    Args:
        moments: Keys of the tasks' moments, by task.
        weights: By task; see `mixture`. Of one task alone neither its weight nor its name beside the key counts.
    """
    keys = {name: dict(moments[name]) for name in weights}
    several = {"moments": keys, "weights": dict(weights)}
    return {
        **(several if len(keys) > 1 else {"moments": next(iter(keys.values()))}),
        "rank": rank,
        "center": center,
        "basis": basis,
        "strength": strength,
        "seed": seed if basis == "random" else None,
    }


def metadata(
    name: str,
    fingerprint: str,
    weights_digest: str,
    reading: Mapping[str, Any],
    dtype: str,
    statistics: CalibrationStatistics,
) -> dict[str, Any]:
    """What a file of moments says of how they came about; of a folder its last part alone, so that no path is in it."""
    return {
        "model": Path(name).name if Path(name).exists() else name,
        "fingerprint": fingerprint,
        "weights_digest": weights_digest,
        **reading,
        "dtype": dtype,
        "num_examples": statistics.num_examples,
        "num_skipped": statistics.num_skipped,
        "skipped": {reason: len(ids) for reason, ids in statistics.skipped.items()},
        "num_cut": len(statistics.cut),
        "num_tokens": statistics.num_tokens,
        "num_correctness_tokens": statistics.num_correctness_tokens,
    }


def calibration_health(asked: int | None, facts: Mapping[str, Any], task: str = "") -> Health:
    """Stage 1's line: how many calibration examples were lost, and why.

    Args:
        asked: ``subspace.num_examples``.
        facts: Of `CalibrationStatistics`.
        task: Whose they are, where there are several.
    """
    used, lost, cut = facts["num_examples"], facts["num_skipped"], len(facts["cut"])
    found = fewer_than_asked("subspace.num_examples", asked, used + lost, "examples")
    if lost:
        reasons = "; ".join(f"{reason}: {len(ids)}" for reason, ids in facts["skipped"].items())
        found.append(
            f"{lost} of {used + lost} calibration examples are lost ({reasons}). Raise max_length "
            "(--subspace.max_length), or mend the spans of these examples."
        )
    if cut > lost:
        spans = f"Spans of {counted(cut - lost, 'example')} used"
        found.append(f"{spans} are cut. Raise max_length (--subspace.max_length).")
    figures = {"examples": used, "lost": lost / max(used + lost, 1), "tokens_in_S": facts["num_correctness_tokens"]}
    return Health(f"extract {task}".rstrip(), figures, tuple(found))
