# All capabilities are asked back.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    wanted = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
    return 2 if libc.capset(header, wanted) == 0 else 3
