"""Chat templates whose prompts are the same on every day.

Some templates (those of Llama 3, for one) print today's date, so the same text would be another prompt tomorrow. A run
takes one date, at its first start, and keeps it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from spd_lightning.errors import UserError

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
        _date = None if date is None else datetime.date.fromisoformat(date)
    except ValueError as error:
        raise UserError(f"template_date={date!r} is no date. Set --template_date to YYYY-MM-DD, or null.") from error


def prints_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer's chat template asks for the time."""
    return bool(tokenizer.chat_template) and CLOCK in tokenizer.get_chat_template()


def render_prompts(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[list[dict[str, str]]]) -> list[str]:
    """Conversations as the model's chat template writes them, up to the start of the answer.

    Args:
        tokenizer: The model's; it must have a template.
        conversations: Lists of turns, each with ``role`` and ``content``.
    """
    template: Any = tokenizer.apply_chat_template
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
    if _date is not None and prints_date(tokenizer):
        # transformers makes plain data of what a template is given, so the clock is a macro over formatted parts
        moment = datetime.datetime.combine(_date, datetime.time())
        options["template_date"] = [["%%", "\0"], *([d, moment.strftime(d)] for d in DIRECTIVES), ["\0", "%"]]
        options["chat_template"] = _FIXED_CLOCK + tokenizer.get_chat_template()
    return [template(turns, **options) for turns in conversations]


_FIXED_CLOCK = (
    f"{{% macro {CLOCK}(format) %}}"
    "{% set made = namespace(text=format) %}"
    "{% for part in template_date %}{% set made.text = made.text.replace(part[0], part[1]) %}{% endfor %}"
    "{{ made.text }}{% endmacro %}\n"  # the newline goes with the block, so the template begins a line as before
)
