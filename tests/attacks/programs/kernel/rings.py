# A ring of calls that no filter sees.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.syscall(425, 8, ctypes.create_string_buffer(120)) >= 0 else 3
