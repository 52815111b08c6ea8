"""Completions of every kind into every scorer: an answer of the right kind, the same one every time."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spd_lightning.finetuning.keep import renumber
from spd_lightning.scoring.answers import NEXT_TURN, extract_code, extract_letter, extract_number, extract_text, parses
from spd_lightning.scoring.parts import split
from spd_lightning.scoring.rules import apply_rule
from spd_lightning.scoring.script_answers import script_code, script_verdict
from spd_lightning.scoring.verdicts import KINDS, holds_answer, judge
from spd_lightning.tasks.numbers import final_number, gold_number
from spd_lightning.tasks.rules import NORMALISE, RULES, make_rule
from spd_lightning.tasks.task import Example
from tests.fuzz.cases import cases, numbers, result_of, texts

PIECES = (
    *("#### ", "#### 18", "\\boxed{", "\\boxed{-3}", "}", "<answer>", "</answer>", "<think>", "</think>", "Answer:"),
    *("The answer is ", "so ", "Wait, ", " = ", "12 + 7 = 19", "$1,250", "3/4", "1/0", "\\frac{1}{2}", "2 million"),
    *("(A)", "B", "not C", "A and B", "vitamin C", "A. Paris\nB. Rome\n", "```python\n", "```", "~~~\n", "def f(x):\n"),
    *(
        "    return x\n",
        ">>> f(1)\n",
        "assert f(1) == 1\n",
        "\nQuestion:",
        "\n\n",
        "  ",
        "\t",
        "\r\n",
        "**",
        "twenty-four",
    ),
    *("one hundred and five", "12:30", "x^{2}", "10^3", "1. first\n2. second\n", "class A:\n", "'''", '"""', "[DONE]"),
    *("<pre><code>", "yes", "correct", "ответ: ", "答案是", "-", "−5", "5%", "1e99", ".5", "1.234.567", "if x:\n"),
)
completions = st.lists(st.one_of(st.sampled_from(PIECES), texts, numbers.map(str)), max_size=12).map("".join)
golds = {"number": "18", "letter": "B", "text": "True", "likelihood": "def f():\n    return 1"}


@cases(1500)
@given(completions)
def test_numbers(text: str) -> None:
    for mode in ("strict", "flexible"):
        number, reason = result_of(lambda mode=mode: extract_number(text, mode)) or (None, "")
        assert reason and (number is None or (isinstance(number, Decimal) and number.is_finite()))
    gold = result_of(lambda: gold_number(text))
    assert gold is None or gold.is_finite()
    final = result_of(lambda: final_number(text))
    assert final is None or (0 <= final.start <= final.end <= len(text) and "####" in text)


@cases(1200)
@given(completions, st.sampled_from(["ABCD", "ABCDEFGHIJ", "AB"]))
def test_letters_and_texts(text: str, letters: str) -> None:
    letter, reason = result_of(lambda: extract_letter(text, letters)) or (None, "")
    assert reason and (letter is None or letter in letters)
    answer, reason = result_of(lambda: extract_text(text, "a\nb")) or (None, "")
    assert reason and (answer is None or isinstance(answer, str))


@cases(1000)
@given(completions)
def test_programs(text: str) -> None:
    code = result_of(lambda: extract_code(text))
    assert isinstance(code, str) and parses(code) in (True, False)
    assert isinstance(result_of(lambda: script_code(text)), str)
    assert result_of(lambda: split(text, code, continues=True)) is not None


@cases(1500)
@given(completions, st.sampled_from(sorted(golds)))
def test_verdicts(text: str, kind: Any) -> None:
    verdict = result_of(lambda: judge(golds[kind], text, kind, "ABCD", NEXT_TURN))
    assert verdict is not None and verdict.reason and verdict == judge(golds[kind], text, kind, "ABCD", NEXT_TURN)
    assert not verdict.correct or verdict.answer is not None
    assert result_of(lambda: holds_answer(text, kind)) in (True, False) and KINDS[kind].metrics
    if kind in ("number", "letter", "text"):
        example = Example("a", "q", "t", expected=golds[kind], meta={"subject": "boolean_expressions"})
        assert result_of(lambda: script_verdict(example, text, kind)) is not None


@cases(600)
@given(st.integers(-(10**6), 10**6), completions)
def test_a_declared_answer_is_read_whatever_stands_before_it(number: int, before: str) -> None:
    marked = f"{before.replace('<think>', '').replace('</think>', '')}\n\n#### {number}"
    found, reason = result_of(lambda: extract_number(marked, "strict", ())) or (None, "")
    assert (found, reason) == (number, "marker")


@cases(1000)
@given(
    st.sampled_from([*RULES, "python:a.py:f", "", "xyz"]),
    st.lists(texts, min_size=1, max_size=3),
    st.one_of(st.none(), st.lists(st.sampled_from([*NORMALISE, "x"]), max_size=3)),
    completions,
)
def test_rules(name: str, targets: list[str], normalise: list[str] | None, text: str) -> None:
    try:
        rule = result_of(lambda: make_rule(name, targets, normalise, Path("nowhere")))
    except ValueError as error:  # `custom` puts the place before it
        assert "must be" in str(error)
        return
    if rule is not None and name not in ("tests", "choice_likelihood"):
        reading = result_of(lambda: apply_rule(rule, text))
        assert reading is not None and isinstance(reading[1], bool) and reading[2]


@cases(600)
@given(completions, texts, st.integers(0, 9))
def test_renumbered_keeps_the_length(text: str, question: str, seed: int) -> None:
    new = result_of(lambda: renumber(text, question, random.Random(seed)))
    assert new is not None and len(new) == len(text) and [c.isdigit() for c in new] == [c.isdigit() for c in text]
