# The pages of another process are moved.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.syscall(279, os.getppid(), 0, None, None, None, 0) >= 0 else 3
