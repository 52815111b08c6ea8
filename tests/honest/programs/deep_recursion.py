# Recursion deeper than Python's own limit.
import sys

def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)

def f(n):
    sys.setrecursionlimit(20000)
    return depth(n)
# ---- tests
assert f(8000) == 8000
