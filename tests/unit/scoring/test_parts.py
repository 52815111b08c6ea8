"""Which side of the line a part of a program stands on, by its text."""

from __future__ import annotations

import pytest

from spd_lightning.scoring.parts import split


@pytest.mark.parametrize(
    ("tests", "names"),
    [
        ("assert f(1) == 2", ("f",)),
        ("assert set(f(1)) == set([2])", ("f",)),
        ("assert sum(2, 5) == 10\nassert sum(1, 1) == 1", ("sum",)),
        ("def check(candidate):\n    x = 3\n    assert candidate(x) == 2\ncheck(f)", ("f",)),
        ("def check(candidate):\n    assert candidate(1) == [y for y in range(3)]\ncheck(f)", ("f",)),
        ("import math\nassert math.isclose(f(1), 2)", ("f",)),
        ("assert encode(decode('a')) == 'a'", ("decode", "encode")),
        ("assert LIMIT == f(1)", ("LIMIT", "f")),
        ("x = f(1)\nassert x == 2", ("f",)),
        ("def g():\n    global y\n    y = f(1)\ng()\nassert y", ("f",)),
        ("if __name__ == '__main__':\n    assert f(1)", ("f",)),
        ("", ()),
        ("assert (", ()),
    ],
)
def test_names_that_tests_take_from_the_program(tests: str, names: tuple[str, ...]) -> None:
    assert split("", tests).names == names


@pytest.mark.parametrize(
    ("tests", "modules", "names"),
    [
        ("assert f(1) == sys.getsizeof(1)", ("sys",), ("f",)),
        ("assert math.isclose(f(1), collections.Counter('a')['a'])", ("collections", "math"), ("f",)),
        ("assert calendar(1) == 2", (), ("calendar",)),  # called, so a function of the program
        ("import sys\nassert f(sys.maxsize)", (), ("f",)),
    ],
)
def test_modules(tests: str, modules: tuple[str, ...], names: tuple[str, ...]) -> None:
    parts = split("", tests)
    assert (parts.modules, parts.names) == (modules, names)


@pytest.mark.parametrize(
    ("prefix", "continues", "definitions", "names"),
    [
        ("import math\n\ndef poly(x):\n    return x\n\ndef f(x):\n    '''Doc.'''\n", True, ("math", "poly"), ("f",)),
        ("def f(x):\n", True, (), ("f", "poly")),
        ("def poly(x):\n    return x\n", False, ("poly",), ("f",)),
        ("from typing import List\n", False, ("List",), ("f", "poly")),
        ("x = 1\nthis is no Python", True, (), ("f", "poly")),
    ],
)
def test_what_the_prompt_defines_is_there_on_the_tests_side(
    prefix: str, continues: bool, definitions: tuple[str, ...], names: tuple[str, ...]
) -> None:
    parts = split(prefix, "assert f(poly(1)) == 2", continues)
    assert parts.names == names
    for word in definitions:
        assert word in parts.definitions
    assert "def f" not in parts.definitions


@pytest.mark.parametrize(
    ("tests", "shared"),
    [
        ("root = Node(1)\nroot.left = Node(2)\nassert depth(root) == 2", True),
        ("assert chain([Pair(1, 2)], 3) == 1", True),
        ("s = Stack()\ns.push(1)\nassert s.pop() == 1", True),
        ("assert Solution().add(1, 2) == 3", True),
        ("n = node(1)\nn.next = node(2)\nassert length(n) == 2", True),
        ("assert isinstance(make(1), Thing)", True),
        ("try:\n    f(1)\nexcept BadInput:\n    pass", True),
        ("class Mine(Base):\n    pass\nassert f(Mine())", True),
        ("assert Config.default(1) == 2", True),
        ("assert Find_Max([1, 2]) == 2", False),
        ("assert Split([1, 2]) == [2]", False),
        ("assert Diff([1], [2]) == [1, 2]", False),
        ("assert f(' a').strip() == 'a'", False),
        ("r = f([2, 1])\nr.sort()\nassert r == [1, 2]", False),
        ("assert LIMIT == f(1)", False),
        ("class Node:\n    pass\nassert f(Node()) == 1", False),
        ("from collections import Counter\nassert f(1) == Counter('a')", False),
    ],
)
def test_only_a_class_of_the_program_makes_tests_share_its_process(tests: str, shared: bool) -> None:
    assert split("", tests).shared is shared


def test_a_class_that_the_prompt_defines_needs_no_sharing() -> None:
    parts = split("class Node:\n    pass\n\ndef f(n):\n    '''Doc.'''\n", "n = Node()\nn.x = 1\nassert f(n) == 1", True)
    assert not parts.shared and parts.classes == ("Node",) and parts.names == ("f",)


def test_classes_of_the_tests_are_handed_over_with_their_imports() -> None:
    tests = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nassert f(P(1)) == P(2)"
    parts = split("", tests)
    assert parts.classes == ("P",) and not parts.shared
    scope: dict[str, object] = {}
    exec(parts.test_classes, scope)
    assert "P" in scope and "assert" not in parts.test_classes


@pytest.mark.parametrize("deep", ["(" * 10_000, f"x = {'+'.join(['1'] * 20_000)}", f"x = {'-' * 5000}1"])
def test_what_is_nested_too_deep_is_no_python(deep: str) -> None:
    assert split(deep, "assert f(1)", continues=True).names == ("f",)
    assert split("", deep).tests == deep
