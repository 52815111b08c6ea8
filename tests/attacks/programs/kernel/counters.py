# Counters of what the processor does for others.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.syscall(298, ctypes.create_string_buffer(128), -1, 0, -1, 0) >= 0 else 3
