"""Tiny random decoders of every family: `families.json` has their config classes and settings, one a line.

Biases, norms and attention sinks are random too; at their initial zeros and ones many mistakes would not be seen.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerFast

FAMILIES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "families.json").read_text(encoding="utf-8"))
VOCABULARY = 640
SPREAD = 0.12  # of the initial weights, where the config has it: gradients and logits that can be measured


def config_of(family: str) -> Any:
    """The transformers config of a family."""
    entry = FAMILIES[family]
    config = getattr(transformers, entry["config"])(**entry["settings"])
    if hasattr(config.get_text_config(), "initializer_range"):
        config.get_text_config().initializer_range = SPREAD
    return config


def random_model(family: str) -> PreTrainedModel:
    """A model in float32 and eval mode."""
    torch.manual_seed(0)
    config = config_of(family)
    whole = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    model = whole.from_config(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1 and not name.endswith(("A_log", "dt_bias")):
                weight.add_(torch.randn_like(weight), alpha=0.2)
        # zero in most families, so that padding that leaks would not be seen
        model.get_input_embeddings().weight[0].normal_(std=SPREAD)
    return model.requires_grad_(False)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Pad 0, eos 1, bos 2, the 256 bytes, and pairs of letters up to 640 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = "etaoinshrdlucmfwypvbgkjxqz"
    pairs = [(a, b) for a in letters for b in letters][: VOCABULARY - 3 - len(alphabet)]
    pieces = ["<pad>", "<eos>", "<bos>", *alphabet, *("".join(pair) for pair in pairs)]
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=pairs))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<pad>", "<eos>", "<bos>"])
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def save(family: str, folder: Path) -> str:
    """Write a family's model and tokenizer as `save_pretrained` does, once; gives the folder's name."""
    if not (folder / "config.json").is_file():
        random_model(family).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return str(folder)
