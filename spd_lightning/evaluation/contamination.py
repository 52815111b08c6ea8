"""Whether a model knows a test set by heart: it gets the first 60% of a question, and is to write the rest.

A question of a public test set that it completes word for word was most likely in its training data. Questions of a
generated task never were: what a model completes of those is what guessing gives.

Reference: the partial-prompt test of arXiv:2507.10532.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.generation.engine import generate
from spd_lightning.generation.requests import build_requests
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.tasks.overlap import normalised_text
from spd_lightning.tasks.task import Example

SHOWN = 0.6  # share of a question's words
MOST_TOKENS = 128  # of the rest; a longer one counts by its beginning


@dataclass(frozen=True)
class Recall:
    """What a model wrote of the questions' ends.

    Attributes:
        questions: How many were asked.
        completed: How many it completed word for word.
        words: Mean share of a rest's words that it wrote before the first wrong one, 0 to 1.
    """

    questions: int
    completed: int
    words: float


def in_two(question: str, shown: float = SHOWN) -> tuple[str, str]:
    """The first words of a question and the rest, white space with the rest.

    >>> in_two("one two  three four five")
    ('one two  three', ' four five')
    """
    ends = [match.end() for match in re.finditer(r"\S+", question)]
    cut = ends[max(1, round(shown * len(ends))) - 1] if ends else 0
    return question[:cut], question[cut:]


def words_right(rest: str, completion: str) -> tuple[int, int]:
    """How many words of ``rest`` a completion has before the first wrong one, and how many there are."""
    wanted, written = normalised_text(rest).split(), normalised_text(completion).split()
    right = next((i for i, (a, b) in enumerate(zip(wanted, written)) if a != b), min(len(wanted), len(written)))
    return right, len(wanted)


def _beginning(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """The text of a rest; of one that is too long the words before that in which it is cut."""
    text = str(tokenizer.decode(list(tokens[:MOST_TOKENS])))
    return text if len(tokens) <= MOST_TOKENS else re.sub(r"(?<=\S)\s+\S+\s*\Z", "", text)


def recall(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    batch_size: int | None = None,
) -> Recall:
    """Ask a model for the ends of questions, greedily and as plain text.

    Args:
        model: A causal language model.
        tokenizer: The model's.
        examples: Of a test set; those of one word alone have no end to ask for and are left out.
        batch_size: Questions run together; None for the stage's own default.
    """
    parts = {e.id: in_two(e.meta.get("question", e.prompt)) for e in examples}
    parts = {name: (start, rest) for name, (start, rest) in parts.items() if normalised_text(rest)}
    if not parts:
        return Recall(0, 0, 0.0)
    requests, _ = build_requests(tokenizer, [(name, start) for name, (start, _) in parts.items()])
    ids = {name: tokenizer(rest, add_special_tokens=False)["input_ids"] for name, (_, rest) in parts.items()}
    rests = {name: _beginning(tokenizer, tokens) for name, tokens in ids.items()}
    longest = min(MOST_TOKENS, max(len(tokens) for tokens in ids.values())) + 4  # another split into tokens fits too
    written = generate(model, tokenizer, requests, SamplingParams(max_new_tokens=longest, temperature=0.0), batch_size)
    counts = [words_right(rests[g.id], g.completion) for g in written]
    return Recall(
        questions=len(counts),
        completed=sum(right == wanted for right, wanted in counts),
        words=sum(right / wanted for right, wanted in counts) / len(counts),
    )
