# A user namespace, in which it would be root.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.unshare(0x10000000) == 0 else 3
