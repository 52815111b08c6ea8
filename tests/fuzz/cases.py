"""How many cases each test takes, what a case may end with, and the texts and values that all of them are made of."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from spd_lightning.errors import UserError

T = TypeVar("T")
LIMIT_S = 10.0  # CPU time of one case, thousands of times what it takes
COUNTED: dict[str, int] = {}  # cases by test


def cases(number: int) -> Callable[[T], T]:
    """The settings of a test that takes so many cases: the same ones every time, and nothing kept between two runs."""

    def decorate(test: Any) -> Any:
        COUNTED[f"{test.__module__}.{test.__name__}"] = number
        return settings(
            max_examples=number,
            derandomize=True,
            database=None,
            print_blob=True,
            deadline=None,  # of wall time, which a busy machine breaks; `within` counts CPU time
            suppress_health_check=list(HealthCheck),
        )(test)

    return decorate


@contextmanager
def within(seconds: float = LIMIT_S) -> Iterator[None]:
    """End what takes more CPU time than this with an `AssertionError`."""

    def stop(number: int, frame: Any) -> None:
        raise AssertionError(f"it hangs: more than {seconds} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def result_of(act: Callable[[], T]) -> T | None:
    """What comes of a case; None for a mistake that was told in words."""
    try:
        with within():
            return act()
    except UserError as error:
        assert str(error).strip().endswith((".", "`", "lines", "lists all.", "?")) or len(str(error).split()) > 3, error
        return None


# -- what inputs are made of -------------------------------------------------------------------------------------------

# Texts that break readers: other scripts and signs, half characters, line ends of every kind, nesting, digits.
ODD_TEXTS = (
    "",
    " ",
    "\n",
    "\r\n",
    "\x00",
    "\ufeff",
    "\u2028",
    "\x85",
    "\ud800",
    "a\udfffb",
    "é",
    "日本語",
    "🏳️‍🌈",
    "\u202e",
    "½",
    "٣",
    "²",
    "𝟙𝟚",
    "null",
    "~",
    "NaN",
    "-inf",
    "1e999",
    "9" * 400,
    "9" * 5000,
    "${oc.env:HOME}",
    "${a.b}",
    "%s{}{0}",
    "../../etc/passwd",
    "~nobody-of-this-name/x",
    "[" * 2000,
    "{" * 50,
    "(" * 200,
    "\\",
    "'\"`",
    "A" * 3000,
)
texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(st.characters(), max_size=40))
numbers = st.one_of(
    st.integers(-10, 100),
    st.sampled_from([0, -1, 10**20, -(10**400), 2**63, 1e308, -0.0, 1e-320]),
    st.floats(allow_nan=True, allow_infinity=True),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)


def some_changed(good: dict[str, Any], also: st.SearchStrategy[Any] = values) -> st.SearchStrategy[dict[str, Any]]:
    """A row with some fields left out, some of another value, and now and then one more."""

    @st.composite
    def row(draw: st.DrawFn) -> dict[str, Any]:
        made = dict(good)
        for name in draw(st.lists(st.sampled_from(sorted(good)), max_size=2, unique=True)):
            if draw(st.integers(0, 3)) == 0:
                del made[name]
            else:
                made[name] = draw(st.one_of(texts, also))
        if draw(st.integers(0, 7)) == 0:
            made[draw(texts)] = draw(also)
        return made

    return row()


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file's bytes, cut, with bits flipped, bytes put in or taken out, or another file altogether."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(FOREIGN))
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        kind, at = draw(st.integers(0, 3)), draw(st.integers(0, max(0, len(data) - 1)))
        if kind == 0:
            del data[at:]
        elif kind == 1 and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == 2:
            data[at:at] = draw(st.binary(max_size=8))
        else:
            del data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


FOREIGN = (
    b"",
    b"\n",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n",
    b"<!DOCTYPE html><html><body>404</body></html>",
    b"\xff\xfe{\x00}\x00",
    b"\x1f\x8b\x08\x00",
    b"[" * 5000,
    b'{"a":' * 3000,
    b"9" * 5000,
    b'{"a": ' + b"9" * 5000 + b"}",
    b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"a": "\\ud800"}',
    b"NaN",
    b"PK\x03\x04",
    b"\x00" * 64,
    b"&a [*a, *a]",
    b"a: &a {b: *a}\n",
    b"a0: &a0 {x: 1}\n" + b"".join(b"a%d: &a%d {x: *a%d, y: *a%d}\n" % (i, i, i - 1, i - 1) for i in range(1, 40)),
    b"!!python/object/apply:os.system [true]",
)


def jsonl(rows: list[Any]) -> bytes:
    """Rows as lines of JSON; half characters as their escapes."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
