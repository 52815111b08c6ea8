"""Which values are plain: the tag of each, its parts, and how it is made again from parts of exact types.

Exact types cross: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range,
slice, Ellipsis, NotImplemented, Decimal, Fraction, datetime's types, OrderedDict, defaultdict, Counter, deque, views of
dicts, named tuples, enum members, builtin types by name, instances of classes that both sides define. What a side calls
opaque (iterators, `re.Match`) crosses as a number. Anything else is `Unsendable`. Nothing is looked up by a name that
comes from outside, except in the tables below and among the classes that both sides define for themselves.

Over 300 lines in one file, since it is one table read both ways: what the first half takes apart the second puts
together, and the two are only right as a pair.
"""

from __future__ import annotations

import builtins
import struct
import sys

TYPE_CHECKING = False  # loading `typing` takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

SINGLETONS = {b"N": None, b"T": True, b"F": False, b"E": ..., b"X": NotImplemented}
BUILTIN_TYPES = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type)}
VIEWS = {"dict_keys": type({}.keys()), "dict_values": type({}.values()), "dict_items": type({}.items())}
MIXINS = {"int": int, "str": str}


class Unsendable(Exception):
    """A value that does not cross; the only argument says what it is."""


class Malformed(Exception):
    """Bytes that no packer writes."""


class Side:
    """What one process knows beside the messages.

    Args:
        scope: Where its own definitions of ``classes`` stand.
        classes: Names of the classes that both sides define.
        number: Kind and number of an opaque object, None for any other.
        token: What stands here for the opaque object of this kind and number.
    """

    def __init__(
        self,
        scope: dict[str, Any],
        classes: Sequence[str],
        number: Callable[[Any], tuple[str, int] | None],
        token: Callable[[str, int], Any],
    ) -> None:
        self.scope, self.classes, self.number, self.token = scope, frozenset(classes), number, token
        self.made: dict[Any, Any] = {}  # classes of named tuples and enum members, made once each

    def knows(self, kind: type) -> bool:
        """Whether both sides define this class."""
        name = kind.__name__
        return type(name) is str and name in self.classes and self.scope.get(name) is kind


def loaded(module: str, name: str) -> Any:
    """Something of the standard library, if its module is loaded; where it is not, no value of it can be there."""
    return getattr(sys.modules.get(module), name, sys)  # never the class of a value, nor a value


# ---- from a value to its parts


