# More memory than there is.
def f(x):
    return [bytes(1 << 24) for _ in range(10000)]
