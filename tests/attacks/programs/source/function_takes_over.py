# The function replaces itself in the scope of its caller.
import sys

def f(x):
    sys._getframe(1).f_globals['f'] = lambda x: 2
    sys._getframe(1).f_globals['x'] = 2
    return 3
# ---- tests
x = 3
f(1)
assert x == 2
