# Reads its input, which is empty.
import sys

def f(x):
    try:
        input()
    except EOFError:
        return x + 1 + len(sys.stdin.read())
