# An open bracket at the end.
def f(x):
    return 3


x = (
