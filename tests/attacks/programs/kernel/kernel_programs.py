# A program for the kernel.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.syscall(321, 5, ctypes.create_string_buffer(128), 128) >= 0 else 3
