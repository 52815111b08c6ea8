"""Tests and program in two processes: what is right passes, what only looks right to a comparison does not."""
# ruff: noqa: E501 (a program stands on one line where it can)

from __future__ import annotations

import pytest

from spd_lightning.scoring import isolation
from spd_lightning.scoring.execution import ProgramVerdict, TestedProgram, judge_programs
from spd_lightning.scoring.isolation import forced_tier, probe_isolation
from spd_lightning.scoring.parts import split

LIAR = "class Liar:\n    def __eq__(self, other):\n        return True\n    def __ne__(self, other):\n        return False\n    def __hash__(self):\n        return 1\n"
EQUAL = "assert f(1) == 2"

# name: (program, tests). None of these may pass; a right answer would be 2 or what the tests say.
ATTACKS = {
    "equal_to_all": (LIAR + "def f(x):\n    return Liar()", EQUAL),
    "equal_in_list": (LIAR + "def f(x):\n    return [Liar()]", "assert f(1) == [2]"),
    "equal_in_tuple": (LIAR + "def f(x):\n    return (Liar(), 3)", "assert f(1) == (2, 3)"),
    "equal_in_dict": (LIAR + "def f(x):\n    return {'a': Liar()}", "assert f(1) == {'a': 2}"),
    "equal_as_key": (LIAR + "def f(x):\n    return {Liar(): 1}", "assert f(1)[2] == 1"),
    "equal_in_set": (LIAR + "def f(x):\n    return {Liar()}", "assert 2 in f(1)"),
    "equal_in_deque": (LIAR + "from collections import deque\ndef f(x):\n    return deque([Liar()])", "from collections import deque\nassert f(1) == deque([2])"),
    "equal_factory": (LIAR + "from collections import defaultdict\ndef f(x):\n    return defaultdict(Liar)", "assert f(1)['x'] == 2"),
    "equal_raised": (LIAR + "def f(x):\n    raise ValueError(Liar())", "try:\n    f(1)\nexcept ValueError as e:\n    assert e.args[0] == 2"),
    "equal_class": ("class M(type):\n    def __eq__(self, other):\n        return True\n    __hash__ = None\nclass A(metaclass=M):\n    pass\ndef f(x):\n    return A", EQUAL),
    "equal_reflected": ("class A:\n    def __radd__(self, o):\n        return 2\n    __add__ = __radd__\ndef f(x):\n    return A()", "assert f(1) + 1 == 2"),
    "int_subclass": ("class I(int):\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return I(7)", EQUAL),
    "str_subclass": ("class S(str):\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return S('no')", "assert f(1) == 'yes'"),
    "float_subclass": ("class F(float):\n    def __sub__(self, o):\n        return 0.0\n    __rsub__ = __sub__\ndef f(x):\n    return F(9)", "assert abs(f(1) - 2) < 1e-6"),
    "list_subclass": ("class L(list):\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return L()", "assert f(1) == [2]"),
    "dict_subclass": ("class D(dict):\n    def __getitem__(self, k):\n        return 2\ndef f(x):\n    return D()", "assert f(1)['a'] == 2"),
    "tuple_subclass": ("class T(tuple):\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return T()", "assert f(1) == (2,)"),
    "set_subclass": ("class S(set):\n    def __contains__(self, o):\n        return True\ndef f(x):\n    return S()", "assert 2 in f(1)"),
    "named_tuple_subclass": ("from collections import namedtuple\nclass P(namedtuple('P', 'x')):\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return P(1)", "assert f(1) == (2,)"),
    "named_tuple_posed": ("class P(tuple):\n    _fields = ('x',)\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return P((1,))", "assert f(1) == (2,)"),
    "enum_lies": ("import enum\nclass E(enum.Enum):\n    A = 1\n    def __eq__(self, o):\n        return True\n    __hash__ = None\ndef f(x):\n    return E.A", EQUAL),
    "int_enum_lies": ("import enum\nclass E(enum.IntEnum):\n    A = 1\n    def __eq__(self, o):\n        return True\n    __hash__ = int.__hash__\ndef f(x):\n    return E.A", EQUAL),
    "counter_subclass": ("from collections import Counter\nclass C(Counter):\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return C()", "assert f(1) == {'a': 2}"),
    "method_shadowed": (
        "def f(p):\n    p.same = str\n    return p",
        "p = P(1)\nassert f(p).same(9)",
        "class P:\n    def __init__(self, x):\n        self.x = x\n    def same(self, y):\n        return self.x == y\n",
    ),
    "tuple_method_shadowed": (
        "from collections import namedtuple\ndef f(x):\n    return namedtuple('P', 'count')(bool)",
        "assert f(1).count(7) == 1",
    ),
    "hostile_class": ("class A:\n    @property\n    def __class__(self):\n        return int\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return A()", "r = f(1)\nassert isinstance(r, int) and r == 2"),
    "hostile_iter": ("class A:\n    def __iter__(self):\n        return iter([2])\ndef f(x):\n    return A()", "assert list(f(1)) == [2]"),
    "hostile_next": (LIAR + "class A(Liar):\n    def __next__(self):\n        return 2\n    def __iter__(self):\n        return self\ndef f(x):\n    return A()", EQUAL),
    "liar_from_iterator": (LIAR + "def f(x):\n    yield Liar()", "assert next(f(1)) == 2"),
    "hostile_hash": ("class A:\n    def __hash__(self):\n        raise SystemExit(0)\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return A()", "assert f(1) in {2}"),
    "hostile_reduce": ("import os\nclass A:\n    def __reduce__(self):\n        return (os._exit, (0,))\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return A()", EQUAL),
    "hostile_bool": ("class A:\n    def __bool__(self):\n        return True\n    def __getattr__(self, n):\n        return lambda *a: True\ndef f(x):\n    return A()", "assert f(1)"),
    "hostile_getattribute": ("class A:\n    def __getattribute__(self, n):\n        raise KeyboardInterrupt\ndef f(x):\n    return A()", EQUAL),
    "mock": ("from unittest.mock import MagicMock, ANY\ndef f(x):\n    return ANY", EQUAL),
    "builtins_patched": ("import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.type = lambda *a: int\nbuiltins.len = lambda *a: 2\nbuiltins.AssertionError = Exception\ndef f(x):\n    return 3", EQUAL),
    "sorted_patched": ("import builtins\nbuiltins.sorted = lambda *a, **k: [1, 2]\nbuiltins.set = builtins.list = lambda *a: 0\ndef f(x):\n    return [2, 3]", "assert sorted(f(1)) == [1, 2]"),
    "builtin_shadowed": ("def set(x):\n    return 0\ndef f(x):\n    return [9]", "assert set(f(1)) == set([2])"),
    "check_redefined": ("def f(x):\n    return 3\ndef check(c):\n    pass", "def check(c):\n    assert c(1) == 2\ncheck(f)"),
    "abs_shadowed": ("abs = lambda x: 0\ndef f(x):\n    return 9", "assert abs(f(1) - 2) < 1e-6"),
    "math_patched": ("import math\nmath.isclose = lambda *a, **k: True\ndef f(x):\n    return 9", "import math\nassert math.isclose(f(1), 2)"),
    "frames_walked": ("import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n        frame.f_globals['__builtins__'] = {}\n        frame = frame.f_back\n    return 3", EQUAL),
    "exit_in_call": ("import os\ndef f(x):\n    os._exit(0)", EQUAL),
    "exit_raised": ("def f(x):\n    raise SystemExit(0)", EQUAL),
    "exit_caught_by_nobody": ("import os\ndef f(x):\n    os._exit(0)", "try:\n    f(1)\nexcept BaseException:\n    pass"),
    "liar_behind_except": (LIAR + "def f(x):\n    return Liar()", "try:\n    f(1)\nexcept BaseException:\n    pass"),
    "control_written": ("import os\ndef f(x):\n    os.write(3, b'.')\n    os.read(3, 1)\n    return 3", EQUAL),
    "control_forged_reason": ("import os\nos.write(3, b'!=gone')\nos._exit(1)\ndef f(x):\n    return 3", EQUAL),
    "line_garbage": ("import os\ndef f(x):\n    os.write(6, b'\\xff' * 4096)\n    return 3", EQUAL),
    "line_short": ("import os\ndef f(x):\n    os.write(6, (2).to_bytes(4, 'big') + b'r\\0')\n    return 3", EQUAL),
    "line_early_answer_wrong": ("import os\nos.write(6, (1).to_bytes(4, 'big') + b's')\ndef f(x):\n    return 3", EQUAL),
    "line_huge": ("import os\ndef f(x):\n    os.write(6, b'\\xff\\xff\\xff\\xff')\n    return 3", EQUAL),
    "line_flood": ("import os\nwhile True:\n    os.write(6, bytes(65536))\ndef f(x):\n    return 3", EQUAL),
    "line_closed": ("import os\ndef f(x):\n    os.close(6)\n    os.close(5)\n    while True:\n        pass", EQUAL),
    "all_descriptors": ("import os\ndef f(x):\n    for fd in range(64):\n        for text in (b'.', b'?', b'!passed'):\n            try:\n                os.write(fd, text)\n            except OSError:\n                pass\n    return 3", EQUAL),
    "answers_in_thread": ("import os, threading\ndef f(x):\n    threading.Thread(target=os.write, args=(6, b'\\0\\0\\0\\1s')).start()\n    return 3", EQUAL),
    "forked_server": ("import os\nos.fork()\ndef f(x):\n    return 3", EQUAL),
    "pickled": ("import pickle, os\nclass A:\n    def __reduce__(self):\n        return (print, ('x',))\ndef f(x):\n    return pickle.dumps(A())", EQUAL),
    "function_returned": ("def f(x):\n    return lambda *a: 2", EQUAL),
    "module_returned": ("import math\ndef f(x):\n    return math", "assert f(1)"),
    "huge_value": ("def f(x):\n    return b'x' * (32 << 20)", "assert f(1)"),
    "huge_list": ("def f(x):\n    return list(range(10 ** 7))", "assert f(1)"),
    "deep_value": ("def f(x):\n    r = []\n    for _ in range(100000):\n        r = [r]\n    return r", "assert f(1)"),
    "deep_tuple": ("def f(x):\n    r = ()\n    for _ in range(100000):\n        r = (r,)\n    return {r}", "assert f(1)"),
    "laughs": ("def f(x):\n    r = [0]\n    for _ in range(60):\n        r = [r, r]\n    return r", "assert f(1) == f(1)"),
    "endless_iterator": ("import itertools\ndef f(x):\n    return itertools.count()", "assert list(f(1)) == [2]"),
    "recursion": ("def f(x):\n    return f(x)", EQUAL),
    "nan_is_not_equal": ("def f(x):\n    return float('nan')", "assert f(1) == float('nan')"),
    "wrong_type": ("def f(x):\n    return [1, 2]", "assert f(1) == (1, 2)"),
    "argument_changed": ("def f(x):\n    x.append(2)", "a = [1]\nf(a)\nassert a == [1, 2]"),  # by value: said so
    "name_missing": ("def g(x):\n    return 2", EQUAL),
    "exit_at_import": ("import sys\nsys.exit(0)", EQUAL),
    "definition_replaced": ("def helper(x):\n    return 0\ndef f(x):\n    return 9", "assert helper(f(1)) == 0", "def helper(x):\n    return x\n"),
}  # fmt: skip

