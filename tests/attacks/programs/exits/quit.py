# quit, exit and sys.exit, one after the other.
import sys

def f(x):
    for leave in (sys.exit, exit, quit):
        try:
            leave(0)
        except NameError:
            pass
