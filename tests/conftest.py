"""Tiny models made from a config, a byte-level tokenizer, real data where it is present, and checks for leaks."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import mistakes

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA_DIR = Path(os.environ.get("SPD_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture
def data_dir() -> str:
    """The folder of real benchmarks; a test that needs it is skipped where it is absent."""
    if not (DATA_DIR / "gsm8k").is_dir():
        pytest.skip(
            f"no data folder at {DATA_DIR}: set SPD_DATA_DIR to one laid out as the README says to run this test"
        )
    return str(DATA_DIR)


def _embedded(name: str) -> str:
    from spd_lightning.model.embedded import EMBEDDED, is_installed

    if not is_installed(name):
        pytest.skip(f"the embedded model {name} is absent: {EMBEDDED[name].install} to run this test")
    return name


@pytest.fixture(scope="session")
def smollm2() -> str:
    """Name of the embedded pretrained model; tests that use it are marked slow."""
    return _embedded("smollm2-135m-instruct")


@pytest.fixture(scope="session", params=["smollm2-135m-instruct", "gemma3-270m"])
def pretrained(request: pytest.FixtureRequest) -> str:
    """Name of each embedded pretrained model in turn; tests that use it are marked slow."""
    return _embedded(request.param)


def byte_tokenizer():  # type: ignore[no-untyped-def]
    """A fast tokenizer whose tokens are the 256 bytes, then ``<pad>`` (256) and ``<eos>`` (257)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<pad>", "<eos>"])  # in this order; else the class numbers them by its own
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 258,
    "max_position_embeddings": 512,
    "pad_token_id": 256,
    "eos_token_id": 257,
    "bos_token_id": None,
}


def tiny_model(kind: str = "llama", seed: int = 0, **overrides):  # type: ignore[no-untyped-def]
    """A random model of two layers: ``llama`` (GQA), ``qwen2`` (K/V bias) or ``qwen3`` (key norm). Float32, eval."""
    import transformers

    config_class = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}[kind]
    settings = {**TINY, **({"head_dim": 8} if kind == "qwen3" else {}), **overrides}
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config_class)(**settings))
    with torch.no_grad():  # K/V biases start at zero; make them count
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
    return model.float().eval()


@pytest.fixture(scope="session")
def tokenizer():  # type: ignore[no-untyped-def]
    return byte_tokenizer()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder as save_pretrained writes it: tiny random Llama and the byte tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_model("llama", max_position_embeddings=2048).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


LISTENER = mistakes.Listener()
LISTENER.start()


@pytest.hookimpl(tryfirst=True)  # before any is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that ``mistakes.json`` names is there, wherever its whole file is collected."""
    there = {item.nodeid for item in items}
    files = {test.partition("::")[0] for test in there} if not any("::" in arg for arg in config.args) else set()
    if gone := [test for test in mistakes.told_by() if test.partition("::")[0] in files and test not in there]:
        raise pytest.UsageError(f"tests/mistakes.json names tests that are gone: {gone}. Give its rows others.")


@pytest.fixture(autouse=True)
def rows_of_the_table_are_true(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that ``mistakes.json`` names makes the errors that it is named for."""
    LISTENER.heard()
    yield
    heard, test = LISTENER.heard(), request.node.nodeid
    if noted := os.environ.get("MISTAKES_SEEN"):
        with open(noted, "a", encoding="utf-8") as file:
            file.writelines(json.dumps([*site, test]) + "\n" for site in sorted(heard))
    missed = set(mistakes.told_by().get(test, ())) - heard
    assert not missed, f"tests/mistakes.json says that this test provokes {missed}: `python -m tests.mistakes` says how"


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Every test starts from one seed and leaves environment, threads, grad mode and process group as they were."""
    torch.manual_seed(0)
    environment = dict(os.environ)
    threads = {t for t in threading.enumerate() if not t.daemon}
    yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        pytest.fail("the test left a process group behind")
    assert torch.is_grad_enabled(), "the test left gradients disabled"
    left = {t for t in threading.enumerate() if not t.daemon and t.is_alive()} - threads
    for thread in left:  # transformers reads weights in a pool that it does not wait for: one that ends is no leak
        thread.join(timeout=5)
    left = {t for t in left if t.is_alive()}
    assert not left, f"the test left threads behind: {left}"
    changed = {k for k in environment.keys() | os.environ.keys() if environment.get(k) != os.environ.get(k)}
    changed -= {"PYTEST_CURRENT_TEST", "COLUMNS"}
    for k in changed:
        os.environ.pop(k, None)
        if k in environment:
            os.environ[k] = environment[k]
    allowed = (
        "PL_",
        "TORCH",
        "OMP_",
        "KMP_",
        "MKL_",
        "LIGHTNING",
        "WANDB_",
        "HF_",
        "TOKENIZERS_",
        "MPL",
        "CUDA",
        "TRITON",
    )
    assert not {k for k in changed if not k.startswith(allowed)}, f"the test changed environment variables: {changed}"
