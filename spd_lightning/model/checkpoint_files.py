"""Which files a model is made of, and the fingerprint of their content: what transformers reads and nothing else."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.files import file_sha256, typed_path
from spd_lightning.errors import UserError
from spd_lightning.model.adapter_beside import read_record
from spd_lightning.model.damage import AGAIN, read_object

# What transformers reads beside the weights, as patterns of names; `*` does not cross a folder here.
DESCRIPTION = (
    "config.json",
    "generation_config.json",
    # tokenizer: one file, or the parts from which slow and older tokenizers are made
    "tokenizer*.json",
    "tokenizer.model*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece*.model",
    "spm.model",
    "tekken.json",
    "*.tiktoken",
    # chat templates
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    # an adapter in the folder itself, which from_pretrained puts on the model
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    # adapters that stand beside the weights of a later round's base
    "beside-*/adapter_config.json",
    "beside-*/adapter_model.safetensors",
)

# The first of these that is there is what transformers loads; an index names its shards.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
VOLATILE = ("_name_or_path", "transformers_version")  # of config.json and generation_config.json


def description_files(names: Iterable[str]) -> list[str]:
    """Those of the names that transformers reads for config, tokenizer, template or generation, sorted."""
    return sorted(n for n in names if any(n.count("/") == p.count("/") and fnmatch.fnmatch(n, p) for p in DESCRIPTION))


def weight_entry(names: Iterable[str], config: dict[str, Any] | None = None) -> str | None:
    """The weights that transformers would load: a file, or the index of shards; None where there are none.

    Args:
        names: Of the files in the folder.
        config: Content of config.json, which may name the weights itself.
    """
    present = set(names)
    named = (config or {}).get("transformers_weights")
    return next((n for n in (*([named] if named else []), *WEIGHTS) if n in present), None)


def weight_names(folder: Path) -> list[str]:
    """Names of the weight files of a local folder that transformers would load, the index of shards included.

    Raises:
        UserError: If that index is none.
    """
    config = folder / "config.json"
    entry = weight_entry(_names(folder), read_object(config) if config.is_file() else None)
    if entry is None or not entry.endswith(".index.json"):
        return [entry] if entry else []
    shards = read_object(folder / entry).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{folder / entry} has no weight_map from weights to files: {AGAIN}")
    return [entry, *sorted(set(shards.values()))]


def model_files(folder: Path, need_weights: bool = True) -> list[str]:
    """Names of the files of a local folder that transformers reads, those of an index that are missing included."""
    return [*description_files(_names(folder)), *(weight_names(folder) if need_weights else [])]


def _names(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in (*folder.glob("*"), *folder.glob("*/*")) if p.is_file()]


def content_fingerprint(folder: Path) -> str:
    """SHA-256 over everything in a model folder that decides what it completes; other files do not count."""
    digest = hashlib.sha256()
    for name in model_files(folder):
        path = folder / name
        if name in ("config.json", "generation_config.json"):
            content = {k: v for k, v in read_object(path).items() if k not in VOLATILE}
            digest.update(f"{name}:{json.dumps(content, sort_keys=True)};".encode())
        else:
            digest.update(f"{name}:{file_sha256(path)};".encode())
    if (made_of := read_record(folder)) is not None:
        digest.update(f"beside:{made_of.fingerprint},{len(made_of.adapters)};".encode())
    return digest.hexdigest()


def split_revision(name: str) -> tuple[str, str | None]:
    """Hub id and revision of ``id@revision``; a name without one, and an existing path, as they are.

    >>> split_revision("Qwen/Qwen2.5-0.5B@060db64")
    ('Qwen/Qwen2.5-0.5B', '060db64')
    """
    hub_id, at, revision = name.rpartition("@")
    return (hub_id, revision) if at and hub_id and revision and not typed_path(name).exists() else (name, None)
