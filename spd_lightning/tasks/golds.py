"""Gold answers that nothing could match are refused when a row is read, not scored as wrong for ever.

Each check takes a row whose fields have their types and says what is wrong with it, or None.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from spd_lightning.tasks.numbers import final_number, gold_number, numbers_equal

Check = Callable[[dict[str, Any]], str | None]
NUMBER_WANTED = "one finite number such as 18, -3, 1,250, 1/2, 50% or 1e5"


def marked_number(row: dict[str, Any]) -> str | None:
    """GSM8K: the answer ends in ``#### N``, N being a number that can be compared."""
    final = final_number(row["answer"])
    if final is None:
        return f"the answer does not end in '#### N' (it ends in {row['answer'][-20:]!r})"
    if final.value is None:
        return f"the answer ends in '#### {final.text}', but N must be {NUMBER_WANTED}"
    return None


def stated_number(row: dict[str, Any]) -> str | None:
    """SVAMP: the answer is finite and written without loss by the ten digits of the target."""
    answer = row["Answer"]
    if not math.isfinite(answer):
        return f"the field 'Answer' is {answer!r}, which no answer equals; {NUMBER_WANTED} is needed"
    if not numbers_equal(gold_number(f"{answer:.10g}"), Decimal(repr(answer))):
        return f"the field 'Answer' is {answer!r}, which ten digits do not hold; a number of at most ten is needed"
    return None


def four_choices(row: dict[str, Any]) -> str | None:
    """MMLU: four texts to choose from, and the answer is one of them."""
    if len(row["choices"]) != 4 or not 0 <= row["answer"] < 4:
        return (
            f"{len(row['choices'])} choices and the answer {row['answer']}, but 4 choices and an answer from 0 to 3 "
            "are needed"
        )
    return some_choices(row)


def some_choices(row: dict[str, Any]) -> str | None:
    """MMLU's auxiliary rows, of which some have fewer choices: texts, and the answer is one of them."""
    if not all(isinstance(choice, str) for choice in row["choices"]):
        return f"the field 'choices' is {row['choices']!r}, but a list of texts is needed"
    if not 0 <= row["answer"] < len(row["choices"]):
        return f"{len(row['choices'])} choices and the answer {row['answer']}, which is none of them"
    return None


def comparable_text(row: dict[str, Any]) -> str | None:
    """BBH: something is left of the target once quotes, emphasis and final punctuation are dropped."""
    return None if is_comparable(row["target"]) else f"the field 'target' is {row['target']!r}, which says nothing"


def is_comparable(text: str) -> bool:
    """Whether a text has more than the white space, quotes, emphasis and punctuation that comparing drops."""
    return bool(text.strip(" \t\r\n.,;:!\"'`*_“”‘’"))


def humaneval_test(row: dict[str, Any]) -> str | None:
    """HumanEval: there is something to complete, and the test is Python that defines ``check``."""
    if not row["prompt"].strip():
        return "the field 'prompt' is empty, but the beginning of a function is needed"
    if not parses(row["test"]) or "def check(" not in row["test"]:
        return "the field 'test' is no Python that defines check(), so no program could pass it"
    if not row["entry_point"].isidentifier():
        return f"the field 'entry_point' is {row['entry_point']!r}, but the name of a function is needed"
    return None


def mbpp_tests(row: dict[str, Any]) -> str | None:
    """MBPP: at least one test, and all of them are Python (without one, every program would pass)."""
    tests = row["test_list"]
    if not tests or not all(isinstance(test, str) and test.strip() for test in tests):
        return f"the field 'test_list' is {tests!r}, but a list of assertions is needed"
    if not parses("\n".join(test.strip() for test in tests)):
        return f"the field 'test_list' is {tests!r}, which is not Python"
    return None


def parses(code: str) -> bool:
    """Whether a test is Python; an empty one is not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
