# Others are bound to one processor.
# begins with _each.py
def f(x):
    return 2 if each(lambda p: os.sched_setaffinity(p, {0})) else 3
