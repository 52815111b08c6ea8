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

from spd_lightning.errors import UserError, counted
from spd_lightning.model.chat_template import PromptFormat, plain_prompt, prompt_turns, render_prompts
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
            f"{counted(self.num_examples, 'example')}, {self.num_tokens} tokens, {self.num_correctness_tokens} of them "
            f"in S; {self.num_skipped} skipped, {len(self.cut)} with a span cut by max_length"
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


@dataclass(frozen=True)
class PairText:
    """A calibration pair as the model reads it.

    Attributes:
        text: What is tokenised.
        spans: Correctness-defining characters of it.
        special: Whether the tokenizer puts its own tokens before it; a chat template writes them itself.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    special: bool = True


def pair_texts(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    prompt_format: PromptFormat = "plain",
    system: str = "",
) -> list[PairText]:
    """Prompt and target as training and scoring put them: joined as they are, or as turns of the chat template.

    The assistant's turn is what the template writes behind the start of an answer; it ends with the target here.

    Raises:
        UserError: If the tokenizer has no template, or its template changes the text of a turn.
    """
    if prompt_format == "plain":
        before = len(plain_prompt("", system))
        return [
            PairText(plain_prompt(e.prompt + e.target, system), tuple((a + before, b + before) for a, b in e.spans))
            for e in examples
        ]
    if not tokenizer.chat_template:
        raise UserError(
            "prompt_format='chat', but the tokenizer has no chat template. Set prompt_format (--data.prompt_format) to "
            "plain."
        )
    asked = [prompt_turns(e.prompt, system) for e in examples]
    answers = [[*turns, {"role": "assistant", "content": e.target.strip()}] for turns, e in zip(asked, examples)]
    found = []
    for e, start, whole in zip(
        examples, render_prompts(tokenizer, asked), render_prompts(tokenizer, answers, answered=True), strict=True
    ):
        user = start.rfind(e.prompt.strip())
        behind = len(start) if whole.startswith(start) else user + len(e.prompt.strip())
        target = whole.find(e.target.strip(), behind)
        if user < 0 or target < 0:
            raise UserError(
                f"The chat template does not write the text of example {e.id!r} as it is, so its correctness spans "
                "cannot be found. Set prompt_format (--subspace.prompt_format) to plain."
            )
        spans = []
        for at, text, start_of in ((user, e.prompt, 0), (target, e.target, len(e.prompt))):
            first = start_of + len(text) - len(text.lstrip())  # the template's text begins and ends with no white space
            last = start_of + len(text.rstrip())
            inside = [(max(a, first), min(b, last)) for a, b in e.spans]
            spans += [(at + a - first, at + b - first) for a, b in inside if a < b]
        end = target + len(e.target.strip())
        found.append(PairText(whole[:end], tuple(spans), special=False))
    return found


def encode_examples(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    max_length: int = 256,
    span_rule: SpanRule = "overlap",
    loss: Loss = "correctness",
    prompt_format: PromptFormat = "plain",
    system: str = "",
) -> tuple[list[EncodedExample], CalibrationStatistics]:
    """Tokenise calibration pairs and mark S.

    Args:
        tokenizer: A fast tokenizer (it must give character offsets).
        examples: Pairs with spans.
        max_length: Limit in tokens; the rest of a longer text is cut off at its end.
        span_rule: ``overlap`` or ``contained``.
        loss: ``correctness`` takes S from the spans; ``full`` takes every token but the first.
        prompt_format: See `pair_texts`.
        system: System prompt; empty for none.

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
    for example, pair in zip(examples, pair_texts(tokenizer, examples, prompt_format, system), strict=True):
        options = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "truncation": False}
        tokens = tokenizer(pair.text, add_special_tokens=pair.special, **options)
        special = tokens["special_tokens_mask"]
        end = len(special) - special[::-1].index(0) if 0 in special else 0  # no token that is put behind any text
        ids, offsets = tokens["input_ids"][:end], [(int(a), int(b)) for a, b in tokens["offset_mapping"][:end]]
        if loss == "full":
            whole = [True] * len(offsets)
        else:
            whole = [any(in_span(offset, span, span_rule) for span in pair.spans) for offset in offsets]
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
        overlap = "" if span_rule == "overlap" else f"span_rule=overlap (--subspace.span_rule, now {span_rule}) or "
        raise UserError(
            f"S is empty in all {len(examples)} calibration examples ({reasons}). Raise "
            f"max_length={max_length} (--subspace.max_length), set {overlap}loss=full (--subspace.loss), or choose "
            "another task (--subspace.task)."
        )
    return encoded, statistics
