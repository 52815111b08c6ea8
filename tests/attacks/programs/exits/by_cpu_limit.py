# The process lowers its own limit of processor time and meets it.
import resource

def f(x):
    resource.setrlimit(resource.RLIMIT_CPU, (0, 0))
    while True:
        pass
