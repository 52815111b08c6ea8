# Shared memory of all processes of the user.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.shmget(0x1234, 4096, 0o1666) >= 0 else 3
