# The frame above is told to go on at another line.
import sys

def f(x):
    frame = sys._getframe(1)
    try:
        frame.f_lineno += 1
    except ValueError:
        pass
    return 3
