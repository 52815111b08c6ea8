# The keys of the user.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.syscall(250, 0, -3, 1) >= 0 else 3
