"""Text of tokens: what a completion reads, where a stop string ends it, and which tokens stand before that.

A decoder reads a text from its beginning: those of SentencePiece models strip the first space, others wait for the rest
of a character, so ``decode(part)`` is not the part of ``decode(whole)``. A completion's text is therefore what it adds
to its prompt: both are decoded together, and the prompt's own text is taken off.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def common_start(a: str, b: str) -> int:
    """How many characters two texts begin with in common."""
    if b.startswith(a):
        return len(a)
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of tokens that begin a text, without special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def completion_text(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> str:
    """What tokens add to the text of their prompt, special tokens left out.

    A character whose first bytes are the prompt's last tokens belongs to the completion that ends it.

    Args:
        tokenizer: The model's.
        prompt_ids: Tokens of the prompt, as the model read them.
        token_ids: Tokens of the completion.
    """
    whole = decode(tokenizer, [*prompt_ids, *token_ids])
    return whole[common_start(decode(tokenizer, prompt_ids), whole) :]
