"""Templates that print the date give the same prompt on every day of a run."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from spd_lightning.errors import UserError
from spd_lightning.generation.requests import encode_prompts
from spd_lightning.model.chat_template import check_student_template, fix_template_date, prints_date, render_prompts
from tests.conftest import byte_tokenizer

DATED = (
    "{%- if strftime_now is defined %}\n    {%- set today = strftime_now('%d %b %Y') %}\n{%- endif %}\n"
    "Today Date: {{ today }}\n{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
PLAIN = "  \n{% for m in messages %}\n  {{ m['content'] }}\n{% endfor %}"
TURNS = [[{"role": "user", "content": "hello"}]]


@pytest.fixture(autouse=True)
def any_day() -> Iterator[None]:
    yield
    fix_template_date(None)


def tokenizer_with(template: str):  # type: ignore[no-untyped-def]
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_a_fixed_date_is_printed_and_today_without_one() -> None:
    tokenizer = tokenizer_with(DATED)
    today = f"{datetime.date.today():%d %b %Y}"
    assert render_prompts(tokenizer, TURNS) == [f"Today Date: {today}\nuser: hello\nassistant:"]
    fix_template_date("2020-02-29")
    assert render_prompts(tokenizer, TURNS) == ["Today Date: 29 Feb 2020\nuser: hello\nassistant:"]
    fixed = encode_prompts(tokenizer, ["hello"], "chat")
    fix_template_date("2020-03-01")
    assert encode_prompts(tokenizer, ["hello"], "chat") != fixed


@pytest.mark.parametrize("template", [DATED, "\n\n  {{ strftime_now('%A') }}{{ messages[0]['content'] }}", PLAIN])
def test_nothing_but_the_clock_is_changed(template: str) -> None:
    """Given today's date the text is that of the template as it stands, white space at its start included."""
    tokenizer = tokenizer_with(template)
    plain = render_prompts(tokenizer, TURNS)
    fix_template_date(datetime.date.today().isoformat())
    assert render_prompts(tokenizer, TURNS) == plain


@pytest.mark.parametrize(
    "form", ["%d %b %Y", "%Y-%m-%d", "%-d. %B %y", "%A", "%j", "%%d %d%%", "%H:%M:%S", "%D %F %T", "no directive"]
)
def test_formats_are_those_of_strftime(form: str) -> None:
    fix_template_date("2024-07-05")
    tokenizer = tokenizer_with("{{ strftime_now('" + form + "') }}")
    assert render_prompts(tokenizer, TURNS) == [datetime.datetime(2024, 7, 5).strftime(form)]


def test_which_templates_print_a_date() -> None:
    assert prints_date(tokenizer_with(DATED)) and not prints_date(tokenizer_with(PLAIN))
    assert not prints_date(byte_tokenizer())


def test_what_is_no_date_is_refused() -> None:
    with pytest.raises(UserError, match=r"template_date='26\.11\.2026' is no date"):
        fix_template_date("26.11.2026")
    with pytest.raises(UserError, match="template_date=7 is no date"):  # of a config.yaml that was changed by hand
        fix_template_date(7)  # type: ignore[arg-type]


def test_a_student_with_a_template_of_its_own_is_refused(tmp_path: Path) -> None:
    """Base and student are asked alike: in the base's template."""
    check_student_template(tmp_path, tokenizer_with(PLAIN))  # it has none
    (tmp_path / "chat_template.jinja").write_text(PLAIN)
    check_student_template(tmp_path, tokenizer_with(PLAIN))
    with pytest.raises(UserError, match=r"own \(chat_template.jinja\), its base has another one.*prompt_format.*plain"):
        check_student_template(tmp_path, tokenizer_with(DATED))
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": PLAIN}))
    with pytest.raises(UserError, match=r"own \(tokenizer_config.json\), its base has none"):
        check_student_template(tmp_path, byte_tokenizer())
