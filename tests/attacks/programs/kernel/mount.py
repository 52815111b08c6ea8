# A file system of processes of its own.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.mount(b'proc', b'.', b'proc', 0, None) == 0 else 3
