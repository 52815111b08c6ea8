"""Load a base model, its tokenizer and its config; a student of an earlier round is its base with adapters beside it.

What a name means and which files it stands for is ``source.py``.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.model.adapter_beside import Beside, is_adapter, put_beside, read_record
from spd_lightning.model.anatomy import decoder_layers
from spd_lightning.model.embedded import how_to_install
from spd_lightning.model.kinds import ask_for_dense, check_kind, check_raw, make_dense
from spd_lightning.model.source import model_fingerprint, resolve_source
from spd_lightning.model.special_tokens import make_fit, without_files
from spd_lightning.model.student_base import check_base_of
from spd_lightning.model.text_part import is_multimodal, model_class, say_text_only

log = logging.getLogger(__name__)

# What transformers reads for a tokenizer and its chat templates.
TOKENIZER_FILES = (
    *("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template*", "additional_chat_templates"),
)
Dtype = Literal["auto", "float32", "bfloat16"]


def resolve_dtype(dtype: Dtype, device: torch.device | str = "cpu") -> torch.dtype:
    """The torch dtype of a name; ``auto`` is bf16 where the device computes it fast, else float32.

    A CPU is fast in bf16 with AVX512-BF16 instructions, as those with AMX have; a GPU from compute capability 8.0 on.

    Raises:
        UserError: For another name.
    """
    if dtype == "auto":
        if torch.device(device).type == "cuda":
            fast = torch.cuda.get_device_capability(device)[0] >= 8
        else:
            fast = _cpu_has_fast_bf16()
        return torch.bfloat16 if fast else torch.float32
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype={dtype!r} is not known. Set it to auto, float32 or bfloat16.")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def _cpu_has_fast_bf16() -> bool:
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def load_config(model_name_or_path: str, need_weights: bool = True) -> Any:
    """The transformers config of a model; without ``need_weights`` also of a folder that holds nothing else.

    Raises:
        UserError: If the model cannot be found, or is no decoder that can be asked, trained and projected here.
    """
    source, local = resolve_source(model_name_or_path, need_weights)
    check_raw(model_name_or_path, Path(source) / "config.json")
    config = _from_pretrained(AutoConfig, model_name_or_path, source, local)
    check_kind(model_name_or_path, config)
    return config


def load_tokenizer(model_name_or_path: str, need_weights: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, made fit for every stage (`special_tokens.make_fit`).

    Args:
        model_name_or_path: As in `load_model`.
        need_weights: False accepts a folder without weights.

    Raises:
        UserError: If the model cannot be found, or its tokenizer cannot be read or used.
    """
    source, _ = resolve_source(model_name_or_path, need_weights)
    try:
        found = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of tokenizers, sentencepiece, transformers: all mean files that do not suit them
        raise without_files(model_name_or_path, Path(source), error) from error
    return make_fit(found, model_name_or_path, Path(source))


def save_tokenizer(model_name_or_path: str, folder: str | Path) -> None:
    """Write a model's own tokenizer, without the padding token that `load_tokenizer` may have set.

    From a folder its files are copied as they are: transformers would add entries of its own to them.
    """
    source, local = resolve_source(model_name_or_path, need_weights=False)
    if not local:
        _from_pretrained(AutoTokenizer, model_name_or_path, source, local).save_pretrained(folder)
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path in sorted({path for pattern in TOKENIZER_FILES for path in Path(source).glob(pattern)}):
        target = Path(folder) / path.name
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, target)


def load_model(
    model_name_or_path: str,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    device_map: str | dict[str, Any] | None = None,
    merged: bool = False,
) -> PreTrainedModel:
    """A causal language model in eval mode, its weights frozen.

    The model's own generation_config is replaced by an empty one: every decoding setting is ours and explicit. A
    student of an earlier round (`finetuning.student.write_merged`) is loaded as its base with the adapters beside the
    weights, in every dtype, so that no rounding swallows them; one whose weights were all trained stays in float32.

    Args:
        model_name_or_path: Hub id, folder, ``.gguf`` file or the name of an embedded model (`embedded.EMBEDDED`).
        dtype: Dtype of the weights; always explicit, since transformers 5 would take the checkpoint's.
        device: Where the weights go.
        device_map: ``"auto"`` spreads a model over the devices of this process, or a dict from module to device;
            ``device`` is then not used.
        merged: Take the merged weights of such a student instead; ask for float32 then.

    Raises:
        UserError: As `load_config`, and for a checkpoint that lacks weights or holds them in other shapes.

    Ranks:
        Every process loads for itself. Issues no collective.
    """
    source, local = resolve_source(model_name_or_path)
    made_of = read_record(source) if local and not merged else None
    if made_of is not None and made_of.adapters:
        return _load_beside(model_name_or_path, made_of, dtype, device, device_map)
    if made_of is not None and dtype != torch.float32:
        log.info("%s has all its weights trained: they stay in float32, which keeps small updates", model_name_or_path)
        dtype = torch.float32
    config = load_config(model_name_or_path)
    if is_multimodal(config):
        say_text_only(model_name_or_path)
    method = ask_for_dense(config)
    options = {"config": config, "dtype": dtype, "device_map": device_map, "weights_only": True}
    # What does not fit is told by us: transformers would fill it at random, or end in a traceback.
    told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, found = _from_pretrained(model_class(config), model_name_or_path, source, local, **options, **told)
    _check_whole(model_name_or_path, source, found)
    model = make_dense(model, dtype, method)
    generation_config = type(model.generation_config)()
    generation_config.eos_token_id = model.generation_config.eos_token_id
    generation_config.pad_token_id = model.generation_config.pad_token_id
    model.generation_config = generation_config
    model.requires_grad_(False)
    return model.eval() if device_map else model.to(device).eval()


