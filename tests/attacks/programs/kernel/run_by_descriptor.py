# A program run by its descriptor.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    held = os.open('/proc/self/exe' if os.path.exists('/proc/self/exe') else os.sys.executable, os.O_RDONLY)
    libc.syscall(322, held, b'', (ctypes.c_char_p * 2)(b'x', None), None, 0x1000)
    return 3