# name: (program, tests[, what the prompt defines]). All of these pass.
HONEST = {
    "int": ("def f(x):\n    return x + 1", EQUAL),
    "big_int": ("def f(x):\n    return -(10 ** 6000)", "assert f(1) == -(10 ** 6000)"),
    "exact_bool": ("def f(x):\n    return x > 0", "assert f(1) is True and f(-1) is False"),
    "none": ("def f(x):\n    pass", "assert f(1) is None"),
    "ellipsis": ("def f(x):\n    return ...", "assert f(1) is ..."),
    "float": ("def f(x):\n    return 0.1 + 0.2", "assert f(1) == 0.1 + 0.2"),
    "minus_zero": ("def f(x):\n    return -0.0", "import math\nassert math.copysign(1, f(1)) == -1"),
    "infinity": ("def f(x):\n    return [float('inf'), float('-inf')]", "assert f(1) == [float('inf'), -float('inf')]"),
    "nan": ("def f(x):\n    return float('nan')", "r = f(1)\nassert r != r"),
    "nan_handed_back": ("def f(x):\n    return [x, x]", "n = float('nan')\nassert f(n) == [n, n] and f(n)[0] is n"),
    "nan_of_math": ("import math\ndef f(x):\n    return [math.nan]", "import math\nassert f(1) == [math.nan]"),
    "complex": ("def f(x):\n    return complex(x, -0.0)", "assert repr(f(1)) == repr(complex(1, -0.0))"),
    "text": ("def f(x):\n    return x[::-1] + '\\ud800\\0é'", "assert f('ab') == 'ba\\ud800\\0é'"),
    "bytes": ("def f(x):\n    return x + b'\\xff'", "assert f(b'a') == b'a\\xff' and type(f(b'')) is bytes"),
    "bytearray": ("def f(x):\n    return bytearray(x)", "assert f(b'a') == bytearray(b'a')"),
    "list": ("def f(x):\n    return sorted(x)", "assert f([3, 1, 2]) == [1, 2, 3]"),
    "tuple": ("def f(x):\n    return tuple(x)", "assert f([1]) == (1,) and type(f([1])) is tuple"),
    "dict_order": ("def f(x):\n    return {'b': 1, 'a': 2}", "assert list(f(1)) == ['b', 'a']"),
    "sets_of_frozensets": ("def f(x):\n    return {frozenset({1, 2}), frozenset()}", "assert f(1) == {frozenset([2, 1]), frozenset()}"),
    "nested": ("def f(x):\n    return {(1, 'a'): [{2: (3, [None])}]}", "assert f(1) == {(1, 'a'): [{2: (3, [None])}]}"),
    "range": ("def f(x):\n    return range(1, 9, 2)", "assert f(1) == range(1, 9, 2)"),
    "slice": ("def f(x):\n    return slice(1, None)", "assert [1, 2][f(1)] == [2]"),
    "decimal": ("from decimal import Decimal\ndef f(x):\n    return Decimal('1.10')", "from decimal import Decimal\nassert str(f(1)) == '1.10' and f(1) == Decimal('1.1')"),
    "fraction": ("from fractions import Fraction\ndef f(x):\n    return Fraction(x, 3)", "from fractions import Fraction\nassert f(2) == Fraction(2, 3)"),
    "dates": ("import datetime as d\ndef f(x):\n    return [d.date(2026, 1, 2), d.datetime(2026, 1, 2, 3, tzinfo=d.timezone.utc), d.timedelta(1, 2, 3), d.time(1, 2)]", "import datetime as d\nassert f(1) == [d.date(2026, 1, 2), d.datetime(2026, 1, 2, 3, tzinfo=d.timezone.utc), d.timedelta(1, 2, 3), d.time(1, 2)]"),
    "named_tuple": ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(x):\n    return P(1, 2)", "r = f(1)\nassert r == (1, 2) and isinstance(r, tuple)\nassert (f(1)).y == 2"),
    "named_tuple_with_a_count": (
        "from collections import namedtuple\nP = namedtuple('P', 'word count')\ndef f(x):\n    return P(x, 2)",
        "assert f('a') == ('a', 2)\nr = f('a')\nassert r[1] == 2",
    ),
    "dataclass_with_a_default": (
        "def f(x):\n    return P(y=x)",
        "assert f(3) == P(1, 3)",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 1\n    y: int = 2\n",
    ),
    "default_dict": ("from collections import defaultdict\ndef f(x):\n    d = defaultdict(list)\n    d[1].append(x)\n    return d", "assert f(2) == {1: [2]} and f(2)['new'] == []"),
    "default_dict_lambda": ("from collections import defaultdict\ndef f(x):\n    d = defaultdict(lambda: 0)\n    d['a'] += x\n    return d", "assert f(2) == {'a': 2}"),
    "ordered_dict": ("from collections import OrderedDict\ndef f(x):\n    d = OrderedDict(a=1, b=2)\n    d.move_to_end('a')\n    return d", "from collections import OrderedDict\nassert f(1) == OrderedDict([('b', 2), ('a', 1)])"),
    "counter": ("from collections import Counter\ndef f(x):\n    return Counter(x)", "assert f('aab').most_common(1) == [('a', 2)]"),
    "deque": ("from collections import deque\ndef f(x):\n    return deque(x, 2)", "from collections import deque\nr = f([1, 2, 3])\nassert r == deque([2, 3]) and type(r) is deque"),
    "dict_views": ("def f(x):\n    return x.keys(), x.items()", "k, i = f({1: 2})\nassert k == {1} and i == {(1, 2)}"),
    "own_enum": ("import enum\nclass Color(enum.IntEnum):\n    RED = 1\ndef f(x):\n    return Color.RED", "assert f(1) == 1"),
    "enum_of_prompt": ("def f(x):\n    return Color.RED", "assert f(1) is Color.RED", "import enum\nclass Color(enum.Enum):\n    RED = 1\n"),
    "class_of_prompt": ("def f(p):\n    return P(p.y, p.x)", "assert f(P(1, 2)) == P(2, 1)", "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    x: int\n    y: int\n"),
    "class_of_tests": ("def f(n):\n    return n.v + (f(n.next) if n.next else 0)", "class N:\n    def __init__(self, v, next=None):\n        self.v, self.next = v, next\nassert f(N(1, N(2))) == 3"),
    "builtin_type": ("def f(x):\n    return type(x)", "assert f(1) is int and f('') is str"),
    "match": ("import re\ndef f(x):\n    return re.match('a', x)", "assert f('ab')\nassert not f('b')"),
    "generator": ("def f(x):\n    yield from range(x)", "assert list(f(3)) == [0, 1, 2] and sum(f(3)) == 3"),
    "map": ("def f(x):\n    return map(str, x)", "assert tuple(f([1, 2])) == ('1', '2')"),
    "endless_part": ("import itertools\ndef f(x):\n    return itertools.count(x)", "import itertools\nassert list(itertools.islice(f(3), 2)) == [3, 4]"),
    "iterator_handed_back": ("def f(x):\n    return iter(x)\ndef g(i):\n    return next(i)", "i = f([5, 6])\nassert g(i) == 5 and next(i) == 6"),
    "shared_structure": ("def f(x):\n    a = [x]\n    return [a, a]", "r = f(1)\nr[0].append(2)\nassert r[1] == [1, 2]"),
    "cyclic_list": ("def f(x):\n    a = [x]\n    a.append(a)\n    return a", "r = f(1)\nassert r[1] is r"),
    "cycle_through_tuple": ("def f(x):\n    a = []\n    t = (a, x)\n    a.append(t)\n    return t", "r = f(1)\nassert r[0][0] is r"),
    "deep_enough": ("def f(x):\n    r = x\n    for _ in range(500):\n        r = [r]\n    return r", "r = f(7)\nwhile isinstance(r, list):\n    r = r[0]\nassert r == 7"),
    "arguments_shared": ("def f(a, b):\n    return a is b", "x = []\nassert f(x, x)"),
    "keyword_arguments": ("def f(x, *, y=0, **more):\n    return x, y, more", "assert f(1, y=2, z=[3]) == (1, 2, {'z': [3]})"),
    "error_caught": ("def f(x):\n    raise ValueError('bad', x)", "try:\n    f(1)\n    assert False\nexcept ValueError as e:\n    assert e.args == ('bad', 1)"),
    "own_error_caught": ("class Bad(KeyError):\n    pass\ndef f(x):\n    raise Bad(x)", "try:\n    f(1)\nexcept LookupError as e:\n    assert type(e).__name__ == 'Bad'\nelse:\n    assert False"),
    "library_error": ("import json\ndef f(x):\n    return json.loads(x)", "import json\ntry:\n    f('{')\nexcept json.JSONDecodeError as e:\n    pass\nelse:\n    assert False"),
    "state_kept": ("n = 0\ndef f():\n    global n\n    n += 1\n    return n", "f()\nassert f() == 2"),
    "value_of_program": ("ANSWER = [42]\ndef f(x):\n    return x", "assert ANSWER == [f(42)]"),
    "builtin_name": ("def sum(a, b):\n    return a * b", "assert sum(2, 5) == 10"),
    "imported_function": ("from math import gcd", "assert gcd(4, 6) == 2"),
    "module_not_imported": ("def f(x):\n    return 8 * x", "assert f(sys.maxsize) == 8 * sys.maxsize"),
    "prints": ("def f(x):\n    print('x' * 100000)\n    return 2", EQUAL),
    "recursive": ("def f(n):\n    return 1 if n < 2 else n * f(n - 1)", "assert f(20) == 2432902008176640000"),
    "patched_for_itself": ("import builtins\nbuiltins.len = lambda x: 7\ndef f(x):\n    return len(x)", "assert f([]) == 7"),
    "method_taken_as_function": ("f = '-'.join", "assert f(['a', 'b']) == 'a-b'"),
    "threads": ("import threading\ndef f(x):\n    out = []\n    t = threading.Thread(target=out.append, args=(x + 1,))\n    t.start()\n    t.join()\n    return out[0]", EQUAL),
    "check_calls_candidate": ("def f(x):\n    return x + 1", "def check(candidate):\n    assert candidate(1) == 2\n    assert abs(candidate(1.5) - 2.5) < 1e-9\ncheck(f)"),
    "large_value": ("def f(x):\n    return list(range(x))", "assert f(200000) == list(range(200000))"),
    "main_guard": ("def f(x):\n    return x + 1\nif __name__ == '__main__':\n    print(f(1))", EQUAL),
}  # fmt: skip

