# Sockets of every family.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    import socket
    for family in range(1, 46):
        for kind in (1, 2, 3):
            try:
                socket.socket(family, kind).close()
                return 2
            except OSError:
                pass
    return 3