def _load_beside(
    name: str, made_of: Beside, dtype: torch.dtype, device: torch.device | str, device_map: Any
) -> PreTrainedModel:
    if model_fingerprint(made_of.base) != made_of.fingerprint:
        raise UserError(
            f"{name} is {made_of.base} with adapters, but the content of {made_of.base} is no longer that which they "
            "were trained on. Bring it back, or train again in a new --run_dir."
        )
    model = load_model(made_of.base, dtype)
    for adapter in made_of.adapters:
        model = put_beside(model, adapter)
    return model.to(device) if device_map is None else spread(model, device_map)  # type: ignore[arg-type]


def load_student(
    model_name_or_path: str,
    folder: str | Path,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    device_map: Literal["auto"] | None = None,
) -> PreTrainedModel:
    """A saved student to score or to sample from: its base with the adapter beside the weights (`adapter_beside`).

    Args:
        model_name_or_path: The base.
        folder: A PEFT folder, or one with a whole checkpoint.
        dtype: Of the result; a whole checkpoint is cast to it.
        device: Of the result.
        device_map: ``auto`` spreads the result over all devices of this process instead.

    Raises:
        UserError: If there is neither, it is of another base, or the adapter cannot stand beside its base.

    Ranks:
        Every process loads for itself. Issues no collective.
    """
    check_base_of(folder, model_name_or_path)
    if not is_adapter(folder) and (Path(folder) / "config.json").is_file():
        return load_model(str(folder), dtype, device, device_map)
    model = put_beside(load_model(model_name_or_path, dtype), folder)
    return model.to(device) if device_map is None else spread(model, device_map)  # type: ignore[arg-type]


def spread(model: PreTrainedModel, device_map: str) -> PreTrainedModel:
    """Spread a model in memory over the devices of this process, as ``load_model(device_map="auto")`` does.

    Raises:
        UserError: For another ``device_map``, or if they and the host's memory together do not hold it.
    """
    from accelerate import dispatch_model, infer_auto_device_map

    if device_map != "auto":
        raise UserError(f"device_map={device_map!r} is not known. Set --subspace.device_map to auto, or null.")
    whole = sorted({type(layer).__name__ for layer in decoder_layers(model)})  # a layer stays on one device
    places = infer_auto_device_map(model, dtype=model.dtype, no_split_module_classes=whole)
    if "disk" in places.values():
        raise UserError(
            "The student does not fit into the memory of the devices and the host together. Evaluate on more devices."
        )
    return dispatch_model(model, places)


def check_one_process(device_map: str | None, world_size: int) -> None:
    """Refuse to spread a model over all devices from several processes at once.

    Raises:
        UserError: On every process alike.
    """
    if device_map is not None and world_size > 1:
        raise UserError(
            f"device_map={device_map} spreads one model over all devices, but {world_size} processes were "
            "started. Set --trainer.devices 1 for this command; only fine-tuning takes several (strategy=fsdp, "
            "--trainer.strategy)."
        )


def keep_in_place(owner: nn.Module, model: PreTrainedModel) -> None:
    """Set ``owner.model`` to a model spread over devices, unseen by ``owner.to``, which would gather it on one."""
    object.__setattr__(owner, "model", model)


def _check_whole(name: str, source: str, found: dict[str, Any]) -> None:
    """Refuse a model whose weights did not all come from its checkpoint."""
    missing, mismatched = sorted(found["missing_keys"]), sorted(found["mismatched_keys"])
    wrong = []
    if missing:
        wrong.append(f"lack {len(missing)} weights of the model that config.json describes ({_some(missing)})")
    if mismatched:
        sizes = [f"{key}: {list(there)}, not {list(wanted)}" for key, there, wanted in mismatched]
        wrong.append(f"hold {len(mismatched)} in other shapes ({_some(sizes)})")
    if found.get("error_msgs"):
        wrong.append(f"cannot all be loaded ({_some(found['error_msgs'])})")
    if wrong:
        instead = _some(sorted(found["unexpected_keys"]))
        beside = f" Without a place in the model are: {instead}." if instead else ""
        raise UserError(
            f"model_name_or_path={name!r}: the weight files in {source} {', and '.join(wrong)}. They would be random "
            f"numbers.{beside} Copy or download the model again, or give a language model whose config.json belongs to "
            "its weights (a reward model or a classifier is none)."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _from_pretrained(auto: Any, name: str, source: str, local: bool, **kwargs: Any) -> Any:
    try:
        return auto.from_pretrained(source, local_files_only=local or None, trust_remote_code=False, **kwargs)
    except UserError:
        raise
    except Exception as error:  # of transformers, tokenizers, safetensors, torch: all mean files that do not suit them
        what = " ".join(str(error).split("\n\n")[0].split())[:300] or type(error).__name__
        raise UserError(
            f"model_name_or_path={name!r} cannot be loaded from {source}: {what} ({type(error).__name__}). Give an "
            f"existing folder, a .gguf file, a hub id that is reachable or already downloaded, or {how_to_install()}."
        ) from error
