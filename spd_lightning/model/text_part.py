"""Multimodal checkpoints: the class that holds their text part, which is all that is used of them."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

log = logging.getLogger(__name__)

# Model types without a class for text alone, whose class for pictures and text was tested with text alone.
WITH_PICTURES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def model_class(config: Any) -> Any:
    """transformers' class of automatic models that reads and writes text with a model of this config."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and config.model_type in WITH_PICTURES:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def is_multimodal(config: Any) -> bool:
    """Whether a config is that of a model with more than text."""
    return config.get_text_config(decoder=True) is not config


def skeleton(config: Any) -> PreTrainedModel:
    """A model of a config without weights, on the meta device."""
    with torch.device("meta"):
        return model_class(config).from_config(config)


@cache
def say_text_only(name: str) -> None:
    """Say once that nothing but the text part of a multimodal model is used."""
    log.warning("%s is multimodal: its text part alone is used, adapted and projected.", name)