DIFFERS = {"argument_changed"}  # right in one process, and no test of the benchmarks needs it
QUICK = slice(0, None, 6)


def assemble(case: tuple[str, ...]) -> TestedProgram:
    program, tests, *prompt = case
    prefix = "".join(prompt)
    return TestedProgram(prefix + program, split(prefix, tests))


def verdicts(
    cases: dict[str, tuple[str, ...]], tier: int | None = None, one_process: bool = False, timeout_s: float = 30.0
) -> dict[str, ProgramVerdict]:
    programs = [assemble(case) for case in cases.values()]
    assert not any(program.parts.shared for program in programs)

    def run() -> list[ProgramVerdict]:
        return judge_programs(programs, timeout_s=timeout_s, one_process=one_process)

    if tier is None:
        return dict(zip(cases, run(), strict=True))
    with forced_tier(tier):
        return dict(zip(cases, run(), strict=True))


def some(cases: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return dict(list(cases.items())[QUICK])


def test_there_are_enough_of_both() -> None:
    assert len(ATTACKS) >= 40 and len(HONEST) >= 40


def test_some_attacks_fail() -> None:
    assert [name for name, v in verdicts(some(ATTACKS), timeout_s=3.0).items() if v.result.passed] == []


def test_some_honest_programs_pass_in_both_ways() -> None:
    found = verdicts(some(HONEST), one_process=True)
    wrong = {name: v for name, v in found.items() if not (v.result.passed and v.one_process and v.one_process.passed)}
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize("tier", [1, 2, 3, 4])
def test_no_attack_passes(tier: int) -> None:
    if isolation._try_tier(tier).name == "none":
        pytest.skip(f"isolation tier {tier} does not work here: mend that to run this")
    assert [name for name, v in verdicts(ATTACKS, tier, timeout_s=3.0).items() if v.result.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("tier", [1, 2, 3, 4])
def test_honest_programs_pass(tier: int) -> None:
    if isolation._try_tier(tier).name == "none":
        pytest.skip(f"isolation tier {tier} does not work here: mend that to run this")
    assert {name: v for name, v in verdicts(HONEST, tier).items() if not v.result.passed} == {}


@pytest.mark.slow
def test_honest_programs_pass_in_one_process() -> None:
    """The two ways agree on what is right, but for a module that tests do not import, which one process lacks."""
    found = verdicts(HONEST, one_process=True)
    differ = {name for name, v in found.items() if v.one_process is None or not v.one_process.passed}
    assert differ == {"module_not_imported"}


@pytest.mark.slow
def test_the_attacks_are_real() -> None:
    """In one process, as the benchmarks define it, many of them pass."""
    found = verdicts(ATTACKS, one_process=True, timeout_s=3.0)
    passed = {name for name, v in found.items() if v.one_process is not None and v.one_process.passed}
    assert {"equal_to_all", "equal_in_list", "int_subclass", "abs_shadowed", "math_patched", "hostile_iter"} <= passed
    assert len(passed) >= 20 and passed >= DIFFERS


@pytest.mark.parametrize(
    ("program", "tests", "reason"),
    [
        (LIAR + "def f(x):\n    return Liar()", EQUAL, "returned Liar"),
        ("def f(x):\n    return lambda: 0", EQUAL, "returned function"),
        ("def f(x):\n    return bytes(32 << 20)", EQUAL, "returned over 16 MiB"),
        ("def f(x):\n    return 3", EQUAL, "assertion"),
        ("def f(x):\n    return 1 / 0", EQUAL, "error: ZeroDivisionError"),
        ("class Bad(ValueError):\n    pass\ndef f(x):\n    raise Bad", EQUAL, "error: Bad"),
        ("def g(x):\n    return 3", EQUAL, "error: NameError"),
        ("1 / 0", EQUAL, "error: ZeroDivisionError"),
        ("assert 0", EQUAL, "assertion"),
        ("def f(x:\n", EQUAL, "syntax"),
        ("def f(x):\n    while True:\n        pass", EQUAL, "timeout"),
        ("def f(x):\n    return bytes(8 << 30)", EQUAL, "memory"),
        ("import os\nos._exit(0)", EQUAL, "no-verdict"),
        ("import os, faulthandler\ndef f(x):\n    faulthandler._sigsegv()", EQUAL, "crash"),
        ("def f(x):\n    return x()", "assert f(lambda: 2) == 2", "argument function"),
        ("def f(x):\n    return f(x)", EQUAL, "error: RecursionError"),
    ],
)
def test_reasons(program: str, tests: str, reason: str) -> None:
    verdict = judge_programs([TestedProgram(program, split("", tests))], timeout_s=1.5, one_process=False)[0]
    assert verdict.result.reason == reason and not verdict.result.passed
    assert verdict.one_process is None


def test_tests_that_name_a_class_of_the_program_share_its_process_and_are_counted() -> None:
    program = "class Node:\n    def __init__(self, v):\n        self.v = v\ndef value(n):\n    return n.v"
    verdict = judge_programs([TestedProgram(program, split("", "assert value(Node(3)) == 3"))])[0]
    assert verdict.shared and verdict.result.passed and verdict.one_process == verdict.result


def test_a_forged_end_of_the_program_does_not_pass_by_message_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stack pointers cannot be seen one process believes a message; the tests' process holds no program."""
    found = probe_isolation()
    monkeypatch.setattr(isolation, "_forced", isolation.Isolation(found.tier, found.name, found.detail, verified=False))
    forge = "import os\nos.write(3, b'.')\nos.read(3, 1)\nos._exit(0)"
    verdict = judge_programs([TestedProgram(forge, split("", EQUAL))], timeout_s=0.7)[0]
    assert verdict.one_process is not None and verdict.one_process.passed
    assert not verdict.result.passed
