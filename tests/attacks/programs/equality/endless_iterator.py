# An iterator without end, which only a list of all would judge.
import itertools

def f(x):
    return itertools.repeat(3)
# ---- tests
assert list(f(1)) == [2]
