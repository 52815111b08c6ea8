"""What crosses between a program and its tests: exact types, shared structure, and nothing that is not data."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import importlib
import math
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SANDBOX = Path(__file__).parents[3] / "spd_lightning" / "scoring" / "sandbox"


@pytest.fixture(scope="module")
def wire() -> Iterator[ModuleType]:
    """The module as the sandbox's interpreters see it: its neighbours are found by their bare names."""
    sys.path.insert(0, str(SANDBOX))
    try:
        yield importlib.import_module("wire")
    finally:
        sys.path.remove(str(SANDBOX))
        for name in ("wire", "plain"):
            sys.modules.pop(name, None)


def side(wire: ModuleType, scope: dict[str, Any] | None = None) -> Any:
    scope = scope or {}
    return wire.Side(scope, tuple(scope), lambda x: None, lambda kind, number: f"{kind} {number}")


def cross(wire: ModuleType, value: Any, scope: dict[str, Any] | None = None) -> Any:
    here, there = side(wire, scope), side(wire, scope)
    return wire.unpack(there, wire.pack(here, value)[0])[0]


class Point:
    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y


class Slotted:
    __slots__ = ("next", "value")

    def __init__(self, value: int) -> None:
        self.value, self.next = value, None


class Color(enum.Enum):
    RED = "r"


VALUES = [
    *(None, True, False, ..., NotImplemented, 0, -1, 255, -256, 1 << 64, -(1 << 7000), 0.5, -0.0, math.inf),
    *(1 - 2j, "", "a\0é\ud800\U0001f600", b"", b"\xff\0", bytearray(b"x"), [], (), {}, set(), frozenset()),
    *([1, [2, (3, {4: [5]})]], {(1, "a"): {2.5: None}}, {frozenset({1}), frozenset({frozenset()})}),
    *(range(3), range(9, 1, -2), slice(1, None, 2), int, dict, ValueError),
    *(decimal.Decimal("1.10"), decimal.Decimal("-0"), fractions.Fraction(-3, 7)),
    *(datetime.date(2026, 2, 28), datetime.timedelta(-1, 5, 7), datetime.time(1, 2, 3, 4, fold=1)),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "X")),
    *(collections.Counter("aab"), collections.deque([1, 2], 2), collections.deque([1])),
    collections.OrderedDict([("b", 1), ("a", 2)]),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_keep_their_types(wire: ModuleType, value: Any) -> None:
    found = cross(wire, value)
    assert type(found) is type(value)
    assert repr(found) == repr(value)
    assert found == value


def test_structure_is_kept(wire: ModuleType) -> None:
    inner = [1]
    loop: list[Any] = [inner, inner, {"k": inner}]
    loop.append(loop)
    loop.append((loop, inner))
    found = cross(wire, loop)
    assert found[0] is found[1] is found[2]["k"] is found[4][1]
    assert found[3] is found is found[4][0]


def test_nan(wire: ModuleType) -> None:
    nan = float("nan")
    found = cross(wire, [nan, nan, -nan, math.nan])
    assert all(x != x for x in found)
    assert found[0] is found[1] is not found[2]
    assert found[3] is math.nan
    question, sent = wire.pack(side(wire), (nan, 1.0))
    _, nodes = wire.unpack(side(wire), question)
    theirs = next(node for node in nodes if node != node)
    answer, _ = wire.pack(side(wire), [theirs], {id(theirs): nodes.index(theirs)})
    assert wire.unpack(side(wire), answer, sent)[0][0] is nan


def test_named_tuples_views_and_factories(wire: ModuleType) -> None:
    pair = collections.namedtuple("pair", "left right")(1, [2])  # type: ignore[call-arg]
    found = cross(wire, pair)
    assert found == (1, [2]) and found.right == [2] and found._fields == ("left", "right")
    assert found._asdict() == {"left": 1, "right": [2]} and type(found).__name__ == "pair"
    assert type(cross(wire, pair, {"pair": type(pair)})) is type(pair)
    keys, values, items = cross(wire, [{1: 2}.keys(), {1: 2}.values(), {1: 2}.items()])
    assert keys == {1} and list(values) == [2] and items == {(1, 2)}
    assert cross(wire, collections.defaultdict(list, a=[1])).default_factory is list
    assert cross(wire, collections.defaultdict(lambda: 0, a=1)).default_factory is None


def test_enum_members(wire: ModuleType) -> None:
    level = enum.IntEnum("level", {"LOW": 1})
    found = cross(wire, [level.LOW, level.LOW, Color.RED])
    assert found[0] is found[1] and found[0] == 1 and found[0].name == "LOW"
    assert found[2].value == "r" and found[2] != Color.RED
    assert cross(wire, Color.RED, {"Color": Color}) is Color.RED


def test_instances_of_known_classes_cross_by_their_fields(wire: ModuleType) -> None:
    point = Point(1, None)
    point.y = [point]
    found = cross(wire, point, {"Point": Point})
    assert type(found) is Point and found.x == 1 and found.y[0] is found
    slotted = cross(wire, Slotted(3), {"Slotted": Slotted})
    assert slotted.value == 3 and slotted.next is None
    with pytest.raises(wire.Unsendable, match="Point"):
        cross(wire, point)


class Text(str):
    pass


