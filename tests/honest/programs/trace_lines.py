# Lines counted by sys.settrace.
import sys

def body(n):
    total = 0
    for i in range(n):
        total += i
    return total

def f(n):
    lines = []

    def trace(frame, event, arg):
        if event == "line" and frame.f_code is body.__code__:
            lines.append(frame.f_lineno)
        return trace

    sys.settrace(trace)
    body(n)
    sys.settrace(None)
    return len(lines)
# ---- tests
assert f(3) > f(1) > 0
