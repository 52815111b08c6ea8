"""Tokenizers as models have them, built here: SentencePiece's white space, special tokens around a text."""

from __future__ import annotations

from typing import Any

from tests.conftest import byte_tokenizer


def sentencepiece_tokenizer(append_eos: bool = False) -> Any:
    """As Llama 2's: a space is put before the text and its decoder strips it; unknown characters become bytes.

    Tokens: ``<unk>`` 0, ``<s>`` 1 (before every text), ``</s>`` 2, the 256 bytes, ASCII characters, and a few
    pieces with ``▁`` or a newline.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *map(chr, range(33, 127)), "▁", "\n"]
    merges = [("▁", "▁"), ("▁▁", "▁▁"), ("r", "e"), ("t", "u"), ("▁", "A"), ("▁", "re"), ("\n", "\n"), (".", "\n")]
    vocab = {piece: i for i, piece in enumerate([*pieces, *("".join(m) for m in merges)])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if append_eos else "<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def gluing_tokenizer() -> Any:
    """The byte tokenizer with a full stop and a newline behind it as one token (256), as Qwen's and Llama 3's have."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = byte_tokenizer().backend_tokenizer
    alphabet = {token: i for token, i in plain.get_vocab(with_added_tokens=False).items() if i < 256}
    core = Tokenizer(models.BPE(vocab={**alphabet, ".Ċ": 256}, merges=[(".", "Ċ")]))
    core.pre_tokenizer, core.decoder = plain.pre_tokenizer, plain.decoder
    core.add_special_tokens(["<pad>", "<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


def ends_with_eos(tokenizer: Any | None = None) -> Any:
    """The byte tokenizer with ``<eos>`` behind every text, and nothing before it."""
    from tokenizers import processors

    tokenizer = tokenizer or byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 257)]
    )
    return tokenizer
