# An integer whose comparison takes an hour.
def f(x):
    return 1 << (1 << 27)
