"""Tokenizers made fit for every stage: an end of sequence, padding, no token beyond the embedding."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.model.damage import read_object

log = logging.getLogger(__name__)


def make_fit(tokenizer: PreTrainedTokenizerBase, name: str, folder: Path) -> PreTrainedTokenizerBase:
    """Set what a tokenizer lacks; it is changed in place, its files are not.

    The end of sequence is its own, else the first that the model's files name. Padding, which no stage looks at, is its
    own token, else the end of sequence. Added tokens beyond the embedding (a multimodal model's, in its text part) are
    read as plain text.

    Args:
        tokenizer: As it was loaded.
        name: Model, as the user named it.
        folder: Of the model; its config.json has the size of the embedding.

    Raises:
        UserError: If it gives no character offsets, has no end of sequence, or belongs to a larger model.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of {name} ({type(tokenizer).__name__}) gives no character offsets, which the correctness "
            "spans need. Use a model with a fast tokenizer (a tokenizer.json file)."
        )
    config = _text_part(read_object(folder / "config.json")) if (folder / "config.json").is_file() else {}
    rows = config.get("vocab_size")
    if isinstance(rows, int):
        _leave_out(tokenizer, rows, name)
    if tokenizer.eos_token_id is None:
        _name_end(tokenizer, config, name, folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    part = config.get("text_config")
    return {**config, **part} if isinstance(part, dict) else config


def _name_end(tokenizer: PreTrainedTokenizerBase, config: dict[str, Any], name: str, folder: Path) -> None:
    generation = folder / "generation_config.json"
    for named in (read_object(generation) if generation.is_file() else {}, config):
        found = named.get("eos_token_id")
        first = found[0] if isinstance(found, list) and found else found
        token = tokenizer.convert_ids_to_tokens(first) if isinstance(first, int) and first < len(tokenizer) else None
        if token is not None:
            tokenizer.eos_token = token
            return
    raise UserError(
        f"The tokenizer of {name} has no end of sequence, and neither config.json nor generation_config.json has one: "
        f'no completion would ever end. Add "eos_token" to {folder / "tokenizer_config.json"}, or "eos_token_id" to '
        f"{folder / 'config.json'}."
    )


def _leave_out(tokenizer: PreTrainedTokenizerBase, rows: int, name: str) -> None:
    """Read added tokens beyond the embedding as plain text; refuse a vocabulary that goes beyond it."""
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}  # ids may have gaps
    if not beyond:
        return
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in core["added_tokens"] if token["id"] < rows]
    added = {token["content"] for token in core["added_tokens"]}
    vocabulary = core["model"].get("vocab", {})
    ordinary = vocabulary if isinstance(vocabulary, dict) else {piece[0] for piece in vocabulary}
    special = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token}
    if any(token not in added or token in ordinary or token in special for token in beyond):
        some = ", ".join(map(repr, sorted(beyond, key=beyond.__getitem__)[:3]))
        raise UserError(
            f"The tokenizer of {name} has {max(beyond.values()) + 1:,} tokens, the model's embedding only {rows:,} "
            f"(vocab_size in config.json): no row for {some}{' and others' if len(beyond) > 3 else ''}. Put the "
            "tokenizer of this very model into its folder, or a model whose embedding was resized for these tokens."
        )
    log.warning(
        "%s: %d added tokens have no row in the embedding and are read as plain text: %s",
        name,
        len(beyond),
        ", ".join(sorted(beyond)[:3]),
    )
    core["added_tokens"] = kept
    # of transformers 5.23.0; `backend_tokenizer` gives it, and nothing sets it
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(core))


def without_files(name: str, folder: Path, error: Exception) -> UserError:
    """What to do where a tokenizer could not be made of the files that are there."""
    if "trust_remote_code" in str(error):
        return UserError(
            f"The tokenizer of {name} needs code that its repository brings along (auto_map in "
            f"{folder / 'tokenizer_config.json'}), which is never run. Give a model whose tokenizer transformers has."
        )
    models = [p.name for pattern in ("*.model", "*.tiktoken") for p in sorted(folder.glob(pattern))]
    if models and not (folder / "tokenizer.json").is_file():
        package = "tiktoken" if models[0].endswith(".tiktoken") else "sentencepiece protobuf"
        return UserError(
            f"The tokenizer of {name} has no tokenizer.json, only {models[0]} in {folder}, which cannot be read here "
            f"({type(error).__name__}). Type: pip install {package}, or put the tokenizer.json of the same model "
            "beside it."
        )
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json")):
        return UserError(
            f"{folder} holds no tokenizer (tokenizer.json). Copy the tokenizer of the model into it "
            "(tokenizer.save_pretrained), or set model_name_or_path (--subspace.model_name_or_path) to a folder that "
            "has one."
        )
    what = " ".join(str(error).split("\n\n")[0].split())[:300] or type(error).__name__
    return UserError(
        f"The tokenizer of {name} cannot be read from {folder}: {what} ({type(error).__name__}). Copy or download its "
        "files again: tokenizer.json, tokenizer_config.json."
    )
