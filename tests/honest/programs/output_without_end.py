# A megabyte on standard output and on standard error.
import sys

def f(x):
    sys.stdout.write("x" * 1_000_000)
    sys.stderr.write("y" * 1_000_000)
    sys.stdout.flush()
    return x + 1
