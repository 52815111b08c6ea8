"""Which models are decoders that can be asked and trained here: told from config.json, without weights.

What else is refused, and where: models that keep a state of their own (`anatomy.OWN_STATE`), keys and values that are
not found or do not act as such (`subspace/sites.py`, `layouts.py`, `layout_check.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForMaskedLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from spd_lightning.errors import UserError
from spd_lightning.model.anatomy import cast_weights
from spd_lightning.model.damage import read_object
from spd_lightning.model.text_part import is_multimodal, model_class

# Quantised weights that transformers makes dense while it loads them, where its configuration asks for that.
DENSE_ON_LOADING = ("fp8", "mxfp4", "compressed-tensors")
# Those that it makes dense once they are loaded, and the package that this takes.
DENSE_AFTERWARDS = {"bitsandbytes": "bitsandbytes"}


def check_adapter_alone(folder: Path) -> None:
    """Refuse a PEFT folder in place of a model.

    Raises:
        UserError: With what to type instead.
    """
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        base = read_object(folder / "adapter_config.json").get("base_model_name_or_path")
        raise UserError(
            f"model_name_or_path={folder} holds an adapter, no model. Set --subspace.model_name_or_path to its base "
            f"({base}), and score the adapter with: python -m spd_lightning test --evaluation.adapter {folder}"
        )


def check_raw(name: str, config: Path) -> None:
    """Refuse what transformers has no code for.

    Args:
        name: What the user named.
        config: The model's config.json.

    Raises:
        UserError: For a configuration that brings its code along, is of a newer transformers, or of another library.
    """
    raw = read_object(config)
    kind = raw.get("model_type")
    if kind in CONFIG_MAPPING:
        return
    if raw.get("auto_map"):
        raise UserError(
            f"model_name_or_path={name!r} needs code that its repository brings along (auto_map in {config}), which is "
            "never run. Give a model of a type that transformers has."
        )
    if not isinstance(kind, str):
        raise UserError(
            f"{config} names no model_type, so it is no model of transformers. Give a folder written by "
            "save_pretrained: many models have such a version beside their original files."
        )
    written = raw.get("transformers_version")
    by = f", and its file was written by version {written}" if isinstance(written, str) else ""
    raise UserError(
        f"model_type={kind!r} in {config} is not known to transformers {transformers.__version__}{by}. Type: pip "
        "install -U transformers, or give another model."
    )


def check_kind(name: str, config: Any) -> None:
    """Refuse what is no decoder of text, or has weights that cannot be made dense.

    Args:
        name: What the user named.
        config: Its transformers config.

    Raises:
        UserError: Naming what it is.
    """
    kind = config.model_type
    # which classes a config has, the automatic ones of transformers 5.23.0 tell by no public name
    if getattr(config, "is_encoder_decoder", False):
        what = "an encoder-decoder model"
    elif type(config) not in model_class(config)._model_mapping:
        parts = [part for part in ("vision_config", "audio_config") if getattr(config, part, None) is not None]
        what = "a multimodal model whose text part does not load alone" if parts else "no causal language model"
    elif is_multimodal(config) and (auto := model_class(config))._model_mapping[type(config)].config_class not in (
        auto._model_mapping
    ):  # no automatic class would open what is exported (Mllama)
        what = "a multimodal model whose text part does not load alone"
    elif getattr(config, "is_decoder", None) is False and type(config) in AutoModelForMaskedLM._model_mapping:
        what = "an encoder, which looks at the tokens to come"
    else:
        check_quantisation(name, config)
        return
    raise UserError(
        f"model_name_or_path={name!r} ({kind}) is {what}. Give a decoder of text alone, such as "
        "Qwen/Qwen2.5-0.5B-Instruct."
    )


def check_quantisation(name: str, config: Any) -> None:
    """Refuse weights that cannot be made dense here.

    Raises:
        UserError: With what to give instead.
    """
    import importlib.util

    method = quantisation(config)
    if method is None or (
        method in DENSE_ON_LOADING
        and (method != "compressed-tensors" or importlib.util.find_spec("compressed_tensors"))
    ):
        return
    package = DENSE_AFTERWARDS.get(method, "")
    if package and importlib.util.find_spec(package):
        return
    packages = {**DENSE_AFTERWARDS, "compressed-tensors": "compressed-tensors"}
    install = f"Type: pip install {packages[method]}, or give" if method in packages else "Give"
    raise UserError(
        f"model_name_or_path={name!r} holds {method} weights, which must be dense to be projected and trained, and "
        f"{'that needs a package that is absent' if method in packages else 'transformers cannot do that'}. {install} "
        "the model that it was made from (base_model in its card)."
    )


def quantisation(config: Any) -> str | None:
    """The method by which a model's weights are quantised, as its config says; None for dense weights."""
    found = getattr(config, "quantization_config", None)
    found = found if isinstance(found, dict) or found is None else found.to_dict()
    if not found:
        return None
    older = "bitsandbytes" if found.get("load_in_8bit") or found.get("load_in_4bit") else "unnamed"
    method = found.get("quant_method") or older
    return str(getattr(method, "value", method)).removesuffix("_4bit").removesuffix("_8bit")


def ask_for_dense(config: Any) -> str | None:
    """Have transformers make a config's weights dense while it loads them, where it can; how they are quantised."""
    method = quantisation(config)
    if method in DENSE_ON_LOADING:
        found = config.quantization_config
        if isinstance(found, dict):
            found["dequantize"] = True
        else:
            found.dequantize = True
    return method


def make_dense(model: Any, dtype: torch.dtype, method: str | None) -> Any:
    """A loaded model with dense weights in a dtype, which no longer says that it is quantised, nor saves itself so.

    Args:
        model: As it was loaded.
        dtype: Of its weights.
        method: How the checkpoint is quantised (`quantisation` of its config: the library may have taken it out).
    """
    if method in DENSE_AFTERWARDS:
        model = model.dequantize()
    if method is not None:
        cast_weights(model, dtype)
        model.__dict__.pop("_weight_conversions", None)  # save_pretrained would turn the dequantisation round
    model.config.__dict__.pop("quantization_config", None)
    model.__dict__["hf_quantizer"] = None  # else save_pretrained refuses
    for told in ("is_quantized", "is_loaded_in_8bit", "is_loaded_in_4bit", "quantization_method"):
        model.__dict__.pop(told, None)
    return model
