# A builtin changed for the program's own use, and put back.
import builtins

def f(x):
    before = builtins.len
    builtins.len = lambda s: before(s) + 1
    try:
        return len("a" * x)
    finally:
        builtins.len = before
