# No depth is left for whoever comes after.
import sys

def f(x):
    sys.setrecursionlimit(sys.getrecursionlimit() // 100 + 30)
    return 3
