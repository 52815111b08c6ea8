"""Text of completions: what is cut out of a whole is what the whole holds there, with every kind of decoder."""

from __future__ import annotations

import ast
import sys
import types
from typing import Any

import pytest
import torch

from spd_lightning.generation import engine
from spd_lightning.generation.engine import generate_batch
from spd_lightning.generation.requests import Generation, Request, encode_prompts
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.generation.text import completion_ids, completion_text, decode
from spd_lightning.generation.vllm_engine import generate_vllm
from spd_lightning.tasks.coding import program, program_meta
from spd_lightning.tasks.task import Example
from tests.conftest import byte_tokenizer, tiny_model
from tests.text_tokenizers import gluing_tokenizer, sentencepiece_tokenizer

TOKENIZERS = {"bytes": byte_tokenizer, "gluing": gluing_tokenizer, "sentencepiece": sentencepiece_tokenizer}
TEXTS = ["def f(x):\n    return x + 1", "Answer: A", "Ça va? 你好 🙂!", "  two  spaces  ", "a\n\n\n    b", "é"]


def continued(tokenizer: Any, prompt: str, completion: str) -> tuple[tuple[int, ...], list[int]]:
    """Tokens of a prompt, and those with which its own text goes on to ``completion``."""
    whole, (ids,) = tokenizer(prompt + completion)["input_ids"], encode_prompts(tokenizer, [prompt])
    assert tuple(whole[: len(ids)]) == ids, "the bound between prompt and completion is one between tokens"
    return ids, whole[len(ids) :]


def write(
    monkeypatch: pytest.MonkeyPatch, tokenizer: Any, prompt: Any, tokens: list[int], **options: Any
) -> Generation:
    """What the engine makes of a model that writes ``tokens`` and then ends."""
    model = tiny_model(vocab_size=512, eos_token_id=tokenizer.eos_token_id)
    script = iter([*tokens, tokenizer.eos_token_id])

    def logits(*args: Any) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(script)]), 512) * 50.0

    monkeypatch.setattr(engine, "_batched_logits", logits)
    params = SamplingParams(**{"max_new_tokens": 99, "temperature": 0.0, **options})
    (found,) = generate_batch(model, tokenizer, [Request("a", "", tuple(prompt))], params)
    return found


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", [*TEXTS, "13", ".", " 6 + 7 = 13\n#### 13", "\n", ""])
def test_tokens_of_a_text_are_read_back_behind_its_prompt(kind: str, text: str) -> None:
    """A tokenizer that puts a space before any text puts none between a prompt and what goes on."""
    tokenizer = TOKENIZERS[kind]()
    (prompt,) = encode_prompts(tokenizer, ["Question: How many?\nAnswer:"])
    ids = completion_ids(tokenizer, prompt, text)
    assert completion_text(tokenizer, prompt, ids) == text
    if kind != "sentencepiece":
        assert list(ids) == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_parts_of_a_text_join_to_the_whole(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    ids = tokenizer(text)["input_ids"]
    assert decode(tokenizer, ids) == text
    for at in range(len(ids) + 1):
        before = decode(tokenizer, ids[:at]).rstrip("\ufffd")  # a character that is not yet whole is the completion's
        assert before + completion_text(tokenizer, ids[:at], ids[at:]) == text, ids[:at]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_an_indented_completion_keeps_its_spaces(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TOKENIZERS[kind]()
    prompt, body = "def f(x):\n", "    y = x\n    return y + 1"
    found = write(monkeypatch, tokenizer, *continued(tokenizer, prompt, body))
    assert found.completion == body and found.finish_reason == "stop"
    example = Example("a", prompt, body, meta=program_meta(prompt, "assert f(1) == 2", continues=True))
    ast.parse(program(example, found.completion))


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    ("prompt", "completion", "stop"),
    [
        ("Answer:", " A and more", " A"),  # begins with the space that a decoder strips
        ("Answer:", " 7.\nQuestion: 8", "\nQuestion:"),
        ("x", " 你好 and more", "好"),  # a character of several tokens
        ("\nQuestion: 1\nAnswer:", " 1\nQuestion: 2", "\nQuestion:"),  # the prompt's own is not the completion's
        ("def f(x):\n", "    return x\n\n\nprint(1)", "\nprint"),
    ],
)
def test_stop_strings_are_found_where_they_end(
    kind: str, prompt: str, completion: str, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = TOKENIZERS[kind]()
    ids, tokens = continued(tokenizer, prompt, completion)
    found = write(monkeypatch, tokenizer, ids, tokens, stop=("never this", stop))
    assert found.completion == completion[: completion.index(stop)] and found.finish_reason == "stop"
    first = next(n for n in range(1, len(tokens) + 1) if stop in completion_text(tokenizer, ids, tokens[:n]))
    assert found.token_ids == tuple(tokens[:first]), "no token is drawn behind a stop string"


def test_special_tokens_within_a_stop_string_do_not_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_tokenizer()
    head, tail = tokenizer("12\nQues")["input_ids"], tokenizer("tion: 3")["input_ids"]
    found = write(monkeypatch, tokenizer, (65,), [*head, *[256] * 20, *tail], stop=("\nQuestion:",))
    assert (found.completion, found.finish_reason, found.num_tokens) == ("12", "stop", len(head) + 20 + 5)


def test_vllm_reads_its_tokens_as_the_engine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = sentencepiece_tokenizer()
    prompt, tokens = continued(tokenizer, "def f():\n", "    return 1\n\nprint(1)")
    output = types.SimpleNamespace(text="return 1", token_ids=tokens, finish_reason="stop")

    class LLM:
        def __init__(self, **kwargs: Any) -> None:
            pass

        def generate(self, prompts: list[Any], settings: list[Any]) -> list[Any]:
            return [types.SimpleNamespace(outputs=[output])]

    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    params = SamplingParams(stop=("\nprint",), max_new_tokens=99, temperature=0.0)
    (found,) = generate_vllm("/m", tokenizer, [Request("a", "", prompt)], params)
    assert found.completion == "    return 1\n"
    own = write(monkeypatch, tokenizer, prompt, tokens, stop=("\nprint",))
    assert found.completion == own.completion
