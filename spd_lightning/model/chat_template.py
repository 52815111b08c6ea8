"""Chat templates whose prompts are the same on every day.

Some templates (those of Llama 3, for one) print today's date, so the same text would be another prompt tomorrow. A run
takes one date, at its first start, and keeps it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
from transformers import PreTrainedTokenizerBase

from spd_lightning.errors import UserError
from spd_lightning.model.damage import read_object, told

CLOCK = "strftime_now"  # what transformers gives templates to ask for the time

# What a format may hold; `-` leaves zeros out. Times of the day are those of midnight.
DIRECTIVES = [f"%{flag}{letter}" for letter in "aAwdbBmyYHIpMSfzZjUWcxXGuVeDFT" for flag in ("-", "")]
_date: datetime.date | None = None


def fix_template_date(date: str | None) -> None:
    """Let templates print this date (``YYYY-MM-DD``) from now on in this process; None lets them print today's.

    Raises:
        UserError: If it is no date.
    """
    global _date
    try:
        _date = None if date is None else datetime.date.fromisoformat(str(date))
    except ValueError as error:
        raise UserError(f"template_date={date!r} is no date. Set --template_date to YYYY-MM-DD, or null.") from error


def prints_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer's chat template asks for the time."""
    return bool(tokenizer.chat_template) and CLOCK in tokenizer.get_chat_template()


PromptFormat = Literal["plain", "chat"]


def prompt_turns(prompt: str, system: str = "") -> list[dict[str, str]]:
    """A prompt as the turn of the user, behind a system prompt if there is one."""
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": prompt}]


def plain_prompt(prompt: str, system: str = "") -> str:
    """A prompt as plain text, behind a system prompt and an empty line if there is one."""
    return f"{system}\n\n{prompt}" if system else prompt


def check_student_template(student: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a student whose folder has a chat template other than the one that all models are asked in, its base's.

    Args:
        student: Folder of an adapter or a checkpoint.
        tokenizer: Of its base.

    Raises:
        UserError: With what to do.
    """
    file, config = student / "chat_template.jinja", student / "tokenizer_config.json"
    own = read_object(config).get("chat_template") if config.is_file() else None
    if file.is_file():
        with told(file, "UTF-8 text"):
            own = file.read_text(encoding="utf-8")
    if own and own != tokenizer.chat_template:
        where = file if file.is_file() else config
        base = "another one" if tokenizer.chat_template else "none"
        raise UserError(
            f"The student in {student} has a chat template of its own ({where.name}), its base has {base}, and both "
            f"are asked in the base's. Copy {where} over that of the base (into a copy of its folder, given as "
            "model_name_or_path, --subspace.model_name_or_path), or set prompt_format "
            "(--evaluation.prompt_format) plain."
        )


def render_prompts(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[list[dict[str, str]]], answered: bool = False
) -> list[str]:
    """Conversations as the model's chat template writes them, up to the start of the answer.

    Args:
        tokenizer: The model's; it must have a template.
        conversations: Lists of turns, each with ``role`` and ``content``.
        answered: Whether the last turn is the answer, so that none is to begin.

    Raises:
        UserError: If the template refuses these turns (some have no place for a system prompt).
    """
    template: Any = tokenizer.apply_chat_template
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": not answered}
    if _date is not None and prints_date(tokenizer):
        # transformers makes plain data of what a template is given, so the clock is a macro over formatted parts
        moment = datetime.datetime.combine(_date, datetime.time())
        options["template_date"] = [["%%", "\0"], *([d, moment.strftime(d)] for d in DIRECTIVES), ["\0", "%"]]
        options["chat_template"] = _FIXED_CLOCK + tokenizer.get_chat_template()
    try:
        return [template(turns, **options) for turns in conversations]
    except jinja2.TemplateError as error:
        roles = ", ".join(turn["role"] for turn in conversations[0])
        raise UserError(
            f"The model's chat template refuses turns of {roles}: {error}. Leave system_prompt out, or set "
            "prompt_format (--data.prompt_format) to plain."
        ) from error


_FIXED_CLOCK = (
    f"{{% macro {CLOCK}(format) %}}"
    "{% set made = namespace(text=format) %}"
    "{% for part in template_date %}{% set made.text = made.text.replace(part[0], part[1]) %}{% endfor %}"
    "{{ made.text }}{% endmacro %}\n"  # the newline goes with the block, so the template begins a line as before
)
