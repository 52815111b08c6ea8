# Recursion beyond the stack.
import sys

sys.setrecursionlimit(1 << 30)

def g(x):
    return [x] < [g(x)]


def f(x):
    return g(0)
