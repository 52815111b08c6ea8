# A program in a file that is only memory.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.memfd_create(b'x', 0) >= 0 else 3
