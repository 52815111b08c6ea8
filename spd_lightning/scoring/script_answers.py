r"""What a completion answered in the eyes of the authors' reference script, beside our own reading.

Under the paper protocol every score of a benchmark that the script has is given twice: as `answers` reads a completion,
and, under ``<metric>_script``, as the functions below do. They follow the script's rules to the letter, flaws included
(the word "correct" answers C, "not" answers no), so that a published number can be compared with one of its own kind.
They are no model for reading answers.

Where its rules leave a case open, the plainest reading is taken: white space around the completion is dropped first, of
``true`` and ``false`` in one line ``true`` is looked for first, and code is cut whether it stood in a fence or not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spd_lightning.scoring.isolation import ExecutionResult
from spd_lightning.tasks.task import AnswerType, Example

TOLERANCE = 1e-4
YES_NO_TASKS = ("causal_judgement", "sports_understanding")

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_FENCE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_CODE_ENDS = ("\nclass ", "\nif __name__", "\n\n\n")


def script_number(completion: str) -> float | None:
    """The last number of a completion.

    >>> script_number("5 and 3 make 8, within 24 hours")
    24.0
    """
    numbers = _NUMBER.findall(completion)
    return float(numbers[-1].replace(",", "")) if numbers else None


def script_letter(completion: str) -> str | None:
    """The first of the letters A to D, in upper or lower case, wherever it stands.

    >>> script_letter("The correct answer is B")
    'C'
    """
    return next((letter for letter in completion.upper() if letter in "ABCD"), None)


def script_text(completion: str, subject: str) -> str:
    """The answer to a question of BBH, from the first line alone.

    Args:
        completion: What the model wrote.
        subject: Its BBH task, on which the rule depends.

    >>> script_text(" (B) it is", "date_understanding"), script_text("It is no surprise", "causal_judgement")
    ('(B)', 'no')
    """
    lines = completion.strip().splitlines()
    first = lines[0].strip() if lines else ""
    lower = first.lower()
    if subject == "boolean_expressions":
        for word in ("true", "false"):
            if word in lower:
                return word
    if subject in YES_NO_TASKS:
        found = [w for w in ("yes", "no") if lower.startswith(w)] or [w for w in ("yes", "no") if w in lower[:10]]
        if found:
            return found[0]
    option = re.search(r"\(([A-Za-z])\)", first) or re.search(r"\b([A-F])\b", first)
    return f"({option[1].upper()})" if option else first


def script_code(completion: str) -> str:
    """The program text: the first closed fence, else all; up to a new class, a main guard or three line ends."""
    fence = _FENCE.search(completion)
    code = (fence[1] if fence else completion).strip()
    return code[: min([at for end in _CODE_ENDS if (at := code.find(end)) >= 0], default=len(code))].rstrip()


def script_program(example: Example, completion: str) -> str:
    """The program that the script runs: code and asserts, without the imports that sanitized MBPP lists beside them."""
    return f"{script_code(completion)}\n{example.expected}\n"


def script_verdict(example: Example, completion: str, answer_type: AnswerType) -> tuple[str | None, bool]:
    """The answer that the script reads, and whether it takes it for right.

    Args:
        example: The question with its gold answer.
        completion: What the model wrote.
        answer_type: ``number``, ``letter`` or ``text``; programs are run (see `script_program`).
    """
    if answer_type == "number":
        number = script_number(completion)
        right = number is not None and abs(number - float(example.expected)) <= TOLERANCE
        return None if number is None else f"{number:.10g}", right
    if answer_type == "letter":
        letter = script_letter(completion)
        return letter, letter == example.expected
    if answer_type == "text":
        text = script_text(completion, str(example.meta.get("subject", "")))
        return text, _plain(text) == _plain(example.expected)
    raise ValueError(f"answer_type={answer_type!r} is not read here.")


def read_as_script(
    records: list[dict[str, Any]],
    examples: Mapping[str, Example],
    answer_type: AnswerType,
    run: Callable[[list[str]], Sequence[ExecutionResult]],
) -> None:
    """Add to records what the script reads and what it takes for right: ``script_answer``, ``script_correct``.

    Args:
        records: Of one benchmark, with ``id`` and ``completion``.
        examples: By id.
        answer_type: Of the benchmark.
        run: Runs programs, each with its tests in one process, as the script does; in order.
    """
    readings: list[tuple[str | None, bool]]
    if answer_type == "program":
        results = run([script_program(examples[r["id"]], r["completion"]) for r in records])
        readings = [(script_code(r["completion"]), result.passed) for r, result in zip(records, results, strict=True)]
    else:
        readings = [script_verdict(examples[r["id"]], r["completion"], answer_type) for r in records]
    for record, (answer, correct) in zip(records, readings, strict=True):
        record["script_answer"], record["script_correct"] = answer, correct


def _plain(text: str) -> str:
    return text.strip().lower().removesuffix(".")
