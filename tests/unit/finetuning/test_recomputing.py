"""Recomputing layers in the backward pass changes neither loss nor gradients, whatever dropout the base has."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import transformers

from spd_lightning import SPDFineTuningModule
from spd_lightning.finetuning.trained_model import set_train_mode
from tests.conftest import byte_tokenizer

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 258}
ENDS = {"bos_token_id": 257, "eos_token_id": 257, "pad_token_id": 256}
BASES = {  # layers that read their own training flag, and one that leaves dropout to modules
    "opt": transformers.OPTConfig(
        **SHAPE, **ENDS, ffn_dim=64, max_position_embeddings=64, word_embed_proj_dim=32, dropout=0.4
    ),
    "falcon": transformers.FalconConfig(**SHAPE, **ENDS, hidden_dropout=0.4, attention_dropout=0.4),
    "gpt2": transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=258, resid_pdrop=0.4, attn_pdrop=0.4),
}


def folder_of(kind: str, folder: Path) -> str:
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(BASES[kind]).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("lora_r", [4, None])
@pytest.mark.parametrize("kind", BASES)
def test_losses_and_gradients_are_those_without_checkpointing(kind: str, lora_r: int | None, tmp_path: Path) -> None:
    name, found = folder_of(kind, tmp_path), []
    ids = torch.randint(0, 256, (2, 20))
    for checkpointing in (False, True):
        module = SPDFineTuningModule(name, lora_r=lora_r, lora_dropout=0.3, gradient_checkpointing=checkpointing)
        module.configure_model()
        model = module.model.double()
        calls: list[int] = []
        base = model if lora_r is None else model.get_base_model()
        layer = next(m for m in base.modules() if type(m).__name__.endswith(("DecoderLayer", "Block")))
        norm = next(m for m in layer.modules() if isinstance(m, torch.nn.LayerNorm))
        handle = norm.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        for p in model.parameters():  # an adapter that starts at zero has gradients in one half alone
            if p.requires_grad and lora_r is not None:
                torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(p.numel()))
        torch.manual_seed(5)
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        handle.remove()
        assert len(calls) == 1 + checkpointing, "a layer is run again in the backward pass"
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert any(g.abs().max() > 0 for g in gradients.values())
        found.append((loss.detach(), gradients))
        assert layer.training == checkpointing, "the flag is back where it was"
    (loss, gradients), (again, recomputed) = found
    torch.testing.assert_close(again, loss, rtol=1e-12, atol=0)
    assert gradients.keys() == recomputed.keys()
    for key, value in gradients.items():
        torch.testing.assert_close(recomputed[key], value, rtol=1e-9, atol=1e-14)


def test_eval_mode_stays_eval_mode_and_copies_are_of_their_own(tmp_path: Path) -> None:
    """Lightning validates in eval mode, and a student is scored from a copy of the live model."""
    module = SPDFineTuningModule(folder_of("opt", tmp_path), lora_r=None, gradient_checkpointing=True)
    module.configure_model()
    ids = torch.randint(0, 256, (1, 9))
    twin = copy.deepcopy(module.model).eval()
    expected = twin(input_ids=ids).logits
    assert not any(m.training for m in twin.modules()), "a call leaves eval mode as it was"
    module.model.eval()
    assert torch.equal(module.model(input_ids=ids).logits, expected)
    set_train_mode(module.model)
    torch.testing.assert_close(module.model(input_ids=ids, use_cache=False).logits, expected)
