# A file by its handle, past every path.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    handle = (ctypes.c_uint32 * 8)(8, 1, 2, 0)
    return 2 if libc.open_by_handle_at(os.open('/', 0), handle, 0) >= 0 else 3
