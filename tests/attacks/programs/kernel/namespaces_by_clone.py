# A child in namespaces of its own, by clone.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) > 0 else 3
