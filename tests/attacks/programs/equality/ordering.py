# An object that is below and above everything.
from functools import total_ordering

class A:
    def __lt__(self, other):
        return True

    __gt__ = __le__ = __ge__ = __lt__


def f(x):
    return A()
# ---- tests
assert 1 < f(1) < 3 and f(1) <= 2 <= f(1)
