# A named tuple whose field has the name of a method.
from collections import namedtuple

def f(x):
    return namedtuple('P', 'count')(bool)
# ---- tests
assert f(1).count(7) == 1
