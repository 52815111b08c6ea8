# The same calls by the numbers of a third kind of programs.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.syscall(0x40000000 | 41, 2, 1, 0) >= 0 else 3
