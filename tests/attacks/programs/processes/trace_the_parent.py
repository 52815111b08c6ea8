# The parent is traced.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.ptrace(16, os.getppid(), 0, 0) == 0 else 3
