"""Tokenizers as they are found: each works in every stage, or is refused while it is read, with what to do."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from spd_lightning.errors import UserError
from spd_lightning.generation.engine import generate_batch
from spd_lightning.generation.requests import build_requests
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.anatomy import eos_token_ids
from spd_lightning.model.load import load_model, load_tokenizer
from spd_lightning.subspace.module import SubspaceExtractionModule
from tests.conftest import byte_tokenizer, tiny_model


@pytest.fixture
def folder(tmp_path: Path, tiny_model_dir: str) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def put(folder: Path, tokenizer: Any, **config: Any) -> str:
    """Save a tokenizer into the folder, and change its config.json."""
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        found = json.loads((folder / name).read_text()) | config
        (folder / name).write_text(json.dumps({k: v for k, v in found.items() if v is not ...}))
    return str(folder)


def completed(name: str) -> list[int]:
    """Four tokens of two prompts of unequal length: padding, the end of sequence and the embedding are all used."""
    model, tokenizer = load_model(name, torch.float32), load_tokenizer(name)
    requests, _ = build_requests(tokenizer, [("a", "one"), ("b", "the other one")])
    return [g.num_tokens for g in generate_batch(model, tokenizer, requests, SamplingParams(max_new_tokens=4))]


@pytest.mark.parametrize("lacks", ["pad", "eos", "both"])
def test_without_an_end_or_padding_the_model_s_own_end_is_taken(lacks: str, folder: Path) -> None:
    tokenizer = byte_tokenizer()
    if lacks in ("eos", "both"):
        tokenizer.eos_token = None
    if lacks in ("pad", "both"):
        tokenizer.pad_token = None
    name = put(folder, tokenizer)
    found = load_tokenizer(name)
    assert (found.eos_token, found.pad_token) == ("<eos>", "<pad>" if lacks == "eos" else "<eos>")
    assert len(completed(name)) == 2


def test_several_ends_all_end(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    name = put(folder, tokenizer, eos_token_id=[257, 65])
    assert load_tokenizer(name).eos_token == "<eos>"
    assert eos_token_ids(load_model(name, torch.float32), load_tokenizer(name)) == (65, 257)
    assert len(completed(name)) == 2


def test_no_end_anywhere_is_refused(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"has no end of sequence.*Add \"eos_token\" to .*tokenizer_config.json"):
        load_tokenizer(put(folder, tokenizer, eos_token_id=None))


def test_an_end_that_is_appended_to_every_text_is_left_out(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 257)])
    name = put(folder, tokenizer)
    assert (
        load_tokenizer(name)("ab")["input_ids"] == [97, 98, 257] or load_tokenizer(name)("ab")["input_ids"][-1] == 257
    )
    requests, _ = build_requests(load_tokenizer(name), [("a", "ab")])
    assert 257 not in requests[0].prompt_ids and len(completed(name)) == 2


def test_added_tokens_beyond_the_embedding_are_plain_text(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in Gemma 3, whose tokenizer has a token for images that its text models have no row for."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    name = put(folder, tokenizer)
    with caplog.at_level(logging.WARNING):
        found = load_tokenizer(name)
    assert "1 added tokens have no row in the embedding and are read as plain text: <image>" in caplog.text
    ids = found("see <image>!")["input_ids"]
    assert (
        max(ids) < 258 and ids == byte_tokenizer()("see <image>!")["input_ids"] and found.decode(ids) == "see <image>!"
    )
    assert (found.eos_token_id, found.pad_token_id) == (257, 256)


def test_a_vocabulary_larger_than_the_embedding_is_refused(folder: Path, tmp_path: Path) -> None:
    name = put(folder, byte_tokenizer())
    tiny_model(vocab_size=200, pad_token_id=0, eos_token_id=1).save_pretrained(folder)
    with pytest.raises(UserError, match=r"has 258 tokens, the model's embedding only 200 .*no row for .* and others"):
        load_tokenizer(name)
    with pytest.raises(UserError, match="has 258 tokens"):
        SubspaceExtractionModule(name, task="letters", num_examples=2).setup("predict")


def test_ids_beyond_the_embedding_are_found_behind_a_gap(folder: Path) -> None:
    """As many tokens as rows, but one of them has an id that no row has."""
    tokenizer = byte_tokenizer()
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core["model"]["vocab"]["a"] = 300
    core["model"]["vocab"] = dict(sorted(core["model"]["vocab"].items(), key=lambda item: int(item[1])))
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(core))
    assert len(tokenizer) == 258 and 300 in tokenizer("a")["input_ids"]
    with pytest.raises(UserError, match=r"has 301 tokens, the model's embedding only 258 .*no row for 'a'"):
        load_tokenizer(put(folder, tokenizer))


@pytest.mark.parametrize(
    ("file", "package"), [("tokenizer.model", "sentencepiece protobuf"), ("qwen.tiktoken", "tiktoken")]
)
def test_a_vocabulary_that_needs_a_package_is_told(file: str, package: str, folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / file).write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    with pytest.raises(UserError, match=rf"no tokenizer.json, only {file}.*pip install {package}") as caught:
        load_tokenizer(str(folder))
    assert "\n" not in str(caught.value)


def test_a_slow_tokenizer_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", property(lambda self: False))
    with pytest.raises(UserError, match=r"gives no character offsets.*tokenizer\.json"):
        load_tokenizer(str(folder))
