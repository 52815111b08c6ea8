# A code object with other constants, and a function whose code is exchanged.
def one():
    return 1

def f(x):
    code = one.__code__.replace(co_consts=tuple(x if c == 1 else c for c in one.__code__.co_consts))

    def two():
        pass

    two.__code__ = code
    return two() + 1
