"""Stage 4: how far a student's next-token distributions are from its base's, on given texts.

One pass of each over the same tokens gives all: the divergence KL(student || base) over the whole vocabulary at every
position, the loss of the text under both, and whether both would go on with the same token.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from spd_lightning.evaluation.continuations import TOKEN_BUDGET, Work, form_batches
from spd_lightning.evaluation.likelihood import batch_logits, lookups
from spd_lightning.evaluation.paired import mean_difference
from spd_lightning.evaluation.statistics import jackknife_error, t_interval
from spd_lightning.generation.cache import prefix_states, shares_beginning
from spd_lightning.model.adapter_beside import base_alone
from spd_lightning.model.anatomy import input_device
from spd_lightning.model.packed_linear import packed_linears

_AT_ONCE = 64  # positions whose distributions are compared in float64 at a time


@dataclass(frozen=True, kw_only=True)
class TextDivergence:
    """Student against base on one text, sums over its tokens.

    Attributes:
        id: Of the text.
        tokens: Read tokens of the text.
        kl: Sum of KL(student || base), nats.
        base_nll: Loss of the text under the base, nats.
        student_nll: The same under the student.
        same: Tokens at which both have the same most likely one.
    """

    id: str
    tokens: int
    kl: float
    base_nll: float
    student_nll: float
    same: int


def text_divergences(
    student: PreTrainedModel, work: Sequence[Work], base: PreTrainedModel | None = None
) -> list[TextDivergence]:
    """Student against base on texts, in their order.

    Args:
        student: In eval mode.
        work: The texts, one row each (`work_of_tokens`).
        base: Of the same vocabulary; None where the student holds it, with all adapters put aside.

    Ranks:
        This process alone. Issues no collective.
    """
    vocabulary = student.config.get_text_config().vocab_size
    found: dict[str, TextDivergence] = {}
    with torch.inference_mode():
        for prefix, batch in form_batches(list(work), None, TOKEN_BUDGET, 2 * vocabulary, shares_beginning(student)):
            ours = _logits(student, prefix, batch)
            with base_alone(student) if base is None else nullcontext():
                theirs = _logits(base or student, prefix, batch).to(ours.device)
            at, tokens = torch.tensor(lookups(batch), device=ours.device).T
            values = _compare(ours[at], theirs[at], tokens)
            end = 0
            for w in batch:
                start, end = end, end + w.num_tokens[0]
                sums = values[start:end].sum(0).tolist()
                found[w.item.id] = TextDivergence(
                    id=w.item.id,
                    tokens=w.num_tokens[0],
                    kl=sums[0],
                    base_nll=sums[1],
                    student_nll=sums[2],
                    same=round(sums[3]),
                )
    return [found[w.item.id] for w in work]


def _logits(model: PreTrainedModel, prefix: np.ndarray, batch: list[Work]) -> Tensor:
    with packed_linears(model):
        ids = torch.from_numpy(prefix.astype(np.int64))[None].to(input_device(model))
        return batch_logits(model, batch, prefix_states(model, ids) if len(prefix) else {}, len(prefix))


def _compare(ours: Tensor, theirs: Tensor, tokens: Tensor) -> Tensor:
    """``[p, 4]``: divergence, both losses, and 1 where the most likely token is the same; float64, on the CPU."""
    parts = []
    for start in range(0, len(tokens), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        a, b = (_double(logits[rows]).log_softmax(-1) for logits in (ours, theirs))
        kl = (a.exp() * (a - b)).where(a.exp() > 0, 0.0).sum(-1)
        losses = [-x.gather(1, tokens[rows, None].to(x.device)).squeeze(1) for x in (b, a)]
        parts.append(torch.stack([kl, *losses, (a.argmax(-1) == b.argmax(-1)).double()], 1).cpu())
    return torch.cat(parts)


def _double(logits: Tensor) -> Tensor:
    return logits.cpu().double() if logits.device.type == "mps" else logits.double()


def summary(texts: Sequence[TextDivergence]) -> dict[str, Any]:
    """What `text_divergences` found, per token, with Student's t intervals over texts; JSON values.

    Returns:
        ``texts``, ``tokens``; ``kl`` (nats a token) and ``kl_ci95``; ``base_loss``, ``student_loss``, ``loss_delta``
        (nats a token, student less base) and ``loss_ci95``; ``same_token``, a share.
    """
    weights = np.array([t.tokens for t in texts], dtype=np.float64)
    total = float(weights.sum())
    kl, base, student = (
        np.array([getattr(t, name) for t in texts]) / weights for name in ("kl", "base_nll", "student_nll")
    )
    mean = float((kl * weights).sum() / total)
    ci95 = t_interval(mean, jackknife_error(kl, weights), len(texts), limits=(0.0, float("inf")))
    loss = mean_difference(base, student, weights)
    return {
        "texts": len(texts),
        "tokens": int(total),
        "kl": mean,
        "kl_ci95": None if ci95 is None else list(ci95),
        "base_loss": float((base * weights).sum() / total),
        "student_loss": float((student * weights).sum() / total),
        "loss_delta": loss.delta,
        "loss_ci95": None if loss.interval is None else list(loss.interval),
        "same_token": sum(t.same for t in texts) / total,
    }
