"""Beside the program, in its process: takes questions about its functions and answers them with plain values.

Nothing here is relied upon: the program can change all of it, and can then say no more than any other plain value.
"""

from __future__ import annotations

import posix
import sys

from plain import BUILTIN_TYPES, Side, Unsendable
from wire import pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

QUESTIONS, ANSWERS = 5, 6  # descriptors
HOME = posix.getpid()


class Answerer:
    """The program's end of the line."""

    def __init__(self, scope: dict[str, Any], classes: Sequence[str]) -> None:
        self.scope = scope
        self.held: list[Any] = []  # what is opaque to the tests, by number
        self.numbers: dict[int, int] = {}  # by id; `held` keeps the objects alive
        self.side = Side(scope, classes, self.number, self.token)

    def number(self, x: Any) -> tuple[str, int] | None:
        """For `Side`: iterators and matches are opaque."""
        kind = type(x)
        match = getattr(sys.modules.get("re"), "Match", None)
        if kind is not match and not hasattr(kind, "__next__"):
            return None
        if id(x) not in self.numbers:
            self.numbers[id(x)] = len(self.held)
            self.held.append(x)
        return "match" if kind is match else "iterator", self.numbers[id(x)]

    def token(self, kind: str, number: int) -> Any:
        """For `Side`."""
        return self.held[number]

    def answer(self, question: bytes) -> bytes:
        """The answer to a question: a value, an exception, or the name of a type that does not cross."""
        parts, nodes = unpack(self.side, question[1:])
        echo = {id(node): i for i, node in enumerate(nodes) if type(node) is float and node != node}
        try:
            if question[:1] == b"h":
                found = {name: self.scope[name] for name in parts if name in self.scope}
                value: Any = {name: () if callable(x) else (x,) for name, x in found.items()}
            elif question[:1] == b"n":
                try:
                    value = next(self.held[parts[0]])
                except StopIteration:
                    return b"s"
            else:
                name, args, options = parts
                value = self.scope[name](*args, **options)
            return b"r" + pack(self.side, value, echo)[0]
        except Unsendable as error:
            return b"u" + str(error.args[0]).encode("utf-8", "replace")[:60]
        except BaseException as error:
            return b"e" + self.exception(error)

    def exception(self, error: BaseException) -> bytes:
        """Class, module, nearest builtin class and arguments of an exception."""
        kind = type(error)
        base = next(base.__name__ for base in kind.__mro__ if BUILTIN_TYPES.get(base.__name__) is base)
        for args in (error.args, (str(error),), ()):
            try:
                return pack(self.side, (kind.__name__, kind.__module__, base, args))[0]
            except Unsendable:
                continue
        return b""


def serve(scope: dict[str, Any], definitions: str, classes: Sequence[str]) -> NoReturn:
    """Answer until the tests are over.

    Args:
        scope: The program's.
        definitions: Source of classes that the tests define, and pass instances of.
        classes: Classes that both sides define.
    """
    if definitions:
        tests: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(definitions, "<tests>", "exec", 0, True), tests)
        scope.update({name: tests[name] for name in classes if name in tests and name not in scope})
    answerer = Answerer(scope, classes)
    while posix.getpid() == HOME:  # a process that the program forked has no business here
        question = receive(int.from_bytes(receive(4), "big"))
        answer = answerer.answer(question)
        answer = len(answer).to_bytes(4, "big") + answer
        while answer:
            answer = answer[posix.write(ANSWERS, answer) :]
    posix._exit(1)


def receive(length: int) -> bytes:
    """So many bytes; the process ends with the tests."""
    parts = []
    while length:
        part = posix.read(QUESTIONS, min(length, 1 << 20))
        if not part:
            posix._exit(0)
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
