# A comparison with what follows, which is never looked at.
def f(x):
    return 3


False and \
