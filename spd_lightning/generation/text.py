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


def completion_ids(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], text: str) -> tuple[int, ...]:
    """Tokens that add a text to that of their prompt: `completion_text` reads it back from them.

    Tokenizers that put a space before any text would put one between prompt and completion. What they make of the text
    behind another character is taken there, without that character's own tokens.

    Args:
        tokenizer: The model's.
        prompt_ids: Tokens of the prompt, as the model read them.
        text: Of the completion.
    """

    def encode(whole: str) -> list[int]:
        found: list[int] = tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    alone = encode(text)
    behind = [(encode(mark), encode(mark + text)) for mark in ("\n", ":")]
    for ids in (alone, *(both[len(mark) :] for mark, both in behind if both[: len(mark)] == mark)):
        if completion_text(tokenizer, prompt_ids, ids) == text:
            return tuple(ids)
    return tuple(alone)
