"""Decoding equals transformers' own for model types with fused projections, with and without a shared beginning."""

from __future__ import annotations

import pytest
import torch
import transformers

from spd_lightning.generation.engine import generate
from spd_lightning.generation.requests import build_requests
from spd_lightning.generation.sampling import SamplingParams
from tests.unit.generation.test_engine import PROMPTS, plain_generate
from tests.unit.subspace.test_sites import ARCHITECTURES

ENDS = {"vocab_size": 258, "bos_token_id": None, "eos_token_id": 257, "pad_token_id": 256}
NAMES = {"n_positions", "max_position_embeddings", "max_seq_len"}
KINDS = ["codegen", "gpt_bigcode_multi_query", "gpt_bigcode_multi_head", "mpt", "dbrx", "persimmon", "jetmoe", "bloom"]


@pytest.mark.parametrize("shots", ["", "Question: 1 plus 1?\nAnswer: 2\n\n" * 3], ids=["alone", "shared"])
@pytest.mark.parametrize("kind", [*KINDS, "falcon_multi_query", "falcon_new", "gpt_neox_japanese"])
def test_greedy_equals_transformers(kind: str, shots: str, tokenizer) -> None:  # type: ignore[no-untyped-def]
    config_class, settings, _ = ARCHITECTURES[kind]
    longer = {name: 512 for name in settings.keys() & NAMES}
    config = getattr(transformers, config_class)(**{**settings, **ENDS, **longer})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # spread the logits, so that greedy tokens vary
        for parameter in model.parameters():
            parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)
    requests, _ = build_requests(tokenizer, [(i, shots + prompt) for i, prompt in PROMPTS])
    out = generate(model, tokenizer, requests, SamplingParams(max_new_tokens=20, temperature=0.0), batch_size=5)
    ids = {r.id: r.prompt_ids for r in requests}
    for g in out:
        assert list(g.token_ids) == plain_generate(model, tokenizer, ids[g.id], 20), g.id
