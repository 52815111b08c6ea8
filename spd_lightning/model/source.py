"""Where a model comes from: a name to a local folder, and the fingerprint of what is in it.

A model is a hub id (``id@revision`` for another revision than its main one), a local folder, a ``.gguf`` file, or the
name of an embedded one (`embedded.EMBEDDED`: a GGUF file inside packages of the package index, else the hub).
Nothing asks the hub when a local source is given. A hub model is taken at one commit: the hub is asked once per process
for the commit of the revision, the files that transformers reads are downloaded, and from then on the model is a local
folder like any other. So its fingerprint is the same before and after its download, and that of a copy elsewhere.
"""

from __future__ import annotations

import logging
import re
import shutil
from functools import lru_cache
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from spd_lightning import hub
from spd_lightning.artifacts.files import file_sha256, typed_path, whole_folder
from spd_lightning.artifacts.locks import waited_lock
from spd_lightning.errors import UserError
from spd_lightning.model.checkpoint_files import (
    content_fingerprint,
    description_files,
    model_files,
    split_revision,
    weight_entry,
    weight_names,
)
from spd_lightning.model.damage import check_files
from spd_lightning.model.embedded import EMBEDDED, cache_dir, embedded_gguf, how_to_install, is_installed
from spd_lightning.model.kinds import check_adapter_alone, make_dense
from spd_lightning.model.written import check_written, damage_of, list_files

log = logging.getLogger(__name__)


def resolve_source(model_name_or_path: str, need_weights: bool = True) -> tuple[str, bool]:
    """Where a model's files are: ``(folder, True)``. A GGUF file is dequantised, a hub model downloaded into a cache.

    Args:
        model_name_or_path: What the user named.
        need_weights: False accepts a folder that holds a config alone.

    Raises:
        UserError: For a folder without a config or weights, or a path that does not exist.
    """
    if model_name_or_path in EMBEDDED:
        gguf = embedded_gguf(model_name_or_path)
        found = _dequantised(gguf) if gguf else hub_folder(EMBEDDED[model_name_or_path].hub_id, need_weights)
        return str(found), True
    path = typed_path(model_name_or_path)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"model_name_or_path={model_name_or_path!r}: there is no such GGUF file.")
        check_files(path.parent, [path.name])
        return str(_dequantised(path)), True
    if path.is_dir():
        check_adapter_alone(path)
        if not (path / "config.json").is_file():
            raise UserError(
                f"model_name_or_path={model_name_or_path!r}: the folder has no config.json. Set "
                "--subspace.model_name_or_path to a "
                "folder written by save_pretrained, a .gguf file or a hub id."
            )
        check_files(path, model_files(path, need_weights=False))
        if need_weights and not weight_files(path):
            raise UserError(
                f"model_name_or_path={model_name_or_path!r}: the folder holds no weights (model*.safetensors or "
                "pytorch_model*.bin). "
                "Set --subspace.model_name_or_path to a folder written by save_pretrained, a .gguf file or a hub id."
            )
        check_files(path, model_files(path, need_weights))
        check_written(path, model_name_or_path)
        return str(path), True
    if path.is_absolute() or model_name_or_path.startswith((".", "~")) or model_name_or_path.count("/") > 1:
        raise UserError(
            f"model_name_or_path={model_name_or_path!r}: there is no such folder. Give an existing folder, a .gguf "
            f"file, a hub id such as Qwen/Qwen2.5-0.5B-Instruct, or {' or '.join(EMBEDDED)}."
        )
    folder = hub_folder(model_name_or_path, need_weights)
    check_files(folder, model_files(folder, need_weights))
    return str(folder), True


def hub_id(model_name_or_path: str) -> str | None:
    """The hub id that a name stands for, with its revision; None for what is local."""
    if model_name_or_path in EMBEDDED:
        return None if is_installed(model_name_or_path) else EMBEDDED[model_name_or_path].hub_id
    path = typed_path(model_name_or_path)
    return None if path.suffix == ".gguf" or path.exists() else model_name_or_path


def is_gguf(model_name_or_path: str) -> bool:
    """Whether a name stands for a GGUF file, embedded or of the user's own."""
    if model_name_or_path in EMBEDDED:
        return is_installed(model_name_or_path)
    return Path(model_name_or_path).suffix == ".gguf"


