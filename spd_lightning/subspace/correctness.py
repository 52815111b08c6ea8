"""Which tokens decide whether a completion is right: character spans to ``correctness_mask``.

S, the set of correctness-defining positions (arXiv:2605.22675, eq. 6), comes from a task as character spans of
``prompt + target``. A token belongs to S if it overlaps a span (``overlap``), or lies wholly inside one (``contained``,
[reference script]). Tokenizers that glue a leading space or newline to a token lose it under ``contained`` without a
word, so ``overlap`` is the default, and every example that loses a part of S is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.tasks.task import Example

SpanRule = Literal["overlap", "contained"]
Loss = Literal["correctness", "full"]

NO_SPAN = "the task gives no correctness span"
CUT_OFF = "max_length cut off every correctness span"
NO_TOKEN = "no token satisfies the span rule"
TOO_SHORT = "fewer than two tokens"


@dataclass(frozen=True)
class EncodedExample:
    """A tokenised calibration pair.

    Attributes:
        id: The example's id.
        input_ids: Tokens of prompt and target, special tokens of the tokenizer included, at most ``max_length``.
        correctness_mask: Per token, whether it is in S. The first token never is: nothing predicts it.
    """

    id: str
    input_ids: tuple[int, ...]
    correctness_mask: tuple[bool, ...]

    @property
    def reach(self) -> int:
        """Number of leading tokens that the loss can depend on: those before the last one in S."""
        return max((t for t, in_s in enumerate(self.correctness_mask) if in_s), default=0)


@dataclass
class CalibrationStatistics:
    """What became of the calibration set.

    Attributes:
        num_examples: Examples used.
        num_skipped: Examples left out because S was empty.
        skipped: Reason to ids of the examples left out for it.
        cut: Ids of examples of which ``max_length`` cut off a part of a span; a used one still has some of S.
        num_tokens: Tokens of the examples used, M in the paper: rows of the stacked gradient matrix.
        num_correctness_tokens: Tokens in S.
    """

    num_examples: int = 0
    num_skipped: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)
    num_tokens: int = 0
    num_correctness_tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"{self.num_examples} examples, {self.num_tokens} tokens, {self.num_correctness_tokens} of them in S; "
            f"{self.num_skipped} skipped, {len(self.cut)} with a span cut by max_length"
        )
        for reason, ids in self.skipped.items():
            shown = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
            text += f"\n  skipped, {reason}: {len(ids)} ({shown})"
        return text


def in_span(offset: tuple[int, int], span: tuple[int, int], rule: SpanRule) -> bool:
    """Whether a token's characters ``[a, b)`` belong to a span; a token without characters never does.

    >>> in_span((6, 8), (7, 8), "overlap"), in_span((6, 8), (7, 8), "contained")
    (True, False)
    """
    a, b = offset
    start, end = span
    if a >= b or start >= end:
        return False
    return (a < end and b > start) if rule == "overlap" else (a >= start and b <= end)


def encode_examples(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    max_length: int = 256,
    span_rule: SpanRule = "overlap",
    loss: Loss = "correctness",
) -> tuple[list[EncodedExample], CalibrationStatistics]:
    """Tokenise calibration pairs and mark S.

    Args:
        tokenizer: A fast tokenizer (it must give character offsets).
        examples: Pairs with spans.
        max_length: Limit in tokens; the rest of a longer text is cut off at its end.
        span_rule: ``overlap`` or ``contained``.
        loss: ``correctness`` takes S from the spans; ``full`` takes every token but the first.

    Returns:
        The examples with a non-empty S, in the given order, and what became of all.

    Raises:
        UserError: If the tokenizer gives no offsets, an option is unknown, or S is empty everywhere.
    """
    if span_rule not in ("overlap", "contained"):
        raise UserError(f"span_rule={span_rule!r} is not known. Set --subspace.span_rule to overlap or contained.")
    if loss not in ("correctness", "full"):
        raise UserError(f"loss={loss!r} is not known. Set --subspace.loss to correctness or full.")
    if max_length < 2:
        raise UserError(f"max_length={max_length} leaves nothing to predict. Set --subspace.max_length to at least 2.")
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer {type(tokenizer).__name__} gives no character offsets, which the correctness spans need. "
            "Use a model with a fast tokenizer (a tokenizer.json file)."
        )
    encoded: list[EncodedExample] = []
    statistics = CalibrationStatistics()
    for example in examples:
        options = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "truncation": False}
        tokens = tokenizer(example.prompt + example.target, **options)
        special = tokens["special_tokens_mask"]
        end = len(special) - special[::-1].index(0) if 0 in special else 0  # no token that is put behind any text
        ids, offsets = tokens["input_ids"][:end], [(int(a), int(b)) for a, b in tokens["offset_mapping"][:end]]
        if loss == "full":
            whole = [True] * len(offsets)
        else:
            whole = [any(in_span(offset, span, span_rule) for span in example.spans) for offset in offsets]
        mask = whole[:max_length]
        mask[:1] = [False] * len(mask[:1])
        if loss == "correctness" and any(whole[max_length:]):
            statistics.cut.append(example.id)
        if any(mask):
            encoded.append(EncodedExample(example.id, tuple(ids[:max_length]), tuple(mask)))
            continue
        reason = TOO_SHORT
        if loss == "correctness":
            reason = CUT_OFF if any(whole[max_length:]) else NO_TOKEN if example.spans else NO_SPAN
        statistics.skipped.setdefault(reason, []).append(example.id)
    statistics.num_examples = len(encoded)
    statistics.num_skipped = len(examples) - len(encoded)
    statistics.num_tokens = sum(len(e.input_ids) for e in encoded)
    statistics.num_correctness_tokens = sum(sum(e.correctness_mask) for e in encoded)
    if not encoded:
        reasons = "; ".join(f"{reason}: {len(ids)}" for reason, ids in statistics.skipped.items()) or "no example given"
        raise UserError(
            f"S is empty in all {len(examples)} calibration examples ({reasons}). Raise "
            f"max_length={max_length} (--subspace.max_length), set span_rule=overlap (--subspace.span_rule, now "
            f"{span_rule}) "
            "or loss=full (--subspace.loss), or choose another task (--subspace.task)."
        )
    return encoded, statistics
