# A function of the C library.
import ctypes

def f(x):
    return ctypes.CDLL(None).abs(-x) + 1