class Items(list):
    pass


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda: 0, "function"),
        (object(), "object"),
        (Text("x"), "Text"),
        ([Items()], "Items"),
        (Point, "type"),
        (len, "builtin_function_or_method"),
        (math, "module"),
        (datetime.datetime.now, "builtin_function_or_method"),
        (bytes(17 << 20), "over 16 MiB"),
        (list(range(3 << 20)), "over 16 MiB"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_does_not_cross_is_named(wire: ModuleType, value: Any, said: str) -> None:
    with pytest.raises(wire.Unsendable) as error:
        wire.pack(side(wire), value)
    assert error.value.args == (said,)


def test_depth_is_limited(wire: ModuleType) -> None:
    for kind in (list, tuple):
        deep: Any = kind()
        for _ in range(990):
            deep = kind([deep])
        cross(wire, deep)
        for _ in range(20):
            deep = kind([deep])
        with pytest.raises(wire.Unsendable, match="over 1000 levels"):
            wire.pack(side(wire), deep)


def message(*nodes: bytes, root: int | None = None, count: int | None = None) -> bytes:
    return struct.pack(
        ">II", len(nodes) if count is None else count, len(nodes) - 1 if root is None else root
    ) + b"".join(nodes)


def refs(*numbers: int) -> bytes:
    return struct.pack(f">I{len(numbers)}I", len(numbers), *numbers)


def text(word: str) -> bytes:
    return b"s" + struct.pack(">I", len(word)) + word.encode()


HOSTILE = {
    "empty": b"",
    "no nodes": message(root=0),
    "unknown tag": message(b"?"),
    "more nodes than bytes": message(b"N", count=1 << 31),
    "root beyond": message(b"N", root=1),
    "rest": message(b"N") + b"N",
    "cut integer": message(b"i\0\0\0\x09abc"),
    "cut list": message(b"l" + struct.pack(">I", 1 << 30)),
    "tuple of itself": message(b"t" + refs(0)),
    "tuple of a later one": message(b"t" + refs(1), b"N", root=0),
    "list of nothing there": message(b"l" + refs(7)),
    "value of itself": message(b"v" + refs(0)),
    "list in a set": message(b"l" + refs(), b"S" + refs(0)),
    "odd dict": message(b"N", b"d" + refs(0)),
    "echo of nothing": message(b"e\0\0\0\0"),
    "class that nobody knows": message(b"k" + struct.pack(">I", 5) + b"Popen" + refs()),
    "builtin function": message(text("type"), text("eval"), b"v" + refs(0, 1)),
    "builtin exec": message(text("type"), text("exec"), b"v" + refs(0, 1)),
    "kind unknown": message(text("system"), text("true"), b"v" + refs(0, 1)),
    "kind not text": message(b"N", b"v" + refs(0)),
    "no kind": message(b"v" + refs()),
    "decimal of a list": message(text("Decimal"), b"l" + refs(), b"v" + refs(0, 1)),
    "decimal of words": message(text("Decimal"), text("one"), b"v" + refs(0, 1)),
    "fraction over nothing": message(text("Fraction"), b"i\0\0\0\1\0", b"v" + refs(0, 1, 1)),
    "date of words": message(text("date"), text("x"), b"v" + refs(0, 1, 1, 1)),
    "zone without offset": message(text("timezone"), b"v" + refs(0)),
    "named tuple with a field that is code": message(
        text("named tuple"), text("a"), text("x=print(1)"), b"t" + refs(2), b"v" + refs(0, 1, 3)
    ),
    "named tuple with a private field": message(
        text("named tuple"), text("a"), text("__class__"), b"t" + refs(2), b"v" + refs(0, 1, 3)
    ),
    "member with a private name": message(
        text("member"), text(""), text("E"), text("__eq__"), b"N", b"v" + refs(0, 1, 2, 3, 4)
    ),
    "factory that is a value": message(b"D" + refs(1), b"T", root=0),
    "surrogate cut": message(b"s\0\0\0\2\xed\xa0"),
    "not utf-8": message(b"s\0\0\0\1\xff"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bytes_that_no_packer_writes_are_refused(wire: ModuleType, name: str) -> None:
    with pytest.raises(wire.Malformed):
        wire.unpack(side(wire), HOSTILE[name])


def test_a_chain_of_tuples_longer_than_a_packer_makes_is_refused(wire: ModuleType) -> None:
    chain = [b"t" + refs(), *(b"t" + refs(i) for i in range(5000))]
    with pytest.raises(wire.Malformed, match="depth"):
        wire.unpack(side(wire), message(*chain))


def test_any_bytes_end_in_a_value_or_in_refusal(wire: ModuleType) -> None:
    """Changed bytes: no other exception, whatever they say."""
    rng = random.Random(0)
    seeds = [wire.pack(side(wire), value)[0] for value in VALUES]
    refused = 0
    for _ in range(20000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice((rng.randrange(256), *b"NTFilstdSzvkqDOCe", 0, 1))
        try:
            wire.unpack(side(wire), bytes(data))
        except wire.Malformed:
            refused += 1
    assert 5000 < refused < 20000


def test_nothing_that_runs_text_stands_in_the_reader() -> None:
    for name in ("wire.py", "plain.py"):
        source = (SANDBOX / name).read_text(encoding="utf-8")
        for word in ("eval(", "exec(", "pickle", "__import__", "importlib", "compile(", "namedtuple("):
            assert word not in source, f"{name}: {word}"
