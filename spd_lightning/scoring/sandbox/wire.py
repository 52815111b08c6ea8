"""Values as bytes, between a program and its tests: decoded by code that runs nothing of what it reads.

A message is a table of nodes: one tag byte, then the node's own bytes or the numbers of other nodes. Each object is
one node, so what is shared stays shared and cycles stay cycles. Tuples, frozen sets and values name only nodes before
them; lists, dicts, sets and instances are made empty and filled afterwards. `plain` says what a node can be.
"""

from __future__ import annotations

import struct

from plain import SINGLETONS, Malformed, Side, Unsendable, describe, empty, expect, fill, leaf, make

TYPE_CHECKING = False  # loading `typing` takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MAX_BYTES = 16 << 20  # of one message
MAX_DEPTH = 1000  # of values in values: as deep as Python itself compares

PLAINEST = (int, str, float)  # most of what crosses; they need no second look
LATE = b"lSdOCDqk"  # tags of what is made empty and filled when all nodes are there


def pack(side: Side, value: Any, echo: dict[int, int] | None = None) -> tuple[bytes, list[Any]]:
    """A value as bytes, and the object of each node.

    Args:
        side: This process.
        value: What to send.
        echo: For an answer: numbers of the question's NaN objects by id; they come back as the same objects.

    Raises:
        Unsendable: Saying what does not cross.
    """
    nodes: list[bytes] = []
    objects: list[Any] = []
    alive: list[Any] = []  # so that no two objects have one id
    numbers: dict[int, int] = {}
    late: list[tuple[int, bytes, list[Any]]] = []
    on_path: set[int] = set()
    size = 0
    stack: list[tuple[Any, bytes, Any]] = [(value, b"", None)]
    while stack:
        item, head, parts = stack.pop()
        if not head:
            if id(item) in numbers or id(item) in on_path:
                continue
            head, parts = describe(side, item, echo or {})
            alive.append((item, parts))
            size += len(head) + (0 if parts is None else 4 + 4 * len(parts))
            if size > MAX_BYTES - 8:
                raise Unsendable("over 16 MiB")
            if parts is None or head[:1] in LATE:
                numbers[id(item)] = len(nodes)
                nodes.append(head)
                objects.append(item)
            if parts is not None:
                on_path.add(id(item))
                if len(on_path) > MAX_DEPTH:
                    raise Unsendable(f"over {MAX_DEPTH} levels")
                stack.append((item, head, parts))
                for part in reversed(parts):
                    if type(part) not in PLAINEST:
                        stack.append((part, b"", None))
                    elif id(part) not in numbers:
                        head = describe(side, part, echo or {})[0]
                        size += len(head)
                        numbers[id(part)] = len(nodes)
                        nodes.append(head)
                        objects.append(part)
                if size > MAX_BYTES - 8:
                    raise Unsendable("over 16 MiB")
            continue
        on_path.discard(id(item))
        if id(item) in numbers:
            late.append((numbers[id(item)], head, parts))
        else:
            numbers[id(item)] = len(nodes)
            nodes.append(head + references(numbers, parts))
            objects.append(item)
    for index, head, parts in late:
        nodes[index] = head + references(numbers, parts)
    return b"".join([struct.pack(">II", len(nodes), numbers[id(value)]), *nodes]), objects


def references(numbers: dict[int, int], parts: list[Any]) -> bytes:
    """The numbers of objects, as a node holds them."""
    return struct.pack(f">I{len(parts)}I", len(parts), *[numbers[id(part)] for part in parts])


def unpack(side: Side, data: bytes, sent: Sequence[Any] = ()) -> tuple[Any, list[Any]]:
    """A value from bytes, and the object of each node.

    Args:
        side: This process.
        data: What `pack` wrote, or an enemy.
        sent: For an answer: the objects of the question's nodes.

    Raises:
        Malformed: Whatever is wrong with the bytes.
    """
    try:
        return read(side, data, sent)
    except Exception as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None


def read(side: Side, data: bytes, sent: Sequence[Any]) -> tuple[Any, list[Any]]:
    """`unpack` without its guard."""
    count, root = struct.unpack_from(">II", data)
    expect(len(data) <= MAX_BYTES and root < count <= len(data) - 8, "size")
    place = 8
    nodes: list[Any] = []
    depths: list[int] = []
    late: list[tuple[bytes, Any, tuple[int, ...]]] = []

    def take(length: int) -> bytes:
        nonlocal place
        expect(place + length <= len(data), "end")
        place += length
        return data[place - length : place]

    for _ in range(count):
        tag, depth, made, body = take(1), 0, None, b""
        if tag in b"isbak":
            length = int.from_bytes(data[place : place + 4], "big")
            body = data[place + 4 : place + 4 + length]
            place += 4 + length
            expect(place <= len(data), "end")
        if tag in SINGLETONS:
            made = SINGLETONS[tag]
        elif tag in b"isba":
            made = leaf(tag, body)
        elif tag == b"n":
            import math

            made = math.nan
        elif tag == b"e":
            made = sent[int.from_bytes(take(4), "big")]
            expect(type(made) is float and made != made, "echo")
        elif tag == b"f":
            made = struct.unpack(">d", take(8))[0]
        elif tag == b"c":
            made = complex(*struct.unpack(">dd", take(16)))
        else:
            longest = struct.unpack(">q", take(8))[0] if tag == b"q" else -1
            length = int.from_bytes(take(4), "big")
            numbers = struct.unpack(f">{length}I", take(4 * length))
            expect(max(numbers, default=0) < (count if tag in LATE or not numbers else len(nodes)), "number")
            if tag in LATE:
                made = empty(side, tag, longest, body.decode())
                late.append((tag, made, numbers))
            else:
                depth = 1 + max((depths[number] for number in numbers), default=0)
                expect(depth <= MAX_DEPTH, "depth")
                parts = [nodes[number] for number in numbers]
                expect(tag in b"tzv", "tag")
                made = tuple(parts) if tag == b"t" else frozenset(parts) if tag == b"z" else make(side, *parts)
        nodes.append(made)
        depths.append(depth)
    expect(place == len(data), "rest")
    for hashed in (False, True):  # what hashes its contents comes last, when these are whole
        for tag, made, numbers in late:
            if (tag in b"lqk") is not hashed:
                fill(tag, made, [nodes[number] for number in numbers])
    return nodes[root], nodes
