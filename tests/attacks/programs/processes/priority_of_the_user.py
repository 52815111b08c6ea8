# All processes of the user wait behind everything.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.setpriority(2, 0, 19) == 0 else 3
