# Looks at its limits, its usage and its processors, and lowers a limit.
import os
import resource

def f(x):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft // 2, hard))
    os.nice(1)
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    return x + 1 if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0 else 0
