# Every scope above the call is emptied of builtins.
import sys

def f(x):
    frame = sys._getframe()
    while frame:
        frame.f_globals['__builtins__'] = {}
        frame = frame.f_back
    return 3
