"""Gradients of the alignment loss with respect to keys and values, one batch at a time.

``L = sum over examples of -(1/|S|) * sum over t in S of log p(z_t | z_<t)`` (arXiv:2605.22675, eq. 6), differentiated
with respect to the captured K/V activations alone. Three things make it cheap, none changes a value:

- layers below the lowest target run without a graph: there the activation becomes the leaf the graph starts from;
- the vocabulary projection is computed only at the positions that predict S;
- a causal model's loss cannot depend on tokens from the last one in S on, so those are not run; their rows are zero.

Shapes: ``b`` batch, ``s`` sequence, ``kv_dim`` features of a site, ``n`` tokens in S of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from spd_lightning.errors import UserError
from spd_lightning.model.anatomy import head_at
from spd_lightning.model.short_attention import short_attention
from spd_lightning.subspace.correctness import EncodedExample
from spd_lightning.subspace.sites import KVSite, SiteKey

BATCH_TOKENS = 1024  # fills a processor, fits its caches, and wastes little on padding
STEP = 8  # rows are run in multiples of so many tokens: oneDNN keeps megabytes of code for every shape it meets


class Batch(NamedTuple):
    """Right-padded calibration pairs.

    Attributes:
        input_ids: ``[b, s]`` int64.
        attention_mask: ``[b, s]`` bool, true for real tokens (a prefix of each row).
        correctness_mask: ``[b, s]`` bool, true for tokens in S; never in the first column.
    """

    input_ids: Tensor
    attention_mask: Tensor
    correctness_mask: Tensor

    @property
    def num_tokens(self) -> int:
        """Real tokens of the batch."""
        return int(self.attention_mask.sum())


def form_batches(examples: Sequence[EncodedExample], batch_tokens: int) -> list[list[EncodedExample]]:
    """Group examples of like length, in canonical order (tokens that must be run, then id).

    Args:
        examples: All examples; batches are formed from the whole list before any is dealt to a process.
        batch_tokens: Largest number of tokens to run in a batch, padding included; a longer example stands alone.
    """
    batches: list[list[EncodedExample]] = []
    for example in sorted(examples, key=lambda e: (e.reach, e.id)):
        if batches and _whole_steps(example.reach) * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(example)
        else:
            batches.append([example])
    return batches


def collate(examples: Sequence[EncodedExample], pad_token_id: int = 0) -> Batch:
    """Pad examples on the right, to the longest or up to a step more."""
    longest = 1 + _whole_steps(max(len(e.input_ids) for e in examples) - 1) if examples else 0
    input_ids = torch.full((len(examples), longest), pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros(len(examples), longest, dtype=torch.bool)
    correctness_mask = torch.zeros(len(examples), longest, dtype=torch.bool)
    for row, example in enumerate(examples):
        n = len(example.input_ids)
        input_ids[row, :n] = torch.tensor(example.input_ids)
        attention_mask[row, :n] = True
        correctness_mask[row, :n] = torch.tensor(example.correctness_mask)
    return Batch(input_ids, attention_mask, correctness_mask)


def _whole_steps(tokens: int) -> int:
    return math.ceil(tokens / STEP) * STEP


def capture_gradients(model: PreTrainedModel, batch: Batch, sites: Mapping[SiteKey, KVSite]) -> dict[SiteKey, Tensor]:
    """Gradients of the alignment loss of a batch at every site.

    Args:
        model: A causal language model in eval mode; with frozen weights nothing else is differentiated.
        batch: On the device of the model's embeddings.
        sites: Where to take gradients, as `kv_sites` gives them.

    Returns:
        Per site ``[m, kv_dim]`` in the model's dtype, one row for each real token that stands before the last token of
        S in the batch (or less than a step after it), by example then position; where several layers have the weights
        of a site, those rows once for each. Rows of later tokens are zero and left out: `for_moments` counts them.

    Raises:
        UserError: If a site has no part in the loss.

    Ranks:
        Pure; issues no collective.
    """
    width = _width(batch)
    input_ids, real = batch.input_ids[:, :width], batch.attention_mask[:, :width]
    predicts_s = batch.correctness_mask[:, 1 : width + 1]
    labels = batch.input_ids[:, 1 : width + 1][predicts_s]
    weights = predicts_s / predicts_s.sum(dim=1, keepdim=True).clamp(min=1)
    at = predicts_s.nonzero(as_tuple=True)
    modules = {site.name: site.modules for site in sites.values()}
    with torch.enable_grad(), short_attention(), _capture_outputs(modules) as outputs, head_at(model, *at):
        # Right padding under a causal mask hides nothing from real tokens, so no attention mask is needed.
        logits = model(input_ids=input_ids, use_cache=False).logits
        logits = logits[0].to(torch.promote_types(logits.dtype, torch.float32))
        losses = F.cross_entropy(logits, labels.to(logits.device), reduction="none")
        loss = (losses * weights[predicts_s].to(losses)).sum()
        captured = [output for name in modules for output in outputs[name]]
        given: Any = torch.autograd.grad(loss, captured, allow_unused=True) if loss.requires_grad else [None]
        _check_used(model, [name for name in modules if not outputs[name]], given)
        found = iter(given)
        gradients = {
            name: torch.cat([next(found)[real.to(output.device)] for output in outputs[name]]) for name in modules
        }
    return {key: site.select(gradients[site.name]) for key, site in sites.items()}


def _check_used(model: nn.Module, unread: Sequence[str], gradients: Sequence[Tensor | None]) -> None:
    """Refuse a model that does not run a site on text, or runs it without gradients (HRM's first cycles)."""
    if unread or any(gradient is None for gradient in gradients):
        where = f" {unread[0]}" if unread else ""
        raise UserError(
            f"The loss of {type(model).__name__} has no gradient at every site{where}: it does not run all of them on "
            "text, or some without gradients. Set layers (--subspace.layers) to others, or model_name_or_path "
            "(--subspace.model_name_or_path) to another model."
        )


Rows = dict[SiteKey, Tensor]
Counts = dict[SiteKey, int]


def for_moments(gradients: Rows, batch: Batch, before: int) -> tuple[Rows, Counts, tuple[Rows, Counts]]:
    """The gradient rows of a batch, and those of every second example, as `Moments.update` takes them.

    Args:
        gradients: Those of `capture_gradients`.
        batch: Their batch.
        before: Examples in the batches before it, of all processes: the turns go through all batches.

    Returns:
        The rows, how many rows of G they are per site (those known to be zero counted), and the same of the half.
    """
    chosen = (before + torch.arange(len(batch.input_ids), device=batch.input_ids.device)) % 2 == 0
    rows = chosen[batch.attention_mask[:, : _width(batch)].nonzero()[:, 0]]
    tokens = int(batch.attention_mask[chosen].sum())
    times = {key: len(values) // len(rows) for key, values in gradients.items()}  # layers that have a site's weights
    half = {key: values[rows.repeat(times[key]).to(values.device)] for key, values in gradients.items()}
    counts = {key: batch.num_tokens * n for key, n in times.items()}
    return gradients, counts, (half, {key: tokens * n for key, n in times.items()})


def _width(batch: Batch) -> int:
    """Positions that are read: up to the last one that predicts a token of S, in whole steps."""
    last = int(batch.correctness_mask.any(dim=0).nonzero().max())  # the last column of S is predicted, not read
    return min(_whole_steps(last), batch.input_ids.shape[1] - 1)


@contextmanager
def _capture_outputs(modules: Mapping[str, Sequence[nn.Module]]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the outputs of modules by name as tensors to differentiate by; hooks are removed in any case."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in modules}
    handles = []
    try:
        for name, module in [(name, module) for name, several in modules.items() for module in several]:

            def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor, name: str = name) -> Tensor:
                if not output.requires_grad:  # nothing below is differentiated: the graph starts here
                    output = output.detach().requires_grad_()
                outputs[name].append(output)
                return output

            handles.append(module.register_forward_hook(hook))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
