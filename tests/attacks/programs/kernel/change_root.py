# The root changed, and left by the folder above.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.chroot(b'.') == 0 else 3
