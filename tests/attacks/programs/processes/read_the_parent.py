# The parent's memory by process_vm_readv.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    space = ctypes.create_string_buffer(8)
    part = (ctypes.c_void_p * 2)(ctypes.addressof(space), 8)
    return 2 if libc.process_vm_readv(os.getppid(), part, 1, part, 1, 0) >= 0 else 3
