# Signals that only ask, to all processes nearby.
# begins with _each.py
def f(x):
    return 2 if each(lambda p: os.kill(p, 0)) else 3
