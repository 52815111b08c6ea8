# Faults of pages handled by the program, which stops the kernel in the middle.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.syscall(323, 0) >= 0 else 3
