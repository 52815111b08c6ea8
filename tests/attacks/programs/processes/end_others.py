# All processes nearby are ended, the supervisor last.
# begins with _each.py
def f(x):
    each(lambda p: os.kill(p, 9))
    return 3
