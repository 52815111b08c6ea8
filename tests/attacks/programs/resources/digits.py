# An integer of a million digits as text.
import sys

sys.set_int_max_str_digits(0)

def f(x):
    return str(7 ** 3_000_000)
