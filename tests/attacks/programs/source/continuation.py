# A line continuation at the end, in front of the tests.
def f(x):
    return 3


if False: \