def describe(side: Side, x: Any, echo: dict[int, int]) -> tuple[bytes, list[Any] | None]:
    """Tag and bytes of an object's node, and the objects that it refers to (None for a leaf)."""
    kind: type = type(x)
    if kind is int:
        return sized(b"i", x.to_bytes(x.bit_length() // 8 + 1, "big", signed=True)), None
    if kind is str:
        return sized(b"s", x.encode("utf-8", "surrogatepass")), None
    for tag, single in SINGLETONS.items():
        if x is single:
            return tag, None
    if kind is float:
        if x != x and id(x) in echo:
            return b"e" + struct.pack(">I", echo[id(x)]), None
        return (b"n" if x is loaded("math", "nan") else b"f" + struct.pack(">d", x)), None
    if kind is complex:
        return b"c" + struct.pack(">dd", x.real, x.imag), None
    if kind is bytes or kind is bytearray:
        return sized(b"b" if kind is bytes else b"a", bytes(x)), None
    if kind is list or kind is tuple:
        return b"l" if kind is list else b"t", list(x)
    if kind is set or kind is frozenset:
        return b"S" if kind is set else b"z", list(x)
    if kind is dict:
        return b"d", pairs(x)
    return describe_library(side, kind, x)


def describe_library(side: Side, kind: type, x: Any) -> tuple[bytes, list[Any]]:
    """`describe` for what Python's own grammar does not write."""
    for name, tag in (("OrderedDict", b"O"), ("Counter", b"C"), ("defaultdict", b"D"), ("deque", b"q")):
        if kind is loaded("collections", name):
            if tag == b"q":
                return tag + struct.pack(">q", -1 if x.maxlen is None else x.maxlen), list(x)
            factory = getattr(x, "default_factory", None)
            known = isinstance(factory, type) and BUILTIN_TYPES.get(factory.__name__) is factory
            return tag, [*([factory if known else None] if tag == b"D" else []), *pairs(x)]
    if kind is range or kind is slice:
        return value(kind.__name__, x.start, x.stop, x.step)
    if isinstance(x, type) and BUILTIN_TYPES.get(x.__name__) is x:
        return value("type", x.__name__)
    for name, view in VIEWS.items():
        if kind is view:
            return value(name, *x)
    if kind is loaded("decimal", "Decimal"):
        return value("Decimal", str(x))
    if kind is loaded("fractions", "Fraction"):
        return value("Fraction", x.numerator, x.denominator)
    if kind is loaded("datetime", "date"):
        return value("date", x.year, x.month, x.day)
    if kind is loaded("datetime", "timedelta"):
        return value("timedelta", x.days, x.seconds, x.microseconds)
    if kind is loaded("datetime", "time"):
        return value("time", x.hour, x.minute, x.second, x.microsecond, x.tzinfo, x.fold)
    if kind is loaded("datetime", "datetime"):
        date = (x.year, x.month, x.day)
        return value("datetime", *date, x.hour, x.minute, x.second, x.microsecond, x.tzinfo, x.fold)
    if kind is loaded("datetime", "timezone"):
        return value("timezone", *x.__getinitargs__())
    opaque = side.number(x)
    if opaque is not None:
        return value("opaque", *opaque)
    return describe_instance(side, kind, x)


def describe_instance(side: Side, kind: type, x: Any) -> tuple[bytes, list[Any]]:
    """`describe` for enum members, named tuples and instances of classes that both sides define."""
    enum = loaded("enum", "Enum")
    if enum is not sys and issubclass(kind, enum):
        if side.knows(kind):
            return value("known member", kind.__name__, x._name_)
        base = next(base.__name__ for base in kind.__mro__ if base.__module__ == "enum")
        mixin = next((name for name, plain in MIXINS.items() if issubclass(kind, plain)), "")
        if base in ("Enum", "IntEnum", "StrEnum", "ReprEnum"):
            return value("member", mixin, kind.__name__, x._name_, x._value_)
    fields = getattr(kind, "_fields", None)
    if issubclass(kind, tuple) and type(fields) is tuple and len(fields) == len(x):
        if side.knows(kind):
            return value("known tuple", kind.__name__, *x)
        if kind.__mro__[1:] == (tuple, object):
            return value("named tuple", kind.__name__, fields, *x)
    if side.knows(kind) and not issubclass(kind, (type, *MIXINS.values(), list, tuple, dict, set, frozenset)):
        slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ()) if hasattr(x, name)]
        state = {**{name: getattr(x, name) for name in slots}, **getattr(x, "__dict__", {})}
        return sized(b"k", kind.__name__.encode()), pairs(state)
    raise Unsendable(kind.__name__)


def value(name: str, *parts: Any) -> tuple[bytes, list[Any]]:
    """A node of one of the kinds of `make`."""
    return b"v", [name, *parts]


def sized(tag: bytes, data: bytes) -> bytes:
    """Bytes behind their length."""
    return tag + struct.pack(">I", len(data)) + data


def pairs(x: Any) -> list[Any]:
    """Keys and values in turn, in their order."""
    return [part for pair in x.items() for part in pair]


# ---- from parts to a value


def expect(condition: bool, what: str) -> None:
    """Refuse a message (`assert` may be switched off)."""
    if not condition:
        raise Malformed(what)


def leaf(tag: bytes, body: bytes) -> Any:
    """An integer, text or bytes."""
    if tag == b"i":
        return int.from_bytes(body, "big", signed=True)
    return body.decode("utf-8", "surrogatepass") if tag == b"s" else body if tag == b"b" else bytearray(body)


def empty(side: Side, tag: bytes, longest: int, name: str) -> Any:
    """What `fill` fills."""
    if tag == b"k":
        return object.__new__(known(side, name))
    if tag in b"lSd":
        return {b"l": list, b"S": set, b"d": dict}[tag]()
    import collections

    if tag == b"q":
        return collections.deque(maxlen=None if longest < 0 else longest)
    return {b"O": collections.OrderedDict, b"C": collections.Counter, b"D": collections.defaultdict}[tag]()


def fill(tag: bytes, made: Any, parts: list[Any]) -> None:
    """Put its contents into a container or instance."""
    if tag in b"lq":
        made.extend(parts)
        return
    if tag == b"S":
        made.update(parts)
        return
    if tag == b"D":
        factory = parts.pop(0)
        expect(factory is None or factory in BUILTIN_TYPES.values(), "factory")
        made.default_factory = factory
    expect(len(parts) % 2 == 0, "pairs")
    for key, part in zip(parts[::2], parts[1::2]):
        if tag != b"k":
            made[key] = part
        elif type(key) is str and key.isidentifier():
            set_field(made, key, part)
        else:
            raise Malformed("field")


