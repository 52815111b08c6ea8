# A warning caught, and one made an error.
import warnings

def f(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            warnings.warn("old", DeprecationWarning)
        except DeprecationWarning:
            return x + 1
