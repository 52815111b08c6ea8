# An open raw text with a prefix.
def f(x):
    return 3


x = r"""
