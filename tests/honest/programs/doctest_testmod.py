# A script that runs its own doctests when it is the main module.
def f(x):
    """One more.

    >>> f(1)
    2
    """
    return x + 1

if __name__ == "__main__":
    import doctest

    failed, tried = doctest.testmod()
    assert (failed, tried) == (0, 1)
