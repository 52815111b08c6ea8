# Whether two processes share a descriptor.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    return 2 if libc.syscall(312, os.getpid(), os.getppid(), 0, 0, 0) >= 0 else 3
