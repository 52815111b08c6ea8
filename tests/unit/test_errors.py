"""The error of a misspelt name helps out of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from spd_lightning.errors import UserError, unknown_name

PACKAGE = Path(__file__).parents[2] / "spd_lightning"
COMMANDS = {"out", "form", "config", "run_dir", "deps", "force"}  # of commands and pip: no parameter is called so


def words_of(node: ast.AST) -> str:
    """The text of a message; what is filled in stands as ``{}``."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(value) for value in node.values)
    return "{}"


def option_without_parameter(message: str) -> list[str]:
    """Options that a message names before their parameter, and parameters named by their section."""
    found = []
    for option in re.finditer(r"--(?:no-)?(?:[a-z]+\.)?([a-z_]+)", message):
        before, name = message[: option.start()], option[1]
        if name not in COMMANDS and "{}" not in before.split(" ")[0] and not re.search(rf"(?<![\w.-]){name}\b", before):
            found.append(option[0])
    return found + re.findall(r"(?<![-\w./])(?:subspace|data|model|evaluation)\.[a-z_]+=", message)


@pytest.mark.parametrize(
    "room", [p.name for p in sorted(PACKAGE.iterdir()) if p.is_dir() and p.name not in ("cli", "pipeline")]
)
def test_the_core_names_a_parameter_before_its_option(room: str) -> None:
    """A notebook knows ``temperature``; ``--data.temperature`` is what the command line types."""
    wrong = []
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError":
                found = option_without_parameter(" ".join(words_of(arg) for arg in node.args))
                wrong += [f"{path.name}:{node.lineno} {option}" for option in found]
    assert wrong == []


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("rank=9 exceeds kv_dim=4. Set --subspace.rank to at most 4.", []),
        ("The corpus is empty. Raise num_prompts (--data.num_prompts).", []),
        ("The corpus is empty. Raise --data.num_prompts.", ["--data.num_prompts"]),
        ("data.method=sdp is not known.", ["data.method="]),
        ("model.max_length=4: raise --data.max_length", ["--data.max_length", "model.max_length="]),
    ],
)
def test_the_rule_can_fail(message: str, wrong: list[str]) -> None:
    assert option_without_parameter(message) == wrong


def test_the_nearest_name_is_suggested() -> None:
    error = unknown_name("task", "gms8k", ["mmlu", "gsm8k"], "--evaluation.tasks")
    assert isinstance(error, UserError)
    assert str(error) == "Unknown task 'gms8k'. Did you mean 'gsm8k'? Known: gsm8k, mmlu. Set --evaluation.tasks."


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    text = str(unknown_name("method", "xyz", ("spd", "base"), "--data.method"))
    assert text == "Unknown method 'xyz'. Known: base, spd. Set --data.method."
