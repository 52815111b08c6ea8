# A comment that ends in a backslash.
def f(x):
    return 3


# \
