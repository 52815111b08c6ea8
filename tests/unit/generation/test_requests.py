"""What is asked of the model: the tokens of a prompt, and where long ones are cut."""

from __future__ import annotations

import re

import pytest

from spd_lightning.errors import UserError
from spd_lightning.generation.requests import build_requests, encode_prompts, encode_with_template, truncate
from tests.conftest import byte_tokenizer
from tests.text_tokenizers import ends_with_eos, sentencepiece_tokenizer

CHAT = "{{ bos_token or '' }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[/]{% endfor %}[answer]"


@pytest.mark.parametrize(
    ("side", "left"),
    [("start", (0, 1, 6, 7, 8, 9)), ("end", (0, 1, 2, 3, 4, 9)), ("middle", (0, 1, 2, 7, 8, 9))],
)
def test_the_named_part_is_cut_and_what_must_stay_stays(side: str, left: tuple[int, ...]) -> None:
    assert truncate(range(10), 6, side, keep_prefix=2, keep_suffix=1) == left


@pytest.mark.parametrize("side", ["start", "end", "middle"])
def test_every_length_is_kept_exactly(side: str) -> None:
    for n in range(12):
        for limit in range(4, 14):
            for prefix in range(min(n, 2) + 1):
                for suffix in range(min(n - prefix, 1) + 1):
                    found = truncate(range(n), limit, side, prefix, suffix)
                    assert len(found) == min(n, limit)
                    assert found[:prefix] == tuple(range(prefix))
                    assert found[len(found) - suffix :] == tuple(range(n - suffix, n))
                    assert list(found) == sorted(set(found)), "tokens keep their order"


def test_without_anything_kept_a_side_is_a_slice() -> None:
    assert truncate(range(9), 4, "start") == (5, 6, 7, 8)
    assert truncate(range(9), 4, "end") == (0, 1, 2, 3)
    assert truncate(range(9), 4, "middle") == (0, 1, 7, 8)
    assert truncate(range(9), 5) == (0, 1, 6, 7, 8), "the larger half is the end, where a question is asked"


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UserError, match=re.escape("truncation='left' is not known")):
        truncate(range(9), 4, "left")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"limit of 4 tokens .* take 4 of them"):
        truncate(range(9), 4, "end", 3, 1)
    assert truncate(range(4), 4, "end", 3, 1) == (0, 1, 2, 3), "what fits is not looked at"


def chat_tokenizer(kind: str):  # type: ignore[no-untyped-def]
    tokenizer = sentencepiece_tokenizer() if kind == "sentencepiece" else byte_tokenizer()
    tokenizer.chat_template = CHAT
    return tokenizer


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
@pytest.mark.parametrize(
    ("side", "text"), [("middle", "0123cdef"), ("start", "89abcdef"), ("end", "01234567")], ids=str
)
def test_a_long_prompt_keeps_its_chat_template(kind: str, side: str, text: str) -> None:
    tokenizer = chat_tokenizer(kind)
    (whole,) = encode_with_template(tokenizer, ["0123456789abcdef"], "chat")
    limit = len(whole.ids) - 8
    requests, counts = build_requests(
        tokenizer, [("a", "0123456789abcdef"), ("b", "01234567")], 1, limit, "chat", truncation=side
    )
    assert tokenizer.decode(requests[0].prompt_ids, skip_special_tokens=True) == f"[user]{text}[/][answer]"
    assert requests[0].prompt_ids[0] == whole.ids[0] and (kind == "bytes" or whole.ids[0] == tokenizer.bos_token_id)
    assert requests[0].prompt == "0123456789abcdef" and len(requests[0].prompt_ids) == limit
    assert counts["truncated"] == 1 and len(requests[1].prompt_ids) == limit, "what fits is not cut"


@pytest.mark.parametrize("side", ["middle", "start", "end"])
def test_a_long_plain_prompt_keeps_its_first_special_token(side: str) -> None:
    tokenizer = sentencepiece_tokenizer()
    (whole,) = encode_with_template(tokenizer, ["Q: 123456 Answer:"], "plain")
    assert (whole.ids[0], whole.prefix, whole.suffix) == (tokenizer.bos_token_id, 1, 0)
    (request,), _ = build_requests(tokenizer, [("a", "Q: 123456 Answer:")], 1, 9, truncation=side)  # 1 + 8 of 17
    text = {"middle": whole.ids[1:5] + whole.ids[-4:], "start": whole.ids[-8:], "end": whole.ids[1:9]}[side]
    assert request.prompt_ids == (tokenizer.bos_token_id, *text)


def test_what_the_user_wrote_is_told_from_the_template() -> None:
    tokenizer = chat_tokenizer("sentencepiece")
    for prompt in ("user]", "[user]", "  two words  ", "[/][answer]", "x", "é你"):
        (found,) = encode_with_template(tokenizer, [prompt], "chat")
        kept = [*found.ids[: found.prefix], *found.ids[len(found.ids) - found.suffix :]]
        assert tokenizer.decode(kept, skip_special_tokens=True) == "[user][/][answer]", prompt
        middle = found.ids[found.prefix : len(found.ids) - found.suffix]
        assert tokenizer.decode([found.ids[1], *middle]).strip() == prompt.strip()


def test_a_limit_below_the_template_is_refused() -> None:
    with pytest.raises(UserError, match=r"limit of 5 tokens leaves no room .* --data.max_prompt_length"):
        build_requests(chat_tokenizer("bytes"), [("a", "01234567")], 1, 5, "chat")
    with pytest.raises(UserError, match="truncation='left'"):
        build_requests(byte_tokenizer(), [("a", "0")], truncation="left")  # type: ignore[arg-type]


def test_no_prompt_ends_in_the_end_of_sequence_that_a_tokenizer_appends() -> None:
    plain = byte_tokenizer()
    assert encode_prompts(ends_with_eos(), ["Hi", "x <eos>"]) == encode_prompts(plain, ["Hi", "x <eos>"])
    assert encode_prompts(sentencepiece_tokenizer(append_eos=True), ["Hi", ""]) == [
        tuple(sentencepiece_tokenizer()("Hi")["input_ids"]),
        (1,),
    ]
    with pytest.raises(UserError, match="example 'a' has no tokens"):
        build_requests(ends_with_eos(), [("a", "")])
