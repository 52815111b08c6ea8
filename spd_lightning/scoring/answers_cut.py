"""Which part of a completion is its answer: not the next turn, and not the thinking before it."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Where a completion begins a turn of its own. "Question" alone would also fire on reasoning about "the Question".
NEXT_TURN = ("\nQuestion:", "\n\nQuestion", "\nQ:", "\nInstruction:")

_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis|seed:think"
# With special tokens dropped in decoding, gpt-oss's channels read "analysis..assistantfinal..".
_OPEN = re.compile(
    rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>|<\|channel\|?>(?:analysis|thought)",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<channel\|>"
    r"|<\|channel\|>final(?:<\|message\|>)?|(?<=\S)assistantfinal",
    re.IGNORECASE,
)


# Where another turn begins, whatever the task: tokens of chat templates that were not dropped, and names of speakers.
_TURN = re.compile(
    r"<\|(?:im_end|im_start|eot_id|eom_id|endoftext|end_of_text|start_header_id|user|end|return|endofprompt)\|>"
    r"|<end_of_turn>|<start_of_turn>|</s>|<\uff5cend\u2581of\u2581sentence\uff5c>|<\uff5cUser\uff5c>"
    r"|\n[ \t]*(?:User|Human|USER|HUMAN):"
)
_OWN_TURN = re.compile(
    r"\s*(?:<\|im_start\|>assistant\b|<\|start_header_id\|>assistant<\|end_header_id\|>|<start_of_turn>model\b"
    r"|<\|assistant\|>|<\|start\|>assistant|Assistant:)\s*"
)


def find_stop(text: str, stops: Iterable[str]) -> int | None:
    """Where the first of the stop strings begins; None if there is none."""
    return min((at for stop in stops if stop and (at := text.find(stop)) >= 0), default=None)


def cut_at_stops(text: str, stops: Iterable[str]) -> str:
    """The text before the first of the stop strings; all of it where none occurs."""
    return text[: find_stop(text, stops)]


def evaluation_stops(
    answer_type: str, stop: tuple[str, ...], protocol: str = "standard", prompt_format: str = "plain"
) -> tuple[str, ...]:
    """Where completions are cut before they are judged.

    The published protocol cuts nowhere; the stop strings of base models would ruin a chat model's code.

    Args:
        answer_type: Of the task or benchmark.
        stop: Its own stop strings.
        protocol: ``standard`` or ``paper``.
        prompt_format: ``plain`` or ``chat``.
    """
    if prompt_format == "chat" and answer_type == "program":
        return ()
    return stop or (() if protocol == "paper" else NEXT_TURN)


def reading_stops(answer_type: str) -> tuple[str, ...]:
    """Where a completion is cut before it is read, whatever it was cut at when it was written.

    The published protocol stops nowhere, and a base model then asks itself the next question, whose answer is not that
    of this one. Programs are taken out of what follows them by `extract_code`; a user's own rule reads all that the
    user's own stop strings leave.
    """
    return () if answer_type in ("program", "likelihood", "rule") else NEXT_TURN


def without_thinking(text: str) -> str:
    """The text without what a model wrote in thought (``<think>..</think>`` and its kind): drafts are no answers.

    A closing tag alone closes all that stands before it (the opening one stood in the prompt); a block that never ends
    leaves only what stood before it.

    >>> without_thinking("<think>\\nIs it 12? No.\\n</think>\\n\\n18")
    '\\n\\n18'
    """
    while closing := _CLOSE.search(text):
        opening = _OPEN.search(text, 0, closing.start())
        text = (text[: opening.start()] if opening else "") + text[closing.end() :]
    opening = _OPEN.search(text)
    return text[: opening.start()] if opening else text


def own_turn(text: str) -> str:
    """The text without thinking, and without a turn of somebody else that follows it."""
    text = without_thinking(text)
    start = _OWN_TURN.match(text)
    text = text[start.end() :] if start else text
    turn = _TURN.search(text)
    return text[: turn.start()] if turn else text


def answer_part(text: str, stops: Iterable[str]) -> tuple[str, str]:
    """What is to be read of a completion, and why there is nothing where that is empty.

    The thinking is taken off first: a stop string in it (a question told again) ends no answer.

    Returns:
        The text and ``""``; or ``""`` and ``"empty completion"`` or ``"only thinking"``.
    """
    answer = own_turn(text)
    if text.strip() and not answer.strip():
        return "", "only thinking"
    answer = cut_at_stops(answer, stops)
    return (answer, "") if answer.strip() else ("", "empty completion")
