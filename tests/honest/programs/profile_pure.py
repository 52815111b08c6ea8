# The profiler written in Python.
import profile

def f(x):
    p = profile.Profile()
    return p.runcall(lambda: x + 1)
