# More memory than it may have is asked for, and done without.
def f(x):
    try:
        bytearray(1 << 40)
    except MemoryError:
        return x + 1