def loadable_name(model_name_or_path: str) -> str:
    """A model's name as other tools load it: the hub id of an embedded one, the dequantised folder of a GGUF file."""
    if model_name_or_path in EMBEDDED:
        return EMBEDDED[model_name_or_path].hub_id
    return resolve_source(model_name_or_path)[0] if is_gguf(model_name_or_path) else model_name_or_path


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a model folder that transformers loads, by name."""
    return [folder / name for name in weight_names(folder) if not name.endswith(".json")]


def _dequantised(gguf: Path) -> Path:
    """A folder with the float32 weights of a GGUF file; made on first use (seconds), kept in `cache_dir` by content."""
    folder = cache_dir() / f"gguf-{file_sha256(gguf)[:16]}"
    if folder.is_dir():
        if not (why := _damage(folder)):
            return folder
        _remove(folder, why)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    # Where a kernel for them is installed, transformers would keep the weights packed; older ones never do.
    packed = getattr(transformers, "GgufConfig", None)
    dense = {} if packed is None else {"quantization_config": packed(dequantize=True)}
    try:
        model = AutoModelForCausalLM.from_pretrained(**source, **dense, trust_remote_code=False, dtype=torch.float32)
        model = make_dense(model, torch.float32, "gguf")
        tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
    except Exception as error:  # of the reader of GGUF and of transformers: all mean a file that does not suit them
        what = " ".join(str(error).split("\n\n")[0].split())[:300] or type(error).__name__
        raise UserError(
            f"The GGUF file {gguf} cannot be read: {what} ({type(error).__name__}). Copy or download it again, or give "
            "the folder of the model that it was made from."
        ) from error
    try:
        with whole_folder(folder, shared=True) as aside:
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
            list_files(aside)
    except OSError as error:
        if not weight_files(folder):  # else another process was first; its copy is the same
            raise UserError(
                f"The dequantised copy of {gguf.name} cannot be written to {cache_dir()} ({error.strerror}). "
                "Free space, or set SPD_CACHE_DIR to a folder that can be written."
            ) from error
    return folder


def _damage(folder: Path) -> str:
    """What is wrong with a dequantised copy; empty for nothing. One of an older version has no list of checksums."""
    try:
        check_files(folder, model_files(folder))
        if not (folder / "config.json").is_file() or not weight_files(folder):
            return "it is not whole"
    except UserError as error:
        return str(error)
    return "; ".join(damage_of(folder))


def _remove(folder: Path, why: str) -> None:
    """Remove a damaged copy, and say so; one of the processes that come upon it does."""
    try:
        with waited_lock(folder.with_name(f".{folder.name}-lock"), str(folder)):
            if folder.is_dir() and (why := _damage(folder)):
                shutil.rmtree(folder)
                log.warning("%s was damaged (%s): it is made anew", folder, why)
    except OSError as error:
        raise UserError(
            f"{folder} is damaged ({why}) and cannot be removed: {error.strerror}. Remove it, or set SPD_CACHE_DIR "
            "to a folder that can be written."
        ) from error


def model_fingerprint(model_name_or_path: str) -> str:
    """SHA-256 over the files of a model that transformers reads; the same for a copy in another folder.

    Raises:
        UserError: If a hub id is neither downloaded nor reachable.
    """
    return content_fingerprint(Path(resolve_source(model_name_or_path)[0]))


@lru_cache(maxsize=64)
def hub_folder(name: str, need_weights: bool = True) -> Path:
    """The local folder of a hub model at one commit, which is the folder's name; downloaded where needed.

    Args:
        name: ``id`` or ``id@revision``.
        need_weights: False leaves the weights alone.

    Raises:
        UserError: If it is neither downloaded nor reachable.
    """
    hub_id, revision = split_revision(name)
    try:
        return _fetch(hub_id, revision, need_weights)
    except Exception as error:  # the hub client raises many kinds, all meaning "not to be had"
        at = f" at revision {revision!r}" if revision else ""
        raise UserError(
            f"model_name_or_path={hub_id!r}{at} cannot be loaded: it is neither downloaded nor reachable "
            f"({type(error).__name__}). Give an existing folder, a .gguf file, a hub id that is reachable or already "
            f"downloaded, or {how_to_install()}."
        ) from error


def _downloaded(hub_id: str, revision: str | None, need_weights: bool) -> Path | None:
    """The folder of what was downloaded before; None where that is not all of it."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except Exception:  # many kinds, all meaning that it is not here
        return None
    if not (folder / "config.json").is_file():
        return None
    names = weight_names(folder) if need_weights else []
    return folder if all((folder / n).is_file() for n in names) and (names or not need_weights) else None


def _fetch(hub_id: str, revision: str | None, need_weights: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    # A commit does not move, and to estimate is no reason to ask.
    known = re.fullmatch(r"[0-9a-f]{40}", revision or "") or not need_weights
    if known and (here := _downloaded(hub_id, revision, need_weights)) is not None:
        return here
    try:
        info = hub.ask(lambda: HfApi().model_info(hub_id, revision=revision))
    except Exception:
        if (here := _downloaded(hub_id, revision, need_weights)) is None:
            raise
        return here
    commit, names = info.sha, [s.rfilename for s in info.siblings or []]
    entry = weight_entry(names)
    indices = [n for n in names if need_weights and n.endswith(".safetensors.index.json")]
    first = [*description_files(names), *indices, *([entry] if need_weights and entry else [])]
    folder = Path(snapshot_download(hub_id, revision=commit, allow_patterns=first))
    if need_weights:
        snapshot_download(hub_id, revision=commit, allow_patterns=weight_names(folder))
    return folder
