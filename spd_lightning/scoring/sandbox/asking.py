"""Beside the tests, in their process: functions that ask the program's process, and its answers as plain values.

The program's process may be in anybody's hands, so an answer is bytes until `unpack` has read it; whatever is wrong
with it ends this process at once, where no ``except`` of the tests can see it.
"""

from __future__ import annotations

import _thread
import posix
import sys

from plain import BUILTIN_TYPES, Malformed, Side, Unsendable, expect
from wire import MAX_BYTES, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

CONTROL, ANSWERS, QUESTIONS = 3, 5, 6  # descriptors
lock = _thread.allocate_lock()


def end(reason: str) -> NoReturn:
    """End the tests: they did not pass, for this reason."""
    posix.write(CONTROL, b"!=" + reason.encode("utf-8", "replace")[:70])
    posix._exit(1)


class Token:
    """Stands for an object that stays in the program's process: true, equal to itself alone.

    An iterator can be iterated: each item crosses when it is asked for.
    """

    __slots__ = ("kind", "number")

    def __init__(self, kind: str, number: int) -> None:
        self.kind, self.number = kind, number

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Stream(Token):
    """The token of an iterator."""

    __slots__ = ()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        return asker.ask(b"n", self.number)


class Asker:
    """The tests' end of the line."""

    def __init__(self, scope: dict[str, Any], classes: Sequence[str]) -> None:
        self.scope = scope
        self.tokens: dict[int, Token] = {}
        self.side = Side(scope, classes, self.number, self.token)

    def number(self, x: Any) -> tuple[str, int] | None:
        """For `Side`."""
        return (x.kind, x.number) if isinstance(x, Token) else None

    def token(self, kind: str, number: int) -> Token:
        """For `Side`: the same object for the same number."""
        expect(kind in ("iterator", "match"), "token")
        return self.tokens.setdefault(number, (Stream if kind == "iterator" else Token)(kind, number))

    def ask(self, about: bytes, *question: Any) -> Any:
        """Send a question, wait for the answer, return or raise what it says."""
        try:
            body, sent = pack(self.side, question)
        except Unsendable as error:
            end(f"argument {error.args[0]}")
        with lock:
            try:
                write(about + body)
                answer = read()
            except OSError:
                answer = b""
        if not answer:
            end("gone")
        if answer[:1] == b"s" and about == b"n":
            raise StopIteration
        if answer[:1] == b"u":
            end(f"returned {answer[1:].decode('utf-8', 'replace')}")
        try:
            expect(answer[:1] in (b"r", b"e"), "answer")
            value, _ = unpack(self.side, answer[1:], sent)
            raised = self.exception(*value) if answer[:1] == b"e" else None
        except (Malformed, TypeError):
            end("no-verdict")
        if raised is not None:
            raise raised
        return value

    def exception(self, name: str, module: str, base: str, args: tuple[Any, ...]) -> BaseException:
        """An exception of the class that the tests know by this name, else of a class of this name below a builtin."""
        expect([type(part) for part in (name, module, base, args)] == [str, str, str, tuple], "exception")
        parent: Any = BUILTIN_TYPES.get(base)
        expect(isinstance(parent, type) and issubclass(parent, BaseException) and name.isidentifier(), "exception")
        found = self.scope.get(name) if name in self.side.classes else vars(sys.modules.get(module, sys)).get(name)
        if name != base and not (isinstance(found, type) and issubclass(found, parent)):
            found = self.side.made.setdefault((name, parent), type(name, (parent,), {}))
        kind: Any = parent if name == base else found
        try:
            error = kind.__new__(kind, *args)
            parent.__init__(error, *args)
        except Exception:
            error = kind.__new__(kind)
        error.args = args
        return error


asker: Asker  # one for the process


def connect(
    scope: dict[str, Any], definitions: str, modules: Sequence[str], names: Sequence[str], classes: Sequence[str]
) -> None:
    """Fill the scope in which the tests will run.

    Args:
        scope: Empty but for what every program finds.
        definitions: Source of what the prompt defines before the function that is asked for.
        modules: Of the standard library, which the tests use without importing them.
        names: What the tests take from the program.
        classes: Classes that both sides define.
    """
    global asker
    exec(compile(definitions, "<definitions>", "exec", 0, True), scope)
    for module in modules:
        scope[module] = __import__(module)
    asker = Asker(scope, classes)
    found = asker.ask(b"h", *names)
    if type(found) is not dict or not set(found) <= set(names):
        end("no-verdict")
    for name, value in found.items():
        scope[name] = value[0] if value else function(name)


def function(name: str) -> Callable[..., Any]:
    """What the tests call in place of a function of the program."""

    def call(*args: Any, **options: Any) -> Any:
        return asker.ask(b"c", name, args, options)

    call.__name__ = call.__qualname__ = name
    return call


def write(data: bytes) -> None:
    """Send one message."""
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[posix.write(QUESTIONS, data) :]


def read() -> bytes:
    """Receive one message; empty if the other end is closed, or says more than it may."""
    length = int.from_bytes(receive(4), "big")
    return receive(length) if length <= MAX_BYTES + 1 else b"?"


def receive(length: int) -> bytes:
    """So many bytes, or none if the other end is closed before."""
    parts = []
    while length:
        part = posix.read(ANSWERS, min(length, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
