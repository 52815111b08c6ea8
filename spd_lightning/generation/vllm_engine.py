"""Stage 2 with vLLM, an optional engine: the same requests in, the same records out.

It is fed with a checkpoint into which the projection is folded, so it needs to know nothing of the method. Its sampler
is its own: completions follow the same distribution as `engine`, but are not the same draws.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from spd_lightning.artifacts.files import whole_folder
from spd_lightning.errors import UserError
from spd_lightning.generation.requests import Generation, Request
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.generation.text import completion_text
from spd_lightning.model.adapter_beside import merge_inside, read_record
from spd_lightning.model.anatomy import dtype_name
from spd_lightning.model.damage import read_object
from spd_lightning.model.load import load_model, save_tokenizer
from spd_lightning.scoring.answers_cut import find_stop
from spd_lightning.subspace.projection import fold_into
from spd_lightning.subspace.subspace import CapabilitySubspace

CHUNK = 1024  # requests handed over at once, and lost at most if the process dies


def write_folded(
    model_name_or_path: str, subspace: CapabilitySubspace | None, dtype: torch.dtype, folder: str | Path
) -> Path:
    """Write the model with the projection in its weights, and its tokenizer, once; a folder that is there is taken.

    Args:
        model_name_or_path: The base model.
        subspace: What to fold; None writes the model as it is.
        dtype: Dtype of the weights written.
        folder: Where to; it appears whole or not at all.

    Raises:
        UserError: If the model cannot be loaded or belongs to another subspace; as `check_student`.
    """
    check_student(model_name_or_path, dtype)
    folder = Path(folder)
    if not folder.is_dir():
        with whole_folder(folder) as aside:
            model = load_model(model_name_or_path, dtype)
            if subspace is not None:
                fold_into(model, subspace)
            merge_inside(model).save_pretrained(aside)
            save_tokenizer(model_name_or_path, aside)
    return folder


def check_student(model_name_or_path: str, dtype: torch.dtype) -> None:
    """Refuse the student of an earlier round outside float32.

    vLLM would take it merged, or add its adapter to outputs that are rounded already: either loses small updates.

    Raises:
        UserError: Saying what to set.
    """
    if dtype != torch.float32 and read_record(model_name_or_path) is not None:
        raise UserError(
            f"engine=vllm would round what {model_name_or_path} learned in earlier rounds to "
            f"{dtype_name(dtype)}. Set --data.engine transformers, which keeps its adapters beside the "
            "base, or dtype (--data.dtype) float32."
        )


def import_vllm() -> Any:
    """The module vllm.

    Raises:
        UserError: If it is not installed.
    """
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise UserError(
            f"The vLLM engine cannot be imported ({error}). Install it with: pip install 'spd_lightning[vllm]' (in a "
            "clone: pip install '.[vllm]'), or use --data.engine transformers."
        ) from error


def generate_vllm(
    folded_model_dir: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[Request],
    params: SamplingParams,
    tensor_parallel: int = 1,
    dtype: str = "auto",
    on_batch: Callable[[list[Generation]], None] | None = None,
    limit: Callable[[Request], int] | None = None,
) -> list[Generation]:
    """Complete requests with vLLM.

    Args:
        folded_model_dir: Checkpoint with tokenizer, as save_pretrained writes them.
        tokenizer: The model's; it reads the tokens as `engine` does.
        requests: See `requests.build_requests`.
        params: Decoding settings; ``tie_margin`` has no meaning here.
        tensor_parallel: GPUs that share one copy of the model.
        dtype: ``float32``, ``bfloat16`` or ``auto`` (the checkpoint's).
        on_batch: Called with the completions of every ``CHUNK`` requests, e.g. to write them.
        limit: Most tokens of a request's completion; None for ``params.max_new_tokens``.

    Returns:
        The completions, in the order of the requests.

    Raises:
        UserError: If vLLM is not installed.

    Ranks:
        For one process, which starts vLLM's own workers.
    """
    vllm = import_vllm()
    llm = vllm.LLM(
        model=str(folded_model_dir),
        tensor_parallel_size=tensor_parallel,
        dtype=dtype,
        seed=params.seed,
        trust_remote_code=False,
        generation_config="vllm",  # not the model's own: every setting is stated below
    )
    ends = _end_tokens(Path(folded_model_dir), tokenizer)
    done: list[Generation] = []
    for start in range(0, len(requests), CHUNK):
        chunk = requests[start : start + CHUNK]
        prompts = [{"prompt_token_ids": list(r.prompt_ids)} for r in chunk]
        asked = [replace(params, max_new_tokens=limit(r)) if limit else params for r in chunk]
        outputs = llm.generate(prompts, [_settings(vllm, r, own, ends) for r, own in zip(chunk, asked)])
        completions = [
            _generation(tokenizer, r, output.outputs[0], params) for r, output in zip(chunk, outputs, strict=True)
        ]
        done += completions
        if on_batch is not None:
            on_batch(completions)
    return done


def _end_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a sequence, as `anatomy.eos_token_ids`: vLLM by itself knows the tokenizer's alone."""
    path = folder / "generation_config.json"
    own = read_object(path).get("eos_token_id") if path.is_file() else None
    ids = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    return sorted(i for i in ids if i is not None)


def _settings(vllm: Any, request: Request, params: SamplingParams, ends: list[int]) -> Any:
    words = f"{params.seed}\0{request.sample}\0{request.id}".encode()
    return vllm.SamplingParams(
        n=1,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        repetition_penalty=params.repetition_penalty,
        seed=int.from_bytes(hashlib.blake2b(words, digest_size=4).digest(), "little"),
        max_tokens=params.max_new_tokens,
        min_tokens=0,
        ignore_eos=False,
        stop=list(params.stop),
        stop_token_ids=ends,
        include_stop_str_in_output=False,
        skip_special_tokens=True,
        spaces_between_special_tokens=False,
    )


def _generation(
    tokenizer: PreTrainedTokenizerBase, request: Request, output: Any, params: SamplingParams
) -> Generation:
    ids = tuple(output.token_ids)
    text = completion_text(tokenizer, request.prompt_ids, ids)
    return Generation(
        id=request.id,
        sample=request.sample,
        prompt=request.prompt,
        completion=text[: find_stop(text, params.stop)],
        token_ids=ids,
        num_tokens=len(ids),
        finish_reason="stop" if output.finish_reason == "stop" else "length",
        seed=params.seed,
    )
