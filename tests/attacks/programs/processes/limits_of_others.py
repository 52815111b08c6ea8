# Others' limits of processor time are set to nothing.
# begins with _each.py
import resource

def f(x):
    return 2 if each(lambda p: resource.prlimit(p, resource.RLIMIT_CPU, (1, 1))) else 3