def set_field(made: Any, name: str, part: Any) -> None:
    """Set a field as it was stored, past any property or rule of its class."""
    slots = [base.__dict__[name] for base in type(made).__mro__ if name in getattr(base, "__slots__", ())]
    if slots:
        slots[0].__set__(made, part)
        return
    for base in type(made).__mro__:  # a value must not stand in for a method: `str` is callable too
        found = base.__dict__.get(name)
        expect(not callable(found) and not hasattr(type(found), "__get__"), "field")
    made.__dict__[name] = part


def known(side: Side, name: str) -> Any:
    """This side's own class of a name that both sides define."""
    kind = side.scope.get(name) if name in side.classes else None
    expect(isinstance(kind, type), "class")
    return kind


def make(side: Side, name: Any, *parts: Any) -> Any:
    """An object of a kind that `describe_library` or `describe_instance` names, from parts of exact types."""
    kinds = tuple(type(part) for part in parts)
    if name == "opaque" and kinds == (str, int):
        return side.token(*parts)
    if name == "type" and kinds == (str,):
        return BUILTIN_TYPES[parts[0]]
    if name == "range" and kinds == (int, int, int):
        return range(*parts)
    if name == "slice" and len(parts) == 3:
        return slice(*parts)
    if name == "dict_keys":
        return dict.fromkeys(parts).keys()
    if name == "dict_values":
        return dict(enumerate(parts)).values()
    if name == "dict_items" and set(kinds) <= {tuple}:
        return dict(parts).items()
    if name == "Decimal" and kinds == (str,):
        import decimal

        return decimal.Decimal(parts[0])
    if name == "Fraction" and kinds == (int, int):
        import fractions

        return fractions.Fraction(*parts)
    if name in ("date", "time", "datetime", "timedelta", "timezone"):
        return make_time(name, parts)
    if name == "known tuple" and issubclass(known(side, parts[0]), tuple):
        return tuple.__new__(known(side, parts[0]), parts[1:])
    if name == "known member" and kinds == (str, str):
        return known(side, parts[0]).__members__[parts[1]]
    if name == "named tuple" and kinds[:2] == (str, tuple) and len(parts) == 2 + len(parts[1]):
        shadows = [part for field, part in zip(parts[1], parts[2:]) if hasattr(tuple, field)]
        expect(not any(isinstance(part, type) for part in shadows), "field")  # it would be called as the method
        return tuple.__new__(named_tuple(side, *parts[:2]), parts[2:])
    if name == "member" and kinds[:3] == (str, str, str) and len(parts) == 4:
        return member(side, *parts)
    raise Malformed("kind")


def make_time(name: str, parts: tuple[Any, ...]) -> Any:
    """A date, time, duration or zone."""
    import datetime

    zones = (type(None), datetime.timezone)
    if name in ("date", "timedelta"):
        expect(len(parts) == 3 and all(type(part) is int for part in parts), "date")
    elif name == "timezone":
        expect([type(part) for part in parts] in ([datetime.timedelta], [datetime.timedelta, str]), "zone")
    else:
        expect(isinstance(parts[-2], zones) and all(type(part) is int for part in (*parts[:-2], parts[-1])), "time")
        return getattr(datetime, name)(*parts[:-1], fold=parts[-1])
    return getattr(datetime, name)(*parts)


def named_tuple(side: Side, name: str, fields: tuple[Any, ...]) -> Any:
    """A class like that of `collections.namedtuple`, which evaluates text and so is not asked."""
    words = (name, *fields)
    expect(all(type(word) is str and word.isidentifier() for word in words) and len(set(fields)) == len(fields), "word")
    expect(not any(field.startswith("_") for field in fields), "field")
    if words not in side.made:
        body: dict[str, Any] = {"__slots__": (), "_fields": fields}
        for i, field in enumerate(fields):
            body[field] = field_at(i)
        body["_asdict"] = lambda self: dict(zip(fields, self))
        side.made[words] = type(name, (tuple,), body)
    return side.made[words]


def field_at(place: int) -> property:
    """A field of a named tuple."""
    return property(lambda self: tuple.__getitem__(self, place))


def member(side: Side, mixin: str, kind: str, name: str, content: Any) -> Any:
    """A member of an enum that only the other side defines: like that one, it equals its number or text or nothing."""
    import enum

    expect(kind.isidentifier() and name.isidentifier() and not name.startswith("_"), "word")
    expect(type(content) is MIXINS.get(mixin, type(content)) and mixin in ("", *MIXINS), "mixin")
    key = (mixin, kind, name)
    if key not in side.made:
        base: Any = {"": enum.Enum, "int": enum.IntEnum, "str": enum.StrEnum}[mixin]
        side.made[key] = base(kind, {name: content})[name]
    return side.made[key]
