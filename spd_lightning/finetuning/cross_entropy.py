"""Vocabulary projection and cross-entropy in one pass over parts of the rows, so that no [n, v] is ever held.

With a vocabulary of 262,144 (Gemma) the logits of a token take half a megabyte, and their gradient as much again:
writing and reading them cost as much as the products that make them. Here some rows are projected, their softmax is
taken, and its gradient is multiplied out to that of the hidden states at once.

Shapes: n labelled positions, d width of the model, v vocabulary.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spd_lightning.model.anatomy import hook_of

Head = Callable[[Tensor], Tensor]

# Logits that are held at once, and those whose softmax is in float32 at once: on a CPU, so that they stay in its cache.
HELD = {"cpu": 2**24, "cuda": 2**27}
WIDE = {"cpu": 2**20, "cuda": 2**25}

_changes_its_logits: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def logits_or_hidden(model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, Head | None]:
    """A model's logits; or its hidden states before the vocabulary projection, and the projection, where that is all.

    A model that caps or scales its logits, trains the projection, or spreads it over processes or devices gives logits.
    Whether it does anything to them shows when the projection gives its input back: it comes out untouched, or not.

    Args:
        model: A causal language model, bare or with an adapter.
        inputs: Of its forward.

    Returns:
        ``[..., v]`` and None, or ``[..., d]`` and what makes logits of it.
    """
    head = model.get_output_embeddings()
    plain = type(head) is nn.Linear and type(head.weight) is nn.Parameter and hook_of(head) is None
    if plain and model not in _changes_its_logits and not any(p.requires_grad for p in head.parameters()):
        state = _random_state(head.weight)
        with _left_out(head) as left:
            hidden = model(**inputs).logits
        if left.hidden is not None and hidden is left.hidden:
            return left.hidden, left.head
        _changes_its_logits.add(model)
        _set_random_state(state)  # the same dropout once more
    return model(**inputs).logits, None


def changes_logits(skeleton: Any) -> bool:
    """Whether a model caps, scales or casts the logits that its vocabulary projection makes.

    Args:
        skeleton: The model without weights, on the meta device. Its decoder is left out for good.

    Returns:
        True too where a class asks for more of its decoder than hidden states: then it cannot be told here.
    """
    head = skeleton.get_output_embeddings().weight
    hidden = torch.empty(1, 1, head.shape[1], dtype=head.dtype, device="meta")
    skeleton.base_model.forward = lambda *args, **kwargs: _Decoded(hidden)
    inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.long, device="meta"), "use_cache": False}
    try:
        return logits_or_hidden(skeleton.requires_grad_(False), inputs)[1] is None
    except Exception:
        return True


@dataclass
class _Decoded:
    """What a decoder gives, by position or by name: hidden states, and nothing else."""

    last_hidden_state: Tensor

    def __getitem__(self, index: int) -> Tensor | None:
        return self.last_hidden_state if index == 0 else None

    def __getattr__(self, name: str) -> None:
        return None


def _random_state(where: Tensor) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(where.device) if where.is_cuda else None


def _set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])


@dataclass
class _LeftOut:
    """A vocabulary projection that was left out: what it computes, and the input that it gave back as it was."""

    head: Head
    hidden: Tensor | None = None


@contextlib.contextmanager
def _left_out(module: nn.Module) -> Iterator[_LeftOut]:
    before = module.__dict__.get("forward")  # packed weights stand there
    left = _LeftOut(module.forward)

    def give_back(hidden: Tensor) -> Tensor:
        left.hidden = hidden
        return hidden

    module.forward = give_back
    try:
        yield left
    finally:
        module.__dict__.pop("forward")
        if before is not None:
            module.forward = before


def logits_held(vocabulary: int, positions: float, device_type: str, itemsize: int) -> float:
    """Bytes of logits, and of their float32 softmax, that `head_loss_sum` holds at once for so many positions."""
    held, wide = (max(1, most[device_type] // vocabulary) for most in (HELD, WIDE))
    return vocabulary * (min(held, positions) * itemsize + min(wide, positions) * 2 * 4)


def head_loss_sum(head: Head, hidden: Tensor, targets: Tensor, vocabulary: int) -> Tensor:
    """Sum of the cross-entropies (nats) of the logits that a projection makes.

    Args:
        head: The projection, ``[1, m, d]`` to ``[1, m, v]``; its weights get no gradient.
        hidden: ``[n, d]``.
        targets: ``[n]`` int64.
        vocabulary: v.

    Returns:
        Scalar, float32 (float64 for a float64 model), with a graph to ``hidden``.
    """
    return _HeadLossSum.apply(hidden, targets, head, vocabulary)  # type: ignore[no-untyped-call]


def loss_and_gradient(logits: Tensor, targets: Tensor, gradient: Tensor | None) -> Tensor:
    """Sum of the cross-entropies of logits ``[n, v]``; their gradient goes to ``gradient``, which may be the logits."""
    rows = max(1, WIDE[_kind(logits)] // logits.shape[1])
    wide = torch.promote_types(logits.dtype, torch.float32)
    total = torch.zeros((), dtype=wide, device=logits.device)
    for start in range(0, len(logits), rows):
        part, index = logits[start : start + rows], targets[start : start + rows, None]
        probs = torch.softmax(part, dim=-1, dtype=wide)
        # The largest probability is 1 / sum, so log sum exp = largest logit - its log.
        total += (part.amax(dim=-1).to(wide) - probs.amax(dim=-1).log() - part.gather(1, index)[:, 0].to(wide)).sum()
        if gradient is not None:
            gradient[start : start + rows] = probs.scatter_add_(1, index, torch.full_like(index, -1, dtype=wide))
    return total


def _kind(tensor: Tensor) -> str:
    return "cpu" if tensor.device.type == "cpu" else "cuda"


class _HeadLossSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head, vocabulary: int) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(hidden) if wanted else None
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        rows = max(1, HELD[_kind(hidden)] // vocabulary)
        for start in range(0, len(hidden), rows):
            part = hidden[None, start : start + rows].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                logits = head(part)
            held = logits.data[0]  # no product looks at its own output again, so the gradient may take its place
            total += loss_and_gradient(held, targets[start : start + rows], held if wanted else None)
            if gradient is not None:
                gradient[start : start + rows] = torch.autograd.grad(logits, part, held[None])[0][0]
            del logits, held  # before the next ones are made
        ctx.save_for_backward(*([gradient] if wanted else []))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None
