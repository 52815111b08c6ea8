# Semaphores of all processes of the user.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.semget(0x1234, 1, 0o1666) >= 0 else 3
