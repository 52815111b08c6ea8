# One end of a pair connected anew, to an abstract name.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def f(x):
    import socket
    a, b = socket.socketpair()
    try:
        a.connect('\0dbus')
    except OSError:
        return 3
    return 2
