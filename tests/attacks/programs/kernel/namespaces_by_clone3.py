# The same by clone3, whose flags a filter cannot read.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    class Arguments(ctypes.Structure):
        _fields_ = [('flags', ctypes.c_uint64), ('rest', ctypes.c_uint64 * 10)]

    a = Arguments(0x10000000)
    a.rest[3] = 17
    return 2 if libc.syscall(435, ctypes.byref(a), ctypes.sizeof(a)) > 0 else 3
