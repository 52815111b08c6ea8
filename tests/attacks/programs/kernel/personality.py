# An address space without randomness for what comes after.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.personality(0x0040000) >= 0 else 3
