"""Stage 4: what the records of a benchmark depend on beside the model, for the artifact store."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedTokenizerBase

from spd_lightning.evaluation.decoding import chosen_decoding, samples_of
from spd_lightning.generation.requests import encode_prompts
from spd_lightning.model.chat_template import PromptFormat
from spd_lightning.tasks.task import Benchmark


def benchmark_key(benchmark: Benchmark, settings: dict[str, Any]) -> dict[str, Any]:
    """What records depend on: the examples themselves, how they are asked, and the settings that change an answer.

    A setting stands in it where it can change one: a seed where answers are drawn, the number of samples where they are
    written, the chat template where a prompt is put into it, a time limit where programs are run.
    """
    generates, drawn = benchmark.output_type != "choices", _drawn(benchmark, settings)
    return {
        "task": benchmark.task,
        "version": benchmark.version,
        "protocol": benchmark.protocol,
        "output": [benchmark.output_type, benchmark.answer_type, benchmark.max_new_tokens, list(benchmark.stop)],
        "max_prompt_length": benchmark.max_prompt_length,
        "examples": examples_sha256(benchmark),
        **{name: settings.get(name) for name in ("batch_size", "short_context")},
        "num_samples": samples_of(benchmark, settings.get("num_samples", 1)),
        "seed": settings.get("seed", 42) if drawn else None,
        "prompt_format": settings.get("prompt_format", "plain") if generates else "plain",
        "timeout_s": settings.get("timeout_s", 5.0) if benchmark.answer_type == "program" else None,
        **({"system_prompt": benchmark.system_prompt} if benchmark.system_prompt else {}),
        "repetition_penalty": settings.get("repetition_penalty", 1.0) if generates else None,
        **drawn,
    }


def _drawn(benchmark: Benchmark, settings: dict[str, Any]) -> dict[str, Any]:
    """How answers are drawn, where they are; greedy ones have no such entry."""
    names = ("num_samples", "temperature", "top_p", "top_k")
    decoding = chosen_decoding(**{name: settings[name] for name in names if settings.get(name) is not None})
    return {} if benchmark.output_type != "generate" or decoding.is_greedy else {"decoding": asdict(decoding)}


def examples_sha256(benchmark: Benchmark) -> str:
    """What is asked and what is right, in one number: equal for the same examples, whatever folder they came from."""
    digest = hashlib.sha256()
    for e in benchmark.examples:
        parts = (e.id, e.full_prompt(), e.target, e.expected, e.choices, sorted(e.meta.items()))
        digest.update(json.dumps(parts, default=str).encode())
    return digest.hexdigest()


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark, prompt_format: PromptFormat) -> str:
    """SHA-256 over the token ids of the prompts, solved examples once each: they stand before many of them.

    Their text as a whole is in `examples_sha256`; what is added here is what tokenizer and chat template make of it.
    Likelihoods are read on the plain text.
    """
    form = "plain" if benchmark.output_type == "choices" else prompt_format
    shared = dict.fromkeys(part for e in benchmark.examples for part in (e.header, *e.shots) if part)
    digest, system = hashlib.sha256(), benchmark.system_prompt
    parts: list[tuple[list[str], PromptFormat]] = [
        (list(shared), "plain"),
        ([e.prompt for e in benchmark.examples], form),
    ]
    for texts, how in parts:
        for start in range(0, len(texts), 1024):
            digest.update(json.dumps(encode_prompts(tokenizer, texts[start : start + 1024], how, system)).encode())
    return digest.hexdigest()
